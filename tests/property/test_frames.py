"""Frames in and out: whatever comes, the router answers it or says nothing, and never raises."""

from __future__ import annotations

import json
import struct

import orjson
from hypothesis import given
from hypothesis import strategies as st

from ecan.errors import ReplyError
from ecan.gateway.framing import text_header
from ecan.protocol.codec import (
    MAX_ID_CHARS,
    FrameError,
    decode,
    encode_error,
    encode_push,
    encode_result,
)
from ecan.protocol.frames import Answer, Request

text = st.text(max_size=20)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=10,
)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=MAX_ID_CHARS)


@given(length=st.integers(0, 2**40))
def test_a_header_says_its_length_in_the_shortest_form(length):
    """RFC 6455 §5.2: FIN, text, no mask, and the minimal number of bytes for the length."""
    head = text_header(length)

    assert head[0] == 0x81
    assert head[1] & 0x80 == 0
    if len(head) == 2:
        assert head[1] == length < 126
    elif len(head) == 4:
        assert 126 <= struct.unpack("!H", head[2:])[0] == length
    else:
        assert 65536 <= struct.unpack("!Q", head[2:])[0] == length


@given(data=st.binary(max_size=500))
def test_decode_of_bytes_raises_nothing_else(data):
    """P17: any bytes are a frame or a FrameError."""
    try:
        frame = decode(data)
    except FrameError as error:
        frame = error
    assert isinstance(frame, Request | Answer | FrameError)
    assert len(frame.id) <= MAX_ID_CHARS


@given(value=plain)
def test_decode_of_json_raises_nothing_else(value):
    """P17: any JSON is a frame or a FrameError."""
    try:
        decode(orjson.dumps(value))
    except FrameError as error:
        json.dumps(error.message)


@given(
    frame_id=ids,
    method=ids,
    params=plain,
    deadline=st.none() | st.floats(0.001, 86_400_000),
    cancel=st.booleans(),
)
def test_a_request_comes_through_as_it_was_sent(frame_id, method, params, deadline, cancel):
    """Whatever id, method and params a client chooses, they arrive unchanged."""
    meta = {"on_disconnect": "cancel" if cancel else "keep"}
    if deadline is not None:
        meta["deadline_ms"] = deadline
    body = {"id": frame_id, "type": "request", "method": method, "params": params, "meta": meta}
    data = orjson.dumps(body)

    request = decode(data)

    assert (request.id, request.method, request.params) == (frame_id, method, params)
    assert (request.deadline_ms, request.cancel_on_disconnect) == (deadline, cancel)
    assert request.size_bytes == len(data)


@given(
    place=st.sampled_from(["meta", "params", "top"]),
    session_id=ids,
    token=ids,
    shadow=st.booleans(),
)
def test_credentials_are_found_where_they_may_stand(place, session_id, token, shadow):
    """meta counts before params, params before the top level."""
    found = {"session_id": session_id, "token": token}
    body = {"id": "1", "type": "request", "method": "m"}
    if place == "meta":
        body["meta"] = found
        if shadow:
            body["params"] = {"session_id": "no", "token": "no"}
    elif place == "params":
        body["params"] = found
        if shadow:
            body["token"] = "no"
    else:
        body |= {"token": token, "params": {"session_id": session_id}}

    request = decode(orjson.dumps(body))

    assert (request.session_id, request.token) == (session_id, token)
    assert repr(request) == f"Request(id='1', method='m', {request.size_bytes} bytes)"


@given(frame_id=text, method=text, value=plain, timestamp=st.integers(0, 2**50))
def test_what_is_sent_is_one_json_object(frame_id, method, value, timestamp):
    """Responses and pushes have the fields of the contract, whatever is in them."""
    result = orjson.loads(encode_result(frame_id, method, value, {}, timestamp))
    push = orjson.loads(encode_push(frame_id, method, value, {}, timestamp))
    error = orjson.loads(
        encode_error(frame_id, method, ReplyError("BUSY", frame_id, details=value), {}, timestamp)
    )

    assert (result["type"], result["status"], result["result"]) == ("response", "success", value)
    assert (push["type"], push["method"], push["params"]) == ("request", method, value)
    assert (error["status"], error["error"]["code"]) == ("error", "BUSY")
    assert error["error"]["retryable"] is True
    assert result["id"] == push["id"] == error["id"] == frame_id
