"""What `ecan.gateway.websocket` relies on inside websockets; a failure says what changed there."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from importlib.metadata import version

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CLOSED, CLOSING, OPEN, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from ecan.gateway.framing import text_header


def test_version_is_the_one_whose_source_was_read():
    """Another minor release must be read before the pin in pyproject moves."""
    assert version("websockets").split(".")[:1] == ["17"]


def test_serve_takes_a_factory_of_connections():
    """`create_connection` is how our class gets in."""
    parameters = inspect.signature(serve.__init__ if inspect.isclass(serve) else serve).parameters
    assert "create_connection" in parameters, "serve() lost create_connection"


def test_the_factory_gets_what_ours_hands_on():
    """Called as factory(protocol, server, **options) with the options of ServerConnection."""
    parameters = list(inspect.signature(ServerConnection.__init__).parameters)
    assert parameters[:3] == ["self", "protocol", "server"], "ServerConnection's arguments moved"
    source = inspect.getsource(serve)
    assert "create_connection(\n            protocol,\n            server," in source, (
        "serve() calls its factory in another way"
    )


def test_fields_of_a_frame():
    """We read opcode, data and fin; a fourth field that carries meaning must be looked at."""
    fields = [field.name for field in dataclasses.fields(Frame)]
    assert fields == ["opcode", "data", "fin", "rsv1", "rsv2", "rsv3"], "Frame has other fields"
    assert (Opcode.CONT, Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE) == (0, 1, 2, 8)


def test_states_are_singletons():
    """`protocol.state is OPEN` is how we tell whether the peer still listens."""
    assert State.OPEN is OPEN and State.CLOSING is CLOSING and State.CLOSED is CLOSED


@pytest.mark.parametrize("name", ["process_event", "close", "wait_closed"])
def test_methods_we_override_or_call(name):
    """They are there, and process_event takes one event and is no coroutine."""
    method = getattr(ServerConnection, name, None)
    assert method is not None, f"ServerConnection lost {name}"
    assert inspect.iscoroutinefunction(method) is (name != "process_event")


def test_data_received_hands_every_event_to_process_event():
    """Our shortcut replaces nothing but what happens to data frames."""
    source = inspect.getsource(ServerConnection.data_received)
    assert "self.protocol.receive_data(data)" in source
    assert "for event in events:" in source and "self.process_event(event)" in source, (
        "data_received no longer goes through process_event"
    )


def test_the_library_queues_nothing_but_what_it_processes():
    """Frames we take are never put into the library's queue, so its flow control stays open."""
    from websockets.asyncio.connection import Connection

    assert "self.recv_messages.put" in inspect.getsource(Connection.process_event), (
        "incoming frames are queued elsewhere now"
    )


def test_handler_tasks_and_close_are_as_our_shutdown_expects():
    """close(close_connections=False) stops listening and waits for handlers we end ourselves."""
    assert "close_connections" in inspect.signature(Server.close).parameters
    assert "asyncio.wait(self.handler_tasks)" in inspect.getsource(Server._close)


def test_close_waits_without_limit_for_a_full_buffer():
    """Why `_close` has a time limit of its own; if this fails, look whether it is still needed."""
    source = inspect.getsource(ServerConnection.send_context)
    assert "await self.drain()" in source
    assert source.index("await self.drain()") < source.index("asyncio.timeout_at("), (
        "the library may bound the drain itself now"
    )


@pytest.mark.parametrize(
    "length", [0, 1, 125, 126, 127, 255, 256, 65535, 65536, 65537, 70000, 2**20]
)
def test_headers_by_hand_are_read_by_the_librarys_client(length):
    """RFC 6455 §5.2: each length class, and its edges, comes out as one text frame."""
    client = ClientProtocol(parse_uri("ws://x/"), state=OPEN, max_size=None)
    payload = b"x" * length

    client.receive_data(text_header(length) + payload)

    assert client.parser_exc is None
    (frame,) = client.events_received()
    assert (frame.opcode, bytes(frame.data), frame.fin) == (Opcode.TEXT, payload, True)


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_headers_by_hand_are_those_of_the_library(length):
    """Byte for byte what the library would write."""
    expected = Frame(Opcode.TEXT, b"x" * length).serialize(mask=False)

    assert text_header(length) + b"x" * length == expected


def test_the_protocol_checks_sums_of_fragments():
    """ECAN_MAX_FRAME bounds a message in parts before we put it together."""
    server = ServerProtocol(max_size=10, state=OPEN)
    part = Frame(Opcode.TEXT, b"x" * 8, fin=False).serialize(mask=True)
    rest = Frame(Opcode.CONT, b"x" * 8).serialize(mask=True)
    server.receive_data(part + rest)

    assert [event.opcode for event in server.events_received()] == [Opcode.TEXT]
    assert b"\x03\xf1" in b"".join(server.data_to_send()), (
        "a message over max_size does not end with 1009 (0x3f1) any more"
    )


def test_the_limit_of_a_message_can_be_read():
    """`max_message_size` of the protocol is ECAN_MAX_FRAME."""
    assert ServerProtocol(max_size=1234).max_message_size == 1234


async def test_process_event_gets_the_request_and_then_frames():
    """First the handshake's Request with `request` still unset, then Frame objects."""
    seen = []

    class Spy(ServerConnection):
        def process_event(self, event):
            seen.append((type(event), self.request is None))
            super().process_event(event)

    from websockets.asyncio.client import connect

    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, create_connection=Spy, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", compression=None) as client:
            await client.send("x")
            assert await client.recv() == "x"
        await asyncio.sleep(0)

    assert seen[0] == (Request, True), "the handshake does not come through process_event"
    assert seen[1] == (Frame, False), "data does not come as Frame objects"
