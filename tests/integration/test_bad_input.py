"""P17: whatever bytes a client sends, it gets a clear error or a clean close, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import struct

import pytest
from edge_kit import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Raw,
    address_of,
    eventually,
    exchange,
    frame,
    http,
    request_bytes,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecan.config import RateLimit
from ecan.gateway.connection import MAX_BACKLOG_BYTES
from ecan.protocol.codes import ErrorCode
from ecan.testing import running_app

pytestmark = pytest.mark.each_transport

MAX_FRAME = 64 * 1024

FUZZ = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
async def arena(no_task_left, capsys, caplog):
    """A server and a sibling that pings all the time; no error is logged, no ping fails."""
    unlimited = RateLimit(0.0, 0)
    async with (
        running_app(max_frame=MAX_FRAME, rate_limit=unlimited) as server,
        server.logged_in() as sibling,
    ):

        async def ping():
            while True:
                assert (await sibling.call("debug.incr", {"key": "n"})) > pings["n"]
                pings["n"] += 1

        pings = {"n": 0}
        task = asyncio.create_task(ping())
        yield server
        seen = pings["n"]
        await eventually(lambda: task.done() or pings["n"] > seen + 3, "more pings")
        assert not task.done(), task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert sibling.ws.close_code is None
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []
    out = capsys.readouterr().out
    assert "router.failed" not in out
    assert "Traceback" not in out


def ping_frame(request_id="after"):
    return json.dumps({"id": request_id, "type": "request", "method": "ping"}).encode()


def check_harmless(texts):
    for text in texts:
        assert "Traceback" not in json.dumps(text)
        assert 'File "' not in json.dumps(text)
        if text["status"] == "error":
            assert text["error"]["code"] in ErrorCode.__members__
            assert text["error"]["code"] != "HANDLER_CRASHED"


async def survives(raw):
    """The connection still answers; what came before the answer."""
    raw.send(TEXT, ping_frame())
    before = []
    while (text := await raw.json())["id"] != "after":
        before.append(text)
    check_harmless(before)
    return before


# -- content of frames --------------------------------------------------------------------


@FUZZ
@given(payload=st.binary(max_size=300))
async def test_random_bytes_in_a_text_frame(arena, payload):
    """Any bytes as text: PARSE_ERROR and kin if they are UTF-8, else close code 1007."""
    async with await Raw.connect(arena.url) as raw:
        raw.send(TEXT, payload)
        try:
            payload.decode()
        except UnicodeDecodeError:
            texts, code = await raw.outcome()
            assert (texts, code) == ([], 1007)
        else:
            (reply,) = await survives(raw)
            assert reply["status"] == "error"


@FUZZ
@given(payload=st.text(max_size=300))
async def test_random_text(arena, payload):
    """Any text is answered."""
    async with await Raw.connect(arena.url) as raw:
        raw.send(TEXT, payload.encode(errors="replace"))
        (reply,) = await survives(raw)
        assert reply["error"]["outcome"] == "not_run"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)

METHODS = ("ping", "echo", "login", "logout", "session.resume", "rpc.discover", "debug.incr")

almost_requests = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("x") | json_values,
        "type": st.sampled_from(["request", "response", "push"]) | json_values,
        "method": st.sampled_from(METHODS) | json_values,
        "params": json_values
        | st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                ("username", "password", "session_id", "token", "last_seq", "key"), json_values
            ),
        ),
        "meta": json_values
        | st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                ("session_id", "token", "deadline_ms", "on_disconnect", "traceparent"), json_values
            ),
        ),
        "token": json_values,
        "status": st.sampled_from(["success", "error"]) | json_values,
        "error": json_values,
    },
)


@FUZZ
@given(frames=st.lists(almost_requests, min_size=1, max_size=5))
async def test_requests_with_wrong_types_everywhere(arena, frames):
    """Wrong types in any field of the envelope are a clear error, never a crash."""
    async with await Raw.connect(arena.url) as raw:
        for one in frames:
            raw.send(TEXT, json.dumps(one).encode(errors="surrogatepass"))
        await survives(raw)


@pytest.fixture
async def member(arena):
    async with arena.logged_in() as member:
        yield member


SESSION_METHODS = [
    *("echo", "debug.incr", "debug.push", "debug.state_set", "debug.sleep", "session.cancel"),
    *("session.close", "save_settings", "update_user_preferences", "get_settings"),
]


@FUZZ
@given(
    params=json_values,
    method=st.sampled_from(SESSION_METHODS),
    fields=st.dictionaries(
        st.sampled_from(["key", "value", "sid", "request_id", "method", "lang", "settings"]),
        json_values,
    ),
)
async def test_any_params_in_a_session(arena, member, params, method, fields):
    """In a session too: any params of any method are answered and crash nothing."""
    async with await Raw.connect(arena.url) as raw:
        for value in (params, fields):
            body = {"id": "x", "type": "request", "method": method, "params": value}
            body["meta"] = {**member.session, "deadline_ms": 5000}
            raw.send(TEXT, json.dumps(body).encode(errors="surrogatepass"))
        await survives(raw)
    assert arena.app.metrics.crashes == 0
    assert (await member.call("ping"))["incarnation"] == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 30_000 + b"]" * 30_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 60_000,
        b"9" * 60_000,
        b"-" * 1000,
        b"NaN",
        b'{"id": Infinity}',
        b"1e99999",
        b'"\\ud800"',
        b"\xef\xbb\xbf{}",
        b"",
        b" ",
        b"\0",
        b"{} {}",
        b"{'id': 1}",
    ],
    ids=lambda payload: payload[:12].decode(errors="replace"),
)
async def test_what_is_no_json_is_a_parse_error(arena, payload):
    """Deep nesting, endless numbers, NaN, lone surrogates, a BOM: PARSE_ERROR, INVALID_REQUEST."""
    async with await Raw.connect(arena.url) as raw:
        raw.send(TEXT, payload)
        (reply,) = await survives(raw)
        assert reply["error"]["code"] in ("PARSE_ERROR", "INVALID_REQUEST")
        assert len(json.dumps(reply)) < 1000


async def test_a_hundred_thousand_levels():
    """100 000 levels of nesting within the frame limit are a PARSE_ERROR."""
    async with running_app() as server, await Raw.connect(server.url) as raw:
        raw.send(TEXT, b"[" * 100_000 + b"]" * 100_000)
        (reply,) = await survives(raw)
        assert reply["error"]["code"] == "PARSE_ERROR"


@pytest.mark.parametrize("depth", [200, 253, 300, 1000])
async def test_params_nested_deeper_than_can_be_answered(arena, depth):
    """Params that can be read but not written back are INVALID_PARAMS, and no crash."""
    async with arena.client() as client:
        user = await client.login("admin", "correct horse battery")
        params = "[" * depth + "]" * depth
        async with await Raw.connect(arena.url) as raw:
            meta = json.dumps({"session_id": user["session_id"], "token": user["token"]})
            raw.send(
                TEXT,
                b'{"id":"deep","type":"request","method":"echo","meta":%s,"params":%s}'
                % (meta.encode(), params.encode()),
            )
            (reply,) = await survives(raw)
            if reply["status"] == "error":
                assert reply["error"]["code"] == "INVALID_PARAMS"
            else:
                assert depth < 254
        assert arena.app.metrics.crashes == 0


async def test_integers_beyond_64_bits_and_duplicate_keys(arena):
    """Huge integers come back as floats, of two equal keys the last one counts (RFC 8259 §4)."""
    async with await Raw.connect(arena.url) as raw:
        raw.send(
            TEXT,
            b'{"id":"1","type":"push","type":"request","method":"echo",'
            b'"params":{"a":123456789012345678901234567890,"b":1,"b":2}}',
        )
        reply = await raw.json()
        assert reply["result"] == {"a": 1.2345678901234568e29, "b": 2}


# -- sizes --------------------------------------------------------------------------------


def padded(size):
    """A ping of exactly so many bytes."""
    head = b'{"id":"big","type":"request","method":"ping","params":{"x":"'
    return head + b"x" * (size - len(head) - 3) + b'"}}'


async def test_exactly_the_largest_frame_is_taken(arena):
    """ECAN_MAX_FRAME bytes are fine, whole and in fragments."""
    async with await Raw.connect(arena.url) as raw:
        raw.send(TEXT, padded(MAX_FRAME))
        assert (await raw.json())["status"] == "success"
        half = MAX_FRAME // 2
        raw.send(TEXT, padded(MAX_FRAME)[:half], fin=False)
        raw.send(CONT, padded(MAX_FRAME)[half:])
        assert (await raw.json())["status"] == "success"


async def test_one_byte_more_is_1009(arena):
    """A frame above ECAN_MAX_FRAME is refused by its header, before its bytes are read."""
    async with await Raw.connect(arena.url) as raw:
        raw.writer.write(b"\x81\xff" + struct.pack("!Q", MAX_FRAME + 1))
        assert await raw.outcome() == ([], 1009)


async def test_a_declared_length_of_two_to_the_62_is_1009(arena):
    """No memory is asked for on a client's word."""
    async with await Raw.connect(arena.url) as raw:
        raw.writer.write(b"\x81\xff" + struct.pack("!Q", 2**62))
        assert await raw.outcome() == ([], 1009)


async def test_fragments_that_add_up_to_too_much_are_1009(arena):
    """The limit is on the message, not on its parts."""
    async with await Raw.connect(arena.url) as raw:
        raw.send(TEXT, b"x" * (MAX_FRAME - 1), fin=False)
        raw.send(CONT, b"xx", fin=False)
        assert await raw.outcome() == ([], 1009)


async def test_a_frame_above_the_default_limit_of_one_mebibyte():
    """By default the limit is 1 MiB; the client's own library sees 1009."""
    async with running_app() as server, server.client() as good, server.client() as bad:
        await bad.send_raw("x" * (2**20 + 1))
        code, _ = await bad.closed()
        assert code == 1009
        assert (await good.call("ping"))["pong"]


# -- frames -------------------------------------------------------------------------------


async def test_binary_frames_are_refused_and_nothing_more(arena):
    """A binary frame, whole or in parts, is a PARSE_ERROR that says so."""
    async with await Raw.connect(arena.url) as raw:
        raw.send(BINARY, ping_frame())
        raw.send(BINARY, b"\xff", fin=False)
        raw.send(CONT, b"\xff")
        replies = await survives(raw)
        assert [reply["error"]["code"] for reply in replies] == ["PARSE_ERROR"] * 2
        assert all("binary" in reply["error"]["message"] for reply in replies)


@FUZZ
@given(cuts=st.lists(st.integers(0, 60), max_size=8), pings=st.booleans())
async def test_a_request_in_fragments(arena, cuts, pings):
    """However a request is cut, with control frames in between, it is one request."""
    payload = ping_frame("cut")
    edges = [*sorted({min(cut, len(payload)) for cut in cuts} | {0}), len(payload)]
    parts = [payload[a:b] for a, b in itertools.pairwise(edges)]
    async with await Raw.connect(arena.url) as raw:
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            raw.send(CONT if number else TEXT, part, fin=last)
            if pings and not last:
                raw.send(PING, b"%d" % number)
                raw.send(PONG)
        pongs = 0
        while (answer := await raw.frame())[0] == PONG:
            assert answer[1] == b"%d" % pongs
            pongs += 1
        assert json.loads(answer[1])["id"] == "cut"
        assert pongs == (len(parts) - 1 if pings else 0)


async def test_a_character_cut_in_two_by_fragments(arena):
    """UTF-8 is checked over the whole message."""
    payload = json.dumps({"id": "é", "type": "request", "method": "ping"}, ensure_ascii=False)
    cut = payload.encode().index("é".encode()) + 1
    async with await Raw.connect(arena.url) as raw:
        raw.send(TEXT, payload.encode()[:cut], fin=False)
        raw.send(CONT, payload.encode()[cut:])
        assert (await raw.json())["id"] == "é"
        raw.send(TEXT, b"\xc3", fin=False)
        raw.send(CONT, b"\x28")
        assert await raw.outcome() == ([], 1007)


async def test_empty_fragments_take_no_memory(arena):
    """P8: a message of a hundred thousand empty fragments holds nothing in the server."""
    async with await Raw.connect(arena.url) as raw:
        raw.send(TEXT, b"", fin=False)
        raw.writer.write(frame(CONT, b"", fin=False) * 100_000)
        raw.send(PING, b"read")
        assert await raw.frame() == (PONG, b"read")
        (wire,) = [w for w in arena.app.gateway._open.values() if w._parts is not None]
        assert wire._parts.__sizeof__() < 1000
        raw.send(CONT, ping_frame("whole"))
        assert (await raw.json())["id"] == "whole"


async def test_p8_pongs_to_who_reads_nothing_take_no_memory(arena):
    """P8: 40 MiB of pings; what the client does not take is not kept, and it can still ask."""
    async with await Raw.connect(arena.url) as raw:
        raw.send(TEXT, ping_frame("first"))
        assert (await raw.json())["id"] == "first"
        known = {wire for wire in arena.app.gateway._open.values() if wire.client.bound is None}
        (wire,) = known
        most = 0
        pings = frame(PING, b"x" * 125) * 1000
        for _ in range(320):
            raw.writer.write(pings)
            await raw.writer.drain()
            most = max(most, wire.buffered_bytes())
        assert most <= MAX_BACKLOG_BYTES + 2**17
        while wire.buffered_bytes():
            assert (await raw.frame())[0] == PONG
        raw.send(TEXT, ping_frame("last"))
        while (answer := await raw.frame())[0] == PONG:
            pass
        assert json.loads(answer[1])["id"] == "last"


ILLEGAL = {
    "continuation of nothing": [frame(CONT, b"x")],
    "text within a message": [frame(TEXT, b"x", fin=False), frame(TEXT, b"x")],
    "not masked": [frame(TEXT, b"x", masked=False)],
    "reserved bit": [frame(TEXT, b"x", rsv=4)],
    "reserved opcode": [frame(0x3, b"x")],
    "reserved control opcode": [frame(0xB, b"x")],
    "long ping": [frame(PING, b"x" * 126)],
    "ping in parts": [frame(PING, b"x", fin=False)],
    "close with half a code": [frame(CLOSE, b"\x03")],
    "close with a code nobody may send": [frame(CLOSE, struct.pack("!H", 1005))],
}


@pytest.mark.parametrize("data", ILLEGAL.values(), ids=ILLEGAL.keys())
async def test_what_the_protocol_forbids_is_1002(arena, data):
    """RFC 6455 §5: illegal frames fail the connection with 1002, and only that one."""
    async with await Raw.connect(arena.url) as raw:
        raw.writer.write(b"".join(data))
        assert await raw.outcome() == ([], 1002)


async def test_a_close_reason_that_is_no_utf8_is_1007(arena):
    """RFC 6455 §8.1 holds for close frames too."""
    async with await Raw.connect(arena.url) as raw:
        raw.send(CLOSE, b"\x03\xe8\xff")
        assert (await raw.outcome())[1] == 1007


async def test_a_close_is_answered_and_what_follows_ignored(arena):
    """A clean close is echoed; frames behind it have no effect."""
    async with await Raw.connect(arena.url) as raw:
        raw.send(CLOSE, b"\x03\xe8bye")
        raw.send(TEXT, ping_frame())
        assert await raw.outcome() == ([], 1000)


@FUZZ
@given(garbage=st.binary(min_size=1, max_size=200))
async def test_garbage_on_an_open_websocket(arena, garbage):
    """Random bytes as frames end in errors, a close code or the wait for more; never worse."""
    async with await Raw.connect(arena.url) as raw:
        raw.writer.write(garbage)
        raw.writer.write_eof()
        texts, code = await raw.outcome()
        check_harmless(texts)
        assert code in (None, 1000, 1002, 1005, 1007, 1009) or 3000 <= code < 5000 or code < 1016


@FUZZ
@given(
    frames=st.lists(
        st.builds(
            frame,
            st.integers(0, 15),
            st.binary(max_size=140),
            fin=st.booleans(),
            rsv=st.integers(0, 7) | st.just(0),
            masked=st.just(True) | st.booleans(),
        ),
        max_size=6,
    )
)
async def test_random_frames(arena, frames):
    """Well-formed frames in any order, of any kind."""
    async with await Raw.connect(arena.url) as raw:
        raw.writer.write(b"".join(frames))
        raw.writer.write_eof()
        texts, _ = await raw.outcome()
        check_harmless(texts)


async def test_frames_on_a_closed_session(arena):
    """After logout every frame of the session is SESSION_CLOSED; the connection can log in anew."""
    async with arena.client() as client:
        await client.login("admin", "correct horse battery")
        await client.call("logout")
        for _ in range(3):
            error = await client.error("debug.incr", {"key": "n"})
            assert (error["code"], error["details"]["reason"]) == ("SESSION_CLOSED", "logout")
        client.session = {}
        await client.login("admin", "correct horse battery")
        assert await client.call("debug.incr", {"key": "n"}) == 1


async def test_requests_right_before_a_close_are_answered_once(arena):
    """P3: who sends requests and closes in one breath gets each reply, then or at the next resume."""
    async with arena.client() as client:
        await client.login("admin", "correct horse battery")
        raw = await Raw.connect(arena.url)
        body = {"type": "request", "meta": client.session}
        raw.send(TEXT, json.dumps({**body, "id": "r1", "method": "ping"}).encode())
        await raw.json()
        inline = {**body, "id": "r2", "method": "debug.incr", "params": {"key": "m"}}
        slow = {**body, "id": "r3", "method": "debug.sleep", "params": {"seconds": 0}}
        raw.writer.write(
            frame(TEXT, json.dumps(inline).encode())
            + frame(TEXT, json.dumps(slow).encode())
            + frame(CLOSE, b"\x03\xe8")
        )
        texts, code = await raw.outcome()
        assert code == 1000
        await raw.close()
        await eventually(lambda: not arena.app.directory.get(client.login_result["sid"]).pending)
        async with arena.client() as again:
            await again.resume(client.session, 0)
            await again.call("ping")
            replies = [(reply["id"], reply["status"]) for reply in texts + again.strays]
            assert sorted(replies) == [("r2", "success"), ("r3", "success")]
            assert ("r3", "success") not in [(reply["id"], reply["status"]) for reply in texts]


# -- before the handshake -----------------------------------------------------------------


@FUZZ
@given(garbage=st.binary(min_size=1, max_size=300))
async def test_garbage_instead_of_a_handshake(arena, garbage):
    """Random bytes on the port get an HTTP error or the door."""
    answer = await exchange(arena.http, garbage + b"\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert b"Traceback" not in answer


lines = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=40)


@FUZZ
@given(
    path=lines,
    headers=st.lists(st.tuples(st.sampled_from([*UPGRADE, "Origin", "Host", "X"]), lines)),
)
async def test_handshakes_with_any_path_and_headers(arena, path, headers):
    """Any path, any header, any of them twice: an answer of the right kind, no fault of ours."""
    data = request_bytes("GET", "/" + path, [("Host", "x"), *UPGRADE.items(), *headers])
    answer = await exchange(arena.http, data)
    assert answer == b"" or int(answer[9:12]) in (101, 200, 400, 403, 404, 405, 426, 505)


@pytest.mark.parametrize(
    "headers",
    [
        [("Upgrade", "websocket"), ("Upgrade", "websocket")],
        [("Origin", "http://a"), ("Origin", "http://b")],
        [("Origin", "http://[")],
        [("User-Agent", "a"), ("User-Agent", "b")],
        [("Accept-Encoding", "gzip"), ("Accept-Encoding", "br")],
        [("If-None-Match", "a"), ("If-None-Match", "b")],
        [("Host", "a"), ("Host", "b")],
    ],
    ids=lambda headers: f"{len(headers)} {headers[0][0]}",
)
@pytest.mark.parametrize("ws", [False, True])
async def test_headers_given_twice_are_no_fault_of_the_server(arena, headers, ws):
    """A repeated or unreadable header is never answered 500."""
    upgrade = list(UPGRADE.items()) if ws else []
    data = request_bytes("GET", "/", [("Host", "x"), *upgrade, *headers])
    answer = await exchange(arena.http, data)
    assert int(answer[9:12]) < 500


async def test_half_open_handshakes(arena):
    """Fifty connections that never finish their handshake keep nobody out."""
    writers = []
    for number in range(50):
        _, writer = await asyncio.open_connection(*address_of(arena.http))
        writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n"[: number % 27])
        writers.append(writer)
    assert (await http(arena.http, "/health"))[0] == 200
    async with arena.client() as client:
        assert (await client.call("ping"))["pong"]
    for writer in writers:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("path", ["/", "/ws", "/health", "/login"])
@pytest.mark.parametrize(
    "headers",
    [[("Content-Length", "5")], [("Transfer-Encoding", "chunked")]],
    ids=["length", "chunked"],
)
async def test_a_request_body_is_refused(arena, path, headers):
    """A body cannot be read on this port: an HTTP error or a close, never a hang."""
    data = request_bytes("POST", path, [("Host", "x"), *headers], b"hello")
    answer = await exchange(arena.http, data)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


async def test_a_header_without_end(arena):
    """A header line of a megabyte is cut off."""
    answer = await exchange(arena.http, b"GET / HTTP/1.1\r\nX: " + b"x" * 2**20)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


async def test_a_tls_hello_on_a_plain_port(arena):
    """A browser that tries https gets the door."""
    answer = await exchange(
        arena.http, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\n" * 50
    )
    assert not answer.startswith(b"HTTP/1.1 2")


async def test_p17_deep_params_before_login_are_refused_as_in_a_session() -> None:
    """echo without a session cannot give back what cannot be written: INVALID_PARAMS."""
    async with running_app() as server, server.client() as client:
        await client.send_raw(
            '{"id":"deep","type":"request","method":"echo","params":' + "[" * 300 + "]" * 300 + "}"
        )
        async with asyncio.timeout(20):
            while not client.strays:
                await asyncio.sleep(0.01)
        assert client.strays[0]["id"] == "deep"
        assert client.strays[0]["error"]["code"] == "INVALID_PARAMS"
