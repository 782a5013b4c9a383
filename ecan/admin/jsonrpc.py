"""JSON-RPC 2.0, one object or batch a line: what a line means, and what answers look like. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

import attrs
import orjson

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
REFUSED: Final = -32000
"""The server said no: ``data`` has our own error code, and details."""

MAX_BATCH = 100
"""Calls in one line; each may have a large answer."""


class RpcError(Exception):
    """An error of the protocol, as it is answered."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@attrs.frozen
class Rpc:
    """One call.

    Attributes:
        id: echoed; unset for a notification, which gets no answer.
    """

    method: str
    params: dict[str, Any]
    id: str | int | float | None
    is_notification: bool


def parse_line(line: bytes) -> tuple[list[Any], bool]:
    """The calls of a line, not yet looked at, and whether they are a batch.

    Raises:
        RpcError: not JSON, or a batch that is empty or too large.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RpcError(PARSE_ERROR, f"not JSON: {error}") from None
    if not isinstance(value, list):
        return [value], False
    if not value:
        raise RpcError(INVALID_REQUEST, "an empty batch")
    if len(value) > MAX_BATCH:
        raise RpcError(INVALID_REQUEST, f"more than {MAX_BATCH} calls in one batch")
    return value, True


def parse_call(value: Any) -> Rpc:
    """One call.

    Raises:
        RpcError: it is none.

    >>> parse_call({"jsonrpc": "2.0", "id": 1, "method": "status"})
    Rpc(method='status', params={}, id=1, is_notification=False)
    """
    if not isinstance(value, dict):
        raise RpcError(INVALID_REQUEST, "a call is a JSON object")
    if value.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'jsonrpc: must be "2.0"')
    if not _is_id(value.get("id")):
        raise RpcError(INVALID_REQUEST, "id: must be a string, a number or null")
    method = value.get("method")
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "method: must be a string")
    params = value.get("params")
    if params is None or params == []:
        params = {}
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "params: must be an object")
    return Rpc(method, params, value.get("id"), "id" not in value)


def id_of(value: Any) -> Any:
    """The id to answer a bad call with: its own if that can be told, else null."""
    found = value.get("id") if isinstance(value, dict) else None
    return found if _is_id(found) else None


def _is_id(value: Any) -> bool:
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))


def success(call_id: Any, result: Any) -> bytes:
    """An answer, without its line end."""
    return encode({"jsonrpc": "2.0", "id": call_id, "result": result})


def failure(call_id: Any, error: RpcError) -> bytes:
    """An error answer, without its line end."""
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return encode({"jsonrpc": "2.0", "id": call_id, "error": body})


def notification(method: str, params: Any) -> bytes:
    """What nobody asked for just now, without its line end."""
    return encode({"jsonrpc": "2.0", "method": method, "params": params})


def encode(value: Any) -> bytes:
    """JSON on one line."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # lone surrogates and integers above 64 bits, which orjson refuses
        return json.dumps(value, default=str).encode()
