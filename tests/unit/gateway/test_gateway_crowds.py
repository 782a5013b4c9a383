"""P6 at the door: a crowd that comes at once, or one client with a lot, waits for itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter

import pytest

from ecan.config import RateLimit
from ecan.gateway.connection import MAX_REFUSED
from ecan.gateway.transport import MAX_WAITING_BYTES
from ecan.gateway.turns import GREEDY, NEWCOMERS
from ecan.gateway.wire import PORTION
from ecan.testing import running_app

HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"
PING = '{"id":"%s","type":"request","method":"ping"}'
PAUSE_S = 1.5
"""So that a pause can be told from a busy machine."""


def text(payload):
    payload = payload.encode()
    if len(payload) > 125:
        return b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


def pings(name, count):
    return b"".join(text(PING % f"{name}{n}") for n in range(count))


class Sender:
    """A socket that is written to without the loop, so that bytes lie ready together."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.app.gateway.port))

    def send(self, data):
        self.socket.setblocking(True)
        self.socket.sendall(data)
        self.socket.setblocking(False)

    async def until(self, word, count=1):
        """Read until a word has come so often."""
        data = b""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(30):
            while data.count(word) < count:
                part = await loop.sock_recv(self.socket, 65536)
                assert part, data[-300:]
                data += part
        return data

    async def rest(self):
        data = b""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                while part := await loop.sock_recv(self.socket, 65536):
                    data += part
        return data


@contextlib.asynccontextmanager
async def senders(server, count):
    """Upgraded, and each has had its first message."""
    made = [Sender(server) for _ in range(count)]
    try:
        for one in made:
            one.send(HEAD)
        for one in made:
            await one.until(b"\r\n\r\n")
            one.send(text(PING % "first"))
            await one.until(b'"first"')
        yield made
    finally:
        for one in made:
            one.socket.close()


def taken(server, monkeypatch, turns):
    """(turn, connection id) of each message, as the router gets them."""
    seen = []
    receive = server.app.router.receive

    def watched(connection, data):
        seen.append((turns.turn, connection.id))
        receive(connection, data)

    monkeypatch.setattr(server.app.router, "receive", watched)
    return seen


@pytest.mark.each_transport
async def test_p6_one_message_is_not_behind_a_hundred_of_another(monkeypatch, turns):
    """200 of one client lie ready before the single one of another; its answers keep order."""
    async with (
        running_app(rate_limit=RateLimit(0.0, 0)) as server,
        senders(server, 2) as (greedy, quiet),
    ):
        seen = taken(server, monkeypatch, turns)
        greedy.send(pings("g", 200))
        quiet.send(pings("q", 1))
        await quiet.until(b'"q0"')
        data = await greedy.until(b'"pong"', 200)
        places = [data.index(b'"g%d"' % n) for n in range(200)]
        assert places == sorted(places)
        ids = [connection for _, connection in seen]
        assert len(ids) == 201
        assert min(ids.count(one) for one in set(ids)) == 1
        single = next(n for n, one in enumerate(ids) if ids.count(one) == 1)
        assert single < 2 * PORTION + 2 * GREEDY


@pytest.mark.each_transport
async def test_p6_ten_with_a_hundred_each_are_many_short_turns(monkeypatch, turns):
    """All of them together get as much of a turn as one would."""
    async with running_app(rate_limit=RateLimit(0.0, 0)) as server, senders(server, 10) as crowd:
        seen = taken(server, monkeypatch, turns)
        for number, one in enumerate(crowd):
            one.send(pings(f"c{number}-", 100))
        for one in crowd:
            await one.until(b'"pong"', 100)
        each_turn = Counter(turn for turn, _ in seen)
        assert sum(each_turn.values()) == 1000
        # Its own portion each, which is what anybody may send, once in ten milliseconds.
        most = sorted(each_turn.values())
        assert most[-1] <= 10 * PORTION + GREEDY
        assert most[len(most) // 2] <= GREEDY


@pytest.mark.each_transport
async def test_a_turn_has_room_for_so_many_messages_whosever_they_are(monkeypatch, turns):
    """One each, of eight that had their portion: four in this turn, four in the next."""
    async with (
        running_app(rate_limit=RateLimit(0.0, 0)) as server,
        senders(server, 2 * GREEDY) as crowd,
    ):
        seen = taken(server, monkeypatch, turns)
        for number, one in enumerate(crowd):
            one.send(pings(f"c{number}-", PORTION + 1))
        for one in crowd:
            await one.until(b'"pong"', PORTION + 1)
        first, last = sorted(Counter(turn for turn, _ in seen).items())
        assert (first[1], last[1]) == (2 * GREEDY * PORTION + GREEDY, GREEDY)


@pytest.mark.each_transport
async def test_a_pause_is_for_what_was_read_already_too(monkeypatch, turns):
    """A client that is too fast: its 51st refusal does not come before the pause is over."""
    monkeypatch.setattr("ecan.gateway.connection.PAUSE_S", PAUSE_S)
    loop = asyncio.get_running_loop()
    async with (
        running_app(rate_limit=RateLimit(0.001, 20)) as server,
        senders(server, 1) as (fast,),
    ):
        seen = taken(server, monkeypatch, turns)
        began = loop.time()
        fast.send(pings("f", 100))
        await fast.until(b"RATE_LIMITED", MAX_REFUSED)
        assert len(seen) == 19 + MAX_REFUSED
        await fast.until(b"RATE_LIMITED", 100 - 19 - MAX_REFUSED)
        assert loop.time() - began >= PAUSE_S - 0.1
        assert len(seen) == 100


@pytest.mark.each_transport
async def test_what_came_before_a_close_is_done(monkeypatch, turns):
    """In the same read as the close frame."""
    async with (
        running_app(rate_limit=RateLimit(0.0, 0)) as server,
        senders(server, 1) as (leaver,),
    ):
        seen = taken(server, monkeypatch, turns)
        leaver.send(pings("l", 100) + CLOSE)
        data = await leaver.rest()
        assert len(seen) == 100
        assert data.count(b'"pong"') == 100
        assert data.endswith(b"\x88\x02\x03\xe8")


@pytest.mark.each_transport
async def test_p6_a_crowd_of_newcomers_comes_in_one_after_another(monkeypatch, turns):
    """Handshakes and first messages of 60 connections that come at once."""
    async with running_app() as server:
        answers, seen = [], taken(server, monkeypatch, turns)
        answer = server.app.gateway._answers.answer

        def watched(request):
            answers.append(turns.turn)
            return answer(request)

        monkeypatch.setattr(server.app.gateway._answers, "answer", watched)
        crowd = [Sender(server) for _ in range(60)]
        for one in crowd:
            one.send(HEAD)
        for one in crowd:
            await one.until(b"\r\n\r\n")
        for one in crowd:
            one.send(text(PING % "x"))
        for one in crowd:
            await one.until(b'"x"')
            one.socket.close()
        assert len(answers) == len(seen) == 60
        # Of two turns, as a handshake's second half is a task of its own.
        assert max(Counter(answers).values()) <= 2 * NEWCOMERS
        assert max(Counter(turn for turn, _ in seen).values()) <= NEWCOMERS


@pytest.mark.each_transport
async def test_a_request_that_ends_with_its_connection_is_answered():
    """`nc` sends a plain request and says that this was all, while others are before it."""
    async with running_app() as server:
        crowd = [Sender(server) for _ in range(30)]
        for one in crowd:
            one.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            one.socket.shutdown(socket.SHUT_WR)
        for one in crowd:
            assert b" 200 " in (await one.rest()).splitlines()[0]
            one.socket.close()


@pytest.mark.each_transport
async def test_who_sends_a_lot_before_its_turn_is_not_read_on(monkeypatch):
    """P8: what waits is bounded, and read on when it has had its turn."""
    many = 32 * MAX_WAITING_BYTES
    async with running_app() as server:
        newcomers, held = server.app.gateway.doors.newcomers, []
        take = newcomers.take
        monkeypatch.setattr(newcomers, "take", lambda call, *args: held.append(call))
        one = Sender(server)
        one.send(b"GET /ws HTTP/1.1\r\nX: ")
        sending = asyncio.create_task(
            asyncio.get_running_loop().sock_sendall(one.socket, b"x" * many)
        )
        async with asyncio.timeout(30):
            while not held or len(held[0].__self__._come) <= MAX_WAITING_BYTES:
                await asyncio.sleep(0)
        wire = held[0].__self__
        waiting = len(wire._come)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(wire._come) == waiting <= MAX_WAITING_BYTES + 2**18, "one read more"
        monkeypatch.setattr(newcomers, "take", take)
        held.pop()()
        assert b" 101 " not in await one.rest(), "the line is too long"
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        one.socket.close()


async def test_half_a_frame_before_the_answer_is_put_together():
    """By the library, which keeps such a connection for itself."""
    async with running_app() as server:
        one = Sender(server)
        one.send(HEAD)
        wires = server.app.gateway._listener._wires
        async with asyncio.timeout(30):
            while not any(wire.request is not None for wire in wires):
                await asyncio.sleep(0)
        (wire,) = wires
        assert wire.response is None, "the answer is a task that has not begun"
        payload, at = (PING % "early").encode(), 20
        key = bytes([payload[at] ^ 0x81, payload[at + 1] ^ 0x80, 0, 0])
        masked = bytes(byte ^ key[n % 4] for n, byte in enumerate(payload))
        first, second = masked[:at], masked[at:]
        assert second.startswith(b"\x81\x80"), "looks like a frame of its own"
        wire.data_received(bytes([0x81, 0x80 | len(payload)]) + key + first)
        await one.until(b"\r\n\r\n")
        one.send(second + text(PING % "late"))
        assert (await one.until(b'"pong"', 2)).count(b'"early"') == 1
        one.socket.close()


@pytest.mark.each_transport
async def test_a_connection_that_is_gone_takes_nothing_more(monkeypatch, turns):
    """With messages kept, in a pause, or while it waits to come in."""
    monkeypatch.setattr("ecan.gateway.connection.PAUSE_S", 0.2)
    async with (
        running_app(rate_limit=RateLimit(0.001, 20)) as server,
        senders(server, 1) as (fast,),
    ):
        seen = taken(server, monkeypatch, turns)
        fast.send(pings("f", 200))
        await fast.until(b"RATE_LIMITED", MAX_REFUSED)
        fast.socket.close()
        before = len(seen)
        newcomer = Sender(server)
        newcomer.send(HEAD)
        newcomer.socket.close()
        async with asyncio.timeout(30):
            while server.app.gateway.connection_count:
                await asyncio.sleep(0.01)
        assert len(seen) <= before + 2 * MAX_REFUSED
