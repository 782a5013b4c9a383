"""A connection's bounds and its binding, without sockets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ecan.gateway.connection import (
    MAX_BACKLOG_BYTES,
    MAX_BEHIND_S,
    MAX_REFUSED,
    PAUSE_S,
    Connection,
)
from ecan.observability import Metrics
from ecan.protocol.codes import CloseCode
from ecan.testing import FakeClock


class FakeWire:
    def __init__(self):
        self.frames = []
        self.buffered = 0
        self.closed = None
        self.takes = True
        self.pauses = []

    def write_text(self, frame):
        self.frames.append(frame)
        self.buffered += len(frame)
        return len(frame)

    def pause(self, seconds):
        self.pauses.append(seconds)

    def takes_frames(self):
        return self.takes

    def buffered_bytes(self):
        return self.buffered

    def start_close(self, code, reason):
        assert self.closed is None, "closed twice"
        self.closed = (code, reason)


class FakeSessions:
    def __init__(self):
        self.log = []

    def attach(self, cell, peer):
        self.log.append(("attach", cell))

    def detach(self, cell, peer):
        self.log.append(("detach", cell))


@pytest.fixture
def parts():
    wire, sessions, clock, metrics = FakeWire(), FakeSessions(), FakeClock(), Metrics()
    connection = Connection(wire, sessions, clock, metrics, None)
    return SimpleNamespace(
        wire=wire, sessions=sessions, clock=clock, metrics=metrics, connection=connection
    )


def test_a_megabyte_behind_is_closed(parts):
    """P8: a frame for who has more than 1 MiB to take closes with 1013, and is not written."""
    assert parts.connection.send(b"x" * MAX_BACKLOG_BYTES)
    assert parts.connection.send(b"x")
    assert parts.connection.is_open
    assert not parts.connection.send(b"x"), "so that it is kept (P12)"

    assert parts.wire.closed[0] == CloseCode.TRY_AGAIN_LATER
    assert not parts.connection.is_open
    assert parts.connection.backlog_bytes == 0
    assert not parts.connection.send(b"more")
    assert len(parts.wire.frames) == 2
    assert parts.metrics.labelled("connections_closed") == {"1013": 1}


def test_nothing_taken_for_five_seconds_is_closed(parts):
    """P8: a connection that takes nothing for 5 s is closed with 1013."""
    parts.connection.send(b"x" * 100)
    parts.clock.advance(MAX_BEHIND_S - 0.1)
    parts.connection.send(b"x")
    assert parts.wire.closed is None
    parts.clock.advance(0.2)

    assert parts.wire.closed[0] == CloseCode.TRY_AGAIN_LATER


def test_a_large_reply_to_a_reader_that_keeps_up_is_fine(parts):
    """One frame above 1 MiB, and all that a resume hands out, go to who has taken the rest."""
    parts.connection.send(b"x" * 3 * MAX_BACKLOG_BYTES)
    assert parts.connection.is_open
    parts.wire.buffered = 0
    parts.connection.send_all([b"x" * MAX_BACKLOG_BYTES, b"y" * MAX_BACKLOG_BYTES, b"z"])
    assert parts.connection.is_open
    assert len(parts.wire.frames) == 4


def test_p8_five_seconds_behind_is_closed_even_if_something_moves(parts):
    """What was sent five seconds ago has to be taken; a trickle is not enough."""
    parts.connection.send(b"x" * 1000)
    parts.wire.buffered = 800
    parts.clock.advance(MAX_BEHIND_S)

    assert parts.wire.closed[0] == CloseCode.TRY_AGAIN_LATER


def test_p1_a_client_that_does_not_slow_down_is_not_read_for_a_while(parts):
    """Fifty refusals for speed pause the reading; the next fifty do so again."""
    for _ in range(2 * MAX_REFUSED):
        parts.connection.refused()

    assert parts.wire.pauses == [PAUSE_S, PAUSE_S]


def test_slow_is_not_too_slow(parts):
    """A connection that is never five seconds behind stays, whatever is buffered."""
    parts.connection.send(b"x" * 1000)
    for _ in range(3):
        parts.clock.advance(MAX_BEHIND_S - 1)
        parts.wire.buffered = 0
        parts.connection.send(b"x" * 1000)
        parts.clock.advance(1)
        assert parts.wire.closed is None
    parts.wire.buffered = 0
    parts.clock.advance(MAX_BEHIND_S)
    assert parts.clock.next_due_mono is None
    parts.connection.send(b"again")
    assert parts.clock.next_due_mono is not None


def test_no_timer_survives_the_connection(parts):
    """A connection that is gone is not looked after."""
    parts.connection.send(b"x")
    parts.connection.lost()
    assert parts.clock.next_due_mono is None
    assert parts.wire.closed is None


def test_a_closed_connection_is_not_closed_again_for_being_slow(parts):
    """A timer that fires after our own close does nothing."""
    parts.connection.send(b"x")
    parts.connection.close(CloseCode.SERVICE_RESTART, "bye")
    parts.clock.advance(MAX_BEHIND_S * 2)
    parts.connection.close(CloseCode.SERVICE_RESTART, "bye")

    assert parts.wire.closed == (1012, "bye")


def test_a_peer_that_closes_is_not_open(parts):
    """P3: while the other end closes, replies are kept and not written to it."""
    parts.wire.takes = False
    parts.connection.send(b"x")

    assert not parts.connection.is_open
    assert parts.wire.frames == []


def test_binding_moves_between_sessions(parts):
    """A new session detaches the old one; the same one only changes its token."""
    connection, log = parts.connection, parts.sessions.log
    one, two = SimpleNamespace(cell="one", token=1), SimpleNamespace(cell="one", token=2)
    other = SimpleNamespace(cell="two", token=3)
    connection.bind(one)
    connection.session_id, connection.token = "sid", "secret"
    connection.bind(one)
    assert (connection.session_id, connection.token) == ("sid", "secret")
    connection.bind(two)
    assert (connection.session_id, connection.token) == ("sid", None)
    connection.bind(other)
    assert (connection.session_id, connection.token) == (None, None)
    connection.lost()

    assert log == [("attach", "one"), ("detach", "one"), ("attach", "two"), ("detach", "two")]
    assert connection.bound is None
    assert connection.peer is connection


def test_a_connection_that_is_gone_is_not_attached(parts):
    """A login whose client has left binds no dead connection to the session."""
    parts.connection.lost()
    parts.connection.bind(SimpleNamespace(cell="one", token=1))

    assert parts.sessions.log == []


def test_its_repr_shows_no_secret(parts):
    """P16: what ends up in logs names id and address only."""
    parts.connection.address = "192.0.2.1"
    parts.connection.token = parts.connection.session_id = "secret"

    assert repr(parts.connection) == f"Connection({parts.connection.id}, 192.0.2.1)"
