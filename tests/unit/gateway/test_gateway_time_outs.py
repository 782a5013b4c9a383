"""Who says nothing is let go of in time, whatever library carries the frames."""

from __future__ import annotations

import asyncio
import contextlib
import http
import struct
import sys

import pytest

from ecan.config import Settings
from ecan.errors import ConfigError
from ecan.gateway import handshake, picows_wire, websocket
from ecan.gateway.transport import make_listener
from ecan.testing import running_app

pytestmark = pytest.mark.each_transport

HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PING = b'{"id":"1","type":"request","method":"ping"}'
MASK = b"\0\0\0\0"
MODULES = (handshake, picows_wire, websocket)


def text(payload):
    return bytes([0x81, 0x80 | len(payload)]) + MASK + payload


@pytest.fixture
def quick(monkeypatch):
    """Time-outs in hundredths of a second."""
    for module in MODULES:
        for name in ("PING_INTERVAL_S", "PING_TIMEOUT_S", "OPEN_TIMEOUT_S", "CLOSE_TIMEOUT_S"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, 0.1)


@contextlib.asynccontextmanager
async def upgraded(server, behind=b""):
    """A raw connection after its handshake; ``behind`` is sent with the request."""
    host, port = "127.0.0.1", server.app.gateway.port
    reader, writer = await asyncio.open_connection(host, port)
    async with asyncio.timeout(20):
        writer.write(HEAD + behind)
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        yield reader, writer
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def rest(reader):
    """All that comes to the end."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            data += chunk
    return data


async def test_a_client_that_answers_no_ping_is_closed(quick):
    """A ping after the interval, 1011 after the time-out, then the end of the connection."""
    async with running_app() as server, upgraded(server) as (reader, _):
        data = await rest(reader)
        assert data[0] == 0x89
        assert data[data[1] + 2 :].startswith(b"\x88")
        assert struct.pack("!H", 1011) in data
        async with asyncio.timeout(20):
            while server.app.gateway.connection_count:
                await asyncio.sleep(0.01)
        assert server.app.metrics.labelled("connections_closed") == {"1006": 1}


async def test_a_pong_keeps_the_connection_only_if_it_is_the_pings(quick):
    """The payload has to come back; then the next ping is sent."""
    async with running_app() as server, upgraded(server) as (reader, writer):
        for _ in range(3):
            head = await reader.readexactly(2)
            ping = await reader.readexactly(head[1])
            assert head[0] == 0x89
            writer.write(bytes([0x8A, 0x80 | len(ping)]) + MASK + ping)
        assert server.app.gateway.connection_count == 1
        await reader.readexactly(6)
        writer.write(bytes([0x8A, 0x84]) + MASK + b"none")
        assert struct.pack("!H", 1011) in await rest(reader)


async def test_half_a_handshake_is_cut(quick):
    """Nothing, or half a request, is dropped when its time is over."""
    async with running_app() as server:
        for start in (b"", HEAD[:50]):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.app.gateway.port)
            writer.write(start)
            async with asyncio.timeout(20):
                assert await rest(reader) == b""
            writer.close()


@pytest.mark.parametrize("cut", [0, 9, len(PING) + 6])
async def test_frames_behind_the_request_do_no_harm(cut, no_task_left):
    """A client that does not wait for the answer may lose its first frame, and nothing else."""
    early, late = text(PING), text(PING.replace(b'"1"', b'"2"'))
    async with running_app() as server, upgraded(server, early[:cut]) as (reader, writer):
        writer.write(early[cut:] + late)
        data = b""
        while b'"id":"2"' not in data:
            chunk = await reader.read(65536)
            assert chunk
            data += chunk
        assert data.count(b'"id":"1"') == 1 or cut


async def test_who_does_not_answer_our_close_is_cut(quick, no_task_left):
    """A stop takes no longer than the time-out because of a client that reads nothing."""
    async with running_app() as server, upgraded(server) as (reader, _):
        (wire,) = server.app.gateway._open.values()
        wire.client.close(4001, "bye")
        async with asyncio.timeout(5):
            data = await rest(reader)
        assert data == b"\x88\x05" + struct.pack("!H", 4001) + b"bye"


async def test_an_empty_close_is_answered_by_an_empty_one(no_task_left):
    """RFC 6455 §5.5.1: no code, no code back."""
    async with running_app() as server, upgraded(server) as (reader, writer):
        writer.write(b"\x88\x80" + MASK)
        assert await rest(reader) == b"\x88\x00"


async def test_several_frames_of_a_turn_and_a_large_one_keep_their_order(no_task_left):
    """Small and large replies of one callback come whole and in order."""
    async with running_app() as server, server.logged_in() as client:
        sizes = [1, 9000, 2, 70_000, 3]
        answers = await asyncio.gather(*(client.call("echo", {"x": "y" * n}) for n in sizes))
        assert [len(answer["x"]) for answer in answers] == sizes


async def test_an_upgrade_while_the_server_stops_is_503(no_task_left):
    """Who connected before it stopped listening and asks after is sent away."""
    async with running_app() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.app.gateway.port)
        await asyncio.sleep(0.05)
        server.app.gateway._listener.stop_listening()
        await asyncio.sleep(0.05)
        writer.write(HEAD)
        assert (await reader.readline()).split()[1] == b"503"
        writer.close()


async def test_a_fault_in_an_answer_is_500(monkeypatch, no_task_left):
    """A bug of ours in plain HTTP ends that request only."""
    async with running_app() as server:

        def faulty(request):
            raise RuntimeError("a bug")

        monkeypatch.setattr(server.app.gateway._answers, "answer", faulty)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.app.gateway.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        status = int((await reader.readline()).split()[1])
        assert status == http.HTTPStatus.INTERNAL_SERVER_ERROR
        assert b"a bug" not in await rest(reader)
        writer.close()


def test_a_transport_that_is_not_installed_is_one_line(transport, monkeypatch):
    """ECAN_TRANSPORT=picows without the extra says what to install."""
    monkeypatch.setitem(sys.modules, "ecan.gateway.picows_listener", None)
    if transport == "picows":
        with pytest.raises(ConfigError, match=r"^ECAN_TRANSPORT='picows': .*ecan-web\[fast\]"):
            make_listener(Settings(transport=transport), None)
    else:
        make_listener(Settings(transport=transport), None)
