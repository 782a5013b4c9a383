"""Bytes to frames and back."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecan.errors import HandlerError, ReplyError
from ecan.protocol.codec import (
    MAX_ID_CHARS,
    FrameError,
    decode,
    encode_error,
    encode_pending,
    encode_push,
    encode_result,
    error_object,
)
from ecan.protocol.codes import ErrorCode
from ecan.protocol.frames import Answer, Request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)

KNOWN = {
    "id": st.text(max_size=5) | JSON,
    "type": st.sampled_from(["request", "response"]) | JSON,
    "method": st.text(max_size=5) | JSON,
    "status": st.sampled_from(["success", "error", "pending"]) | JSON,
    "params": st.fixed_dictionaries({}, optional={"session_id": JSON, "token": JSON}) | JSON,
    "meta": st.fixed_dictionaries(
        {},
        optional={
            "session_id": JSON,
            "token": JSON,
            "deadline_ms": JSON,
            "on_disconnect": st.sampled_from(["keep", "cancel"]) | JSON,
            "traceparent": JSON,
        },
    )
    | JSON,
    "token": JSON,
}


def _frame(**fields) -> bytes:
    return json.dumps({"id": "1", "type": "request", "method": "m", **fields}).encode()


def _refused(data: bytes) -> FrameError:
    with pytest.raises(FrameError) as caught:
        decode(data)
    return caught.value


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xff\xfe")
@example(b'"\\ud800"')
@example(b"[" * 100_000)
@example(b'{"a":' * 2000 + b"1" + b"}" * 2000)
@example(b"1e999999999")
@example(b"9" * 10_000)
@example(b"null")
@example(b'{"id": "\xed\xa0\x80", "type": "request"}')
def test_p17_any_bytes_decode_or_raise_frame_error(data):
    """P17: whatever bytes come, there is a frame or a clear error, nothing else."""
    _decode_any(data)


@given(st.fixed_dictionaries({}, optional=KNOWN))
def test_p17_any_object_decodes_or_raises_frame_error(frame):
    """P17: frames that are nearly right are refused with the field's name."""
    _decode_any(orjson.dumps(frame))


def _decode_any(data: bytes) -> None:
    try:
        frame = decode(data)
    except FrameError as error:
        _check_refusal(error)
    else:
        assert isinstance(frame, Request | Answer)
        assert isinstance(frame.id, str)
        if isinstance(frame, Request):
            assert isinstance(frame.session_id, str | None)
            assert isinstance(frame.token, str | None)
            assert frame.deadline_ms is None or frame.deadline_ms > 0


def _check_refusal(refused: FrameError) -> None:
    assert refused.code in {
        ErrorCode.PARSE_ERROR,
        ErrorCode.MISSING_TYPE,
        ErrorCode.UNKNOWN_TYPE,
        ErrorCode.INVALID_REQUEST,
    }
    assert isinstance(refused.id, str)
    assert len(refused.id) <= MAX_ID_CHARS
    assert refused.message
    reply = ReplyError(refused.code, refused.message)
    assert orjson.loads(encode_error(refused.id, "", reply, {}, 0))["status"] == "error"


def test_a_whole_request():
    """Every part of the envelope arrives where it belongs."""
    data = _frame(
        params={"a": 1},
        meta={
            "session_id": "s",
            "token": "t",
            "deadline_ms": 1500,
            "on_disconnect": "cancel",
            "traceparent": "00-" + "a" * 100,
        },
        timestamp=1,
    )
    request = decode(data)
    assert isinstance(request, Request)
    assert (request.id, request.method, request.params) == ("1", "m", {"a": 1})
    assert (request.session_id, request.token) == ("s", "t")
    assert request.deadline_ms == 1500
    assert request.cancel_on_disconnect
    assert len(request.traceparent) == 55
    assert request.size_bytes == len(data)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"params": {"session_id": "s", "token": "t"}}, ("s", "t")),
        ({"token": "t"}, (None, "t")),
        ({"token": None}, (None, None)),
        ({"meta": {"token": "m"}, "params": {"token": "p"}, "token": "t"}, (None, "m")),
        ({"params": {"token": "p"}, "token": "t"}, (None, "p")),
        ({"meta": {"session_id": "m"}, "params": {"session_id": "p", "token": "t"}}, ("m", "t")),
        ({"params": {"session_id": 5, "token": "t"}}, (None, "t")),
        ({"params": {"token": ["app's own"]}}, (None, None)),
        ({"params": [{"token": "t"}]}, (None, None)),
    ],
)
def test_where_credentials_may_stand(fields, expected):
    """Meta goes before params, params before the top level (CONTRACT §2)."""
    request = decode(_frame(**fields))
    assert (request.session_id, request.token) == expected


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": ""}, "`id`"),
        ({"id": 5}, "`id`"),
        ({"id": "x" * 201}, "`id`"),
        ({"method": None}, "`method`"),
        ({"method": "x" * 201}, "`method`"),
        ({"meta": []}, "`meta`"),
        ({"meta": {"deadline_ms": 0}}, "`meta.deadline_ms`"),
        ({"meta": {"deadline_ms": True}}, "`meta.deadline_ms`"),
        ({"meta": {"deadline_ms": 1e12}}, "`meta.deadline_ms`"),
        ({"meta": {"on_disconnect": "stay"}}, "`meta.on_disconnect`"),
        ({"meta": {"session_id": 5}}, "`meta.session_id`"),
        ({"meta": {"token": 5}}, "`meta.token`"),
        ({"token": 5}, "`token`"),
        ({"type": "response", "id": "", "status": "success"}, "`id`"),
        ({"type": "response", "status": "done"}, "`status`"),
    ],
)
def test_a_bad_envelope_names_the_field(fields, named):
    """INVALID_REQUEST says where to look, and echoes the id if it could be read."""
    error = _refused(_frame(**fields))
    assert error.code == ErrorCode.INVALID_REQUEST
    assert named in error.message
    assert fields.get("id", "1") in (5, "x" * 201, error.id)


def test_p16_a_bad_credential_is_not_repeated():
    """P16: the message names the field, not its value."""
    assert "hunter2" not in _refused(_frame(meta={"token": ["hunter2"]})).message


@pytest.mark.parametrize(
    ("data", "code", "frame_id"),
    [
        (b"{", ErrorCode.PARSE_ERROR, ""),
        (b"[]", ErrorCode.INVALID_REQUEST, ""),
        (b'{"id": "7"}', ErrorCode.MISSING_TYPE, "7"),
        (b'{"id": "7", "type": "hello"}', ErrorCode.UNKNOWN_TYPE, "7"),
        (b'{"id": 7, "type": ["request"]}', ErrorCode.UNKNOWN_TYPE, ""),
    ],
)
def test_what_is_no_frame(data, code, frame_id):
    """Each kind of nonsense has its own code."""
    error = _refused(data)
    assert (error.code, error.id) == (code, frame_id)


@pytest.mark.parametrize(("status", "ok"), [("success", True), ("pending", True), ("error", False)])
def test_a_clients_answer_to_a_push(status, ok):
    """A response frame from the client is an answer."""
    frame = {"id": "p", "type": "response", "status": status, "result": 1, "error": {"code": "X"}}
    answer = decode(json.dumps(frame).encode())
    assert isinstance(answer, Answer)
    assert (answer.id, answer.ok, answer.result, answer.error) == ("p", ok, 1, {"code": "X"})


def test_p16_a_requests_repr_shows_no_params():
    """P16: a repr ends up in logs."""
    assert "hunter2" not in repr(decode(_frame(params={"password": "hunter2"}, token="hunter2")))


def test_outgoing_frames_have_the_shape_of_the_contract():
    """CONTRACT §2, field by field."""
    body = {"id": "1", "method": "m", "meta": {"sid": "s"}, "timestamp": 5}
    assert orjson.loads(encode_result("1", "m", {1: "int key"}, {"sid": "s"}, 5)) == {
        **body,
        "type": "response",
        "status": "success",
        "result": {"1": "int key"},
    }
    assert orjson.loads(encode_pending("1", "m", 0.5, {"sid": "s"}, 5)) == {
        **body,
        "type": "response",
        "status": "pending",
        "result": 0.5,
    }
    assert orjson.loads(encode_push("1", "m", [1], {"sid": "s"}, 5)) == {
        **body,
        "type": "request",
        "params": [1],
    }


def test_error_frames_take_the_codes_defaults():
    """A reply says whether to try again and whether the request ran."""
    error = ReplyError("BUSY", "Later.", retry_after_ms=50)
    assert orjson.loads(encode_error("1", "m", error, {}, 5))["error"] == {
        "code": "BUSY",
        "message": "Later.",
        "retryable": True,
        "outcome": "not_run",
        "retry_after_ms": 50,
    }
    declared = HandlerError("OUT_OF_STOCK", "Only 3.", details={"left": 3}, retryable=True)
    assert error_object(declared) == {
        "code": "OUT_OF_STOCK",
        "message": "Only 3.",
        "retryable": True,
        "outcome": "ran",
        "details": {"left": 3},
    }
    ran = ReplyError("TIMEOUT", "x", outcome="not_run")
    assert error_object(ran)["outcome"] == "not_run"


def _circle() -> list:
    circle: list = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize("details", [object(), {1, 2}, {"n": 1 << 70}, "\ud800", _circle()])
def test_p3_an_error_can_always_be_sent(details):
    """P3: whatever a handler puts in an error, the answer goes out."""
    error = ReplyError("\ud800", "broken \udcff name", details=details)
    frame = orjson.loads(encode_error("1", "m", error, {}, 5))
    assert frame["status"] == "error"
    assert "details" in frame["error"]


def test_p3_an_unsendable_message_without_details():
    """P3: a file name that is not UTF-8 in the message does not lose the answer."""
    error = ReplyError("NO_FILE", "\udcff")
    assert orjson.loads(encode_error("1", "m", error, {}, 5))["error"]["message"] == "\\udcff"


def test_a_result_that_is_not_json_is_the_callers_fault():
    """The session turns it into an error reply."""
    for encode in (encode_result, encode_pending, encode_push):
        with pytest.raises(TypeError):
            encode("1", "m", object(), {}, 5)
