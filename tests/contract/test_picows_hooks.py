"""What `ecan.gateway.picows_wire` relies on inside picows; a failure says what changed there."""

from __future__ import annotations

import asyncio
import socket
import struct
from importlib.metadata import version

import picows
import pytest
from picows.picows import WSProtocol

from ecan.gateway.picows_listener import UPGRADE, Answered, feed

CONT, TEXT, CLOSE, PING = 0x0, 0x1, 0x8, 0x9
HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


def frame(opcode, payload=b"", *, fin=True, rsv=0, masked=True):
    """One short frame (RFC 6455 §5.2), right or wrong, with a mask of ones if any."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    size = min(126, len(payload))
    head += bytes([(0x80 if masked else 0) | size])
    if size == 126:
        head += struct.pack("!H", len(payload))
    return head + (b"\1" * 4 + bytes(byte ^ 1 for byte in payload) if masked else payload)


class Tcp:
    """A transport without a socket of its own: what picows may ask of one."""

    def __init__(self, sock):
        self.sock, self.written, self.closed = sock, b"", 0

    def get_extra_info(self, name):
        return {"socket": self.sock}.get(name)

    def get_write_buffer_size(self):
        return 1  # so that nothing is sent past us

    def write(self, data):
        self.written += bytes(data)

    def close(self):
        self.closed += 1

    def abort(self):
        self.closed += 1


class Log:
    """Notes what picows says is an error."""

    def __init__(self):
        self.errors = []

    def isEnabledFor(self, level):  # noqa: N802 - the standard library's
        return False

    def info(self, *words):
        pass

    debug = warning = log = info

    def error(self, *words):
        self.errors.append(words)

    exception = error


class Listener(picows.WSListener):
    def __init__(self):
        super().__init__()
        self.frames, self.calls = [], []

    def on_ws_connected(self, transport):
        self.ws = transport
        self.calls.append("connected")

    def on_ws_frame(self, transport, frame):
        self.frames.append((int(frame.msg_type), frame.get_payload_as_bytes(), frame.fin))
        self.rsv = (frame.rsv1, frame.rsv2, frame.rsv3)

    def on_ws_disconnected(self, transport):
        self.calls.append("disconnected")


@pytest.fixture
async def parts():
    """A protocol after its handshake, over a transport that keeps what is written."""
    door = socket.create_server(("127.0.0.1", 0))
    sock = socket.create_connection(door.getsockname())
    tcp, log, listener = Tcp(sock), Log(), Listener()
    answer = picows.WSUpgradeResponseWithListener(Answered(HEAD), listener)
    protocol = WSProtocol(
        None, None, False, lambda _: answer, log, True, None, False, 0, 0,
        picows.WSAutoPingStrategy.PING_PERIODICALLY, False, 100, None, 4096,
    )  # fmt: skip
    protocol.connection_made(tcp)
    feed(protocol, UPGRADE)
    yield protocol, tcp, log, listener
    sock.close()
    door.close()


def test_version_is_the_one_whose_source_was_read():
    """Another minor release must be read before the pin in pyproject moves."""
    assert version("picows").split(".")[:2] == ["2", "3"]


async def test_the_handshake_is_ours(parts):
    """The canonical request is taken and the given head is written as it is."""
    _, tcp, _, listener = parts

    assert (tcp.written, listener.calls) == (HEAD, ["connected"])


async def test_frames_come_whole_and_unmasked(parts):
    """Any cut of the bytes; fragments and reserved bits as they were sent."""
    protocol, _, _, listener = parts
    data = frame(TEXT, b"one") + frame(TEXT, b"tw", fin=False) + frame(CONT, b"o", rsv=4)
    for at in range(len(data)):
        feed(protocol, data[at : at + 1])

    assert listener.frames == [(TEXT, b"one", 1), (TEXT, b"tw", 0), (CONT, b"o", 1)]
    assert listener.rsv == (1, 0, 0), "picows looks at reserved bits now"


async def test_pings_and_closes_are_left_to_us(parts):
    """No pong by itself, no echo of a close, and the transport stays open."""
    protocol, tcp, _, listener = parts
    feed(protocol, frame(PING, b"x") + frame(CLOSE, struct.pack("!H", 1006)))

    assert [kind for kind, _, _ in listener.frames] == [PING, CLOSE]
    assert (tcp.written, tcp.closed) == (HEAD, 0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"x", masked=False), 1002),
        (frame(0x3, b"x"), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(TEXT, b"x" * 101), 1009),
        (frame(CLOSE, b"\x03"), 1002),
    ],
)
async def test_violations_are_said_in_the_log_before_the_close_frame(parts, data, code):
    """`Log.error` is how the wire learns of them; then the transport is closed, gracefully."""
    protocol, tcp, log, _ = parts
    feed(protocol, data)

    assert len(log.errors) == 1, "picows says a violation in another way"
    assert tcp.written[len(HEAD) :][2:4] == struct.pack("!H", code)
    await asyncio.sleep(0.05)
    assert tcp.closed == 1


async def test_one_frame_is_looked_ahead(parts):
    """ADR 14: a request right before a violation in one read comes when the close has left."""
    protocol, tcp, _, listener = parts
    feed(protocol, frame(TEXT, b"x") + frame(0x3))

    assert tcp.written != HEAD
    assert listener.frames == [(TEXT, b"x", 1)], "it is dropped, or the order has changed"


async def test_a_close_with_a_code_of_ours(parts):
    """Codes of the application pass; the frame is written once, and no text after it."""
    _, tcp, _, listener = parts
    listener.ws.send_close(4001, b"bye")
    listener.ws.send_close(4002, b"bye")
    listener.ws.send(TEXT, b"late")

    assert tcp.written == HEAD + b"\x88\x05" + struct.pack("!H", 4001) + b"bye"


async def test_the_end_of_the_connection_is_told_once(parts):
    """`on_ws_disconnected` follows connection_lost, whoever calls it."""
    protocol, _, _, listener = parts
    protocol.connection_lost(None)

    assert listener.calls == ["connected", "disconnected"]
