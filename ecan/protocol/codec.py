"""Bytes to frames and back. Pure: never raises anything but `FrameError`.

The envelope is checked by hand because this runs for every frame (1.5 µs instead
of 5 µs for a generated structure hook); params and results are checked by cattrs
against the handler's own types, see `ecan.handlers.structure`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import orjson

from ecan.protocol.codes import ErrorCode, code_info
from ecan.protocol.frames import Answer, Request

if TYPE_CHECKING:
    from ecan.errors import ReplyError

MAX_ID_CHARS = 200
"""Longer ids are refused: an id is echoed, kept in the ledger and logged."""

MAX_METHOD_CHARS = 200

MAX_DEADLINE_MS = 24 * 3600 * 1000.0

JSON_OPTIONS = orjson.OPT_NON_STR_KEYS
"""Results of handlers may have integer keys, as json.dumps allows."""


class FrameError(Exception):
    """A frame that is no request; it is answered, never fatal (P17).

    Attributes:
        code: PARSE_ERROR, MISSING_TYPE, UNKNOWN_TYPE or INVALID_REQUEST.
        message: names the field that is wrong.
        id: of the frame if it could be read, else ``""``.
    """

    def __init__(self, code: ErrorCode, message: str, frame_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = frame_id


def decode(data: bytes) -> Request | Answer:  # noqa: C901 - runs for every frame
    """Read one text frame.

    Raises:
        FrameError: not JSON, or not a frame of the contract.

    >>> decode(b'{"id": "1", "type": "request", "method": "ping"}')
    Request(id='1', method='ping', 48 bytes)
    """
    try:
        frame = orjson.loads(data)
    except ValueError as error:
        raise FrameError(ErrorCode.PARSE_ERROR, f"The frame is not JSON: {error}") from None
    if type(frame) is not dict:
        raise FrameError(ErrorCode.INVALID_REQUEST, "The frame must be a JSON object.")
    frame_id = frame.get("id")
    kind = frame.get("type")
    if kind != "request":
        return _decode_other(frame, frame_id, kind)
    if type(frame_id) is not str or not frame_id or len(frame_id) > MAX_ID_CHARS:
        raise _bad(frame_id, f"`id` must be a string of 1 to {MAX_ID_CHARS} characters.")
    method = frame.get("method")
    if type(method) is not str or not method or len(method) > MAX_METHOD_CHARS:
        raise _bad(frame_id, f"`method` must be a string of 1 to {MAX_METHOD_CHARS} characters.")
    params = frame.get("params")
    request = Request(frame_id, method, params, size_bytes=len(data))
    meta = frame.get("meta")
    if meta is not None:
        if type(meta) is dict and len(meta) == 2:  # noqa: PLR2004 - what a browser sends
            session_id, token = meta.get("session_id"), meta.get("token")
            if type(session_id) is str and type(token) is str:
                request.session_id, request.token = session_id, token
                return request
        _read_meta(request, meta)
    if type(params) is dict and ("token" in params or "session_id" in params):
        _read_credentials(request, params, "params.")
    if request.token is None and "token" in frame:
        _read_credentials(request, {"token": frame["token"]}, "")
    return request


def _read_meta(request: Request, meta: Any) -> None:
    if type(meta) is not dict:
        raise _bad(request.id, "`meta` must be an object.")
    _read_credentials(request, meta, "meta.")
    deadline_ms = meta.get("deadline_ms")
    if deadline_ms is not None:
        if type(deadline_ms) not in (int, float) or not 0 < deadline_ms <= MAX_DEADLINE_MS:
            raise _bad(request.id, "`meta.deadline_ms` must be a number above 0, at most a day.")
        request.deadline_ms = deadline_ms
    on_disconnect = meta.get("on_disconnect")
    if on_disconnect is not None:
        if on_disconnect not in ("keep", "cancel"):
            raise _bad(request.id, '`meta.on_disconnect` must be "keep" or "cancel".')
        request.cancel_on_disconnect = on_disconnect == "cancel"
    traceparent = meta.get("traceparent")
    if type(traceparent) is str:
        request.traceparent = traceparent[:55]


def _read_credentials(request: Request, source: dict[str, Any], where: str) -> None:
    session_id = source.get("session_id")
    if session_id is not None and request.session_id is None:
        if type(session_id) is not str:
            # Methods of the application may use the name for something of their own.
            if where != "params.":
                raise _bad(request.id, f"`{where}session_id` must be a string.")
        else:
            request.session_id = session_id
    token = source.get("token")
    if token is not None and request.token is None:
        if type(token) is not str:
            if where != "params.":
                raise _bad(request.id, f"`{where}token` must be a string.")
        else:
            request.token = token


def _decode_other(frame: dict[str, Any], frame_id: Any, kind: Any) -> Answer:
    if kind is None:
        raise FrameError(ErrorCode.MISSING_TYPE, "The frame has no `type`.", _echo(frame_id))
    if kind != "response":
        raise FrameError(
            ErrorCode.UNKNOWN_TYPE, '`type` must be "request" or "response".', _echo(frame_id)
        )
    if type(frame_id) is not str or not frame_id or len(frame_id) > MAX_ID_CHARS:
        raise _bad(frame_id, f"`id` must be a string of 1 to {MAX_ID_CHARS} characters.")
    status = frame.get("status")
    if status not in ("success", "error", "pending"):
        raise _bad(frame_id, '`status` must be "success", "pending" or "error".')
    return Answer(
        frame_id, ok=status != "error", result=frame.get("result"), error=frame.get("error")
    )


def _echo(frame_id: Any) -> str:
    return frame_id[:MAX_ID_CHARS] if type(frame_id) is str else ""


def _bad(frame_id: Any, message: str) -> FrameError:
    return FrameError(ErrorCode.INVALID_REQUEST, message, _echo(frame_id))


# -- outgoing ---------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """What orjson cannot encode by itself: attrs objects, anywhere in a result."""
    if attrs.has(type(value)):
        return {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    raise TypeError(f"{type(value).__name__} is not JSON-able")


_SUCCESS = (
    b'{"id":%b,"type":"response","method":%b,"status":"success","meta":{"sid":"%b",'
    b'"incarnation":%d,"replayed":false,"queue_ms":%.3f,"run_ms":%.3f},"result":%b,'
    b'"timestamp":%d}'
)


def exact(encoded: bytes) -> bytes:
    """A copy of orjson's output for keeping: orjson leaves a 4 KiB buffer behind each."""
    return b"%b" % encoded


def encode_success(
    request_id: str,
    method: bytes,
    result: Any,
    sid: bytes,
    incarnation: int,
    queue_ms: float,
    run_ms: float,
    timestamp: int,
) -> bytes:
    """A final success response of a session: `encode_result`, at half its cost.

    Args:
        request_id: as the client chose it.
        method: the name as JSON, quotes included.
        result: JSON-able, attrs objects included.
        sid: public id; plain ASCII.
        incarnation: that answers.
        queue_ms: waited.
        run_ms: ran.
        timestamp: UTC epoch milliseconds.

    Raises:
        TypeError: (orjson.JSONEncodeError) the result is not JSON-able.
    """
    return _SUCCESS % (
        orjson.dumps(request_id),
        method,
        sid,
        incarnation,
        queue_ms,
        run_ms,
        orjson.dumps(result, _plain, JSON_OPTIONS),
        timestamp,
    )


def encode_result(
    request_id: str, method: str, result: Any, meta: dict[str, Any], timestamp: int
) -> bytes:
    """A final success response.

    Raises:
        TypeError: (orjson.JSONEncodeError) the result is not JSON-able.
    """
    return orjson.dumps(
        {
            "id": request_id,
            "type": "response",
            "method": method,
            "status": "success",
            "meta": meta,
            "result": result,
            "timestamp": timestamp,
        },
        _plain,
        JSON_OPTIONS,
    )


def encode_pending(
    request_id: str, method: str, result: Any, meta: dict[str, Any], timestamp: int
) -> bytes:
    """A progress or stream frame; leaves at once, before the commit."""
    return orjson.dumps(
        {
            "id": request_id,
            "type": "response",
            "method": method,
            "status": "pending",
            "meta": meta,
            "result": result,
            "timestamp": timestamp,
        },
        _plain,
        JSON_OPTIONS,
    )


def encode_error(
    request_id: str, method: str, error: ReplyError, meta: dict[str, Any], timestamp: int
) -> bytes:
    """A final error response, with the code's defaults filled in.

    Never raises: details that are not JSON-able are given as their repr.
    """
    body = error_object(error)
    frame = {
        "id": request_id,
        "type": "response",
        "method": method,
        "status": "error",
        "meta": meta,
        "error": body,
        "timestamp": timestamp,
    }
    try:
        return exact(orjson.dumps(frame, option=JSON_OPTIONS, default=repr))
    except TypeError:
        # Lone surrogates, integers above 64 bits, circles: of details or the message.
        body["code"], body["message"] = _utf8(body["code"]), _utf8(body["message"])
        if "details" in body:
            body["details"] = _utf8(repr(body["details"]))
        return exact(orjson.dumps(frame, option=JSON_OPTIONS))


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def error_object(error: ReplyError) -> dict[str, Any]:
    """The ``error`` object of a response."""
    info = code_info(error.code)
    body: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "retryable": info.retryable if error.retryable is None else error.retryable,
        "outcome": info.outcome if error.outcome is None else error.outcome,
    }
    if error.details is not None:
        body["details"] = error.details
    if error.retry_after_ms is not None:
        body["retry_after_ms"] = error.retry_after_ms
    return body


def encode_push(
    push_id: str, method: str, params: Any, meta: dict[str, Any], timestamp: int
) -> bytes:
    """A push: a request whose sender is the server.

    Raises:
        TypeError: (orjson.JSONEncodeError) the params are not JSON-able.
    """
    frame = {
        "id": push_id,
        "type": "request",
        "method": method,
        "params": params,
        "meta": meta,
        "timestamp": timestamp,
    }
    return exact(orjson.dumps(frame, _plain, JSON_OPTIONS))
