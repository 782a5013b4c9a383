"""A WebSocket without a socket: frames take their time, and either end may be gone.

Stands where `ecan.gateway.websocket` stands: gives a real `Connection` a `Wire` to write
to, and the real `Router` the frames that come in. Frames of one direction never overtake
each other.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ecan.gateway.connection import Connection
from ecan.testing.simulator.chance import delay_s

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from ecan.actors import SessionService
    from ecan.gateway import Router
    from ecan.observability import Metrics
    from ecan.runtime import Clock
    from ecan.testing.simulator.loop import SimulatedLoop
    from ecan.testing.simulator.tab import Tab
    from ecan.testing.simulator.watch import Watch

USUAL_S = 0.005
NOTICED_S = 2.0
"""How long a server usually takes to notice that a client is gone."""

CLOSE_TIMEOUT_S = 5.0


class Pipe:
    """One direction: what is put in comes out later, in order."""

    def __init__(self, loop: SimulatedLoop, random: Random, out: Callable[..., None]) -> None:
        self.stopped = False
        self._loop = loop
        self._random = random
        self._out = out
        self._queue: deque[tuple[Any, ...]] = deque()
        self._timer = False
        self._held = False

    def put(self, *item: Any) -> None:
        """Send something."""
        self._queue.append(item)
        self._arm(delay_s(self._random, USUAL_S))

    def _arm(self, after_s: float) -> None:
        if not self._timer and not self._held:
            self._timer = True
            self._loop.call_later(after_s, self._deliver)

    def _deliver(self) -> None:
        self._timer = False
        if self.stopped or self._held:
            return
        for _ in range(self._random.randint(1, len(self._queue)) if self._queue else 0):
            if self._queue:
                self._out(*self._queue.popleft())
        if self._queue:
            self._arm(delay_s(self._random, USUAL_S))

    def hold(self, *, held: bool) -> None:
        """Let nothing out for a while, or go on."""
        self._held = held
        if not held and self._queue:
            self._arm(0.0)

    def stop(self) -> None:
        """Nothing comes out any more."""
        self.stopped = True
        self._queue.clear()

    @property
    def nbytes(self) -> int:
        """Of the frames that are held back."""
        return sum(len(part) for item in self._queue for part in item if type(part) is bytes)


class Link:
    """One connection between a tab and a server; a `Wire`.

    Attributes:
        connection: the server's side.
        open: both ends are there, as far as the server knows.
    """

    def __init__(
        self,
        number: int,
        tab: Tab,
        loop: SimulatedLoop,
        random: Random,
        router: Router,
        sessions: SessionService,
        clock: Clock,
        metrics: Metrics,
        watch: Watch,
        gone: Callable[[Link], None],
    ) -> None:
        self.number = number
        self.tab = tab
        self.open = True
        self.connection = Connection(self, sessions, clock, metrics, router.new_bucket())
        self.connection.address = f"tab {tab.name}"
        self._loop = loop
        self._random = random
        self._router = router
        self._watch = watch
        self._gone = gone
        self._closing = False
        self._slow = False
        self._to_server = Pipe(loop, random, self._arrived)
        self._to_client = Pipe(loop, random, tab.received)

    def __repr__(self) -> str:
        return f"link {self.number}"

    # -- the client's side ---------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """The client sends a frame."""
        self._to_server.put(frame)

    def cut(self) -> None:
        """The client is gone; the server learns of it later."""
        self._to_client.stop()
        if self._random.random() < 0.5:  # noqa: PLR2004 - what was sent may yet arrive
            self._to_server.stop()
        self._loop.call_later(delay_s(self._random, NOTICED_S), self._lost)

    def be_slow(self, *, slow: bool) -> None:
        """The client reads nothing for a while."""
        self._slow = slow
        self._to_client.hold(held=slow)

    def acknowledge_close(self) -> None:
        """The client has seen that the server closes."""
        self._loop.call_later(delay_s(self._random, USUAL_S), self._lost)

    # -- the server's side ---------------------------------------------------------------

    def _arrived(self, frame: bytes) -> None:
        if self.open and not self._closing:
            self._watch.asked(self, frame)
            self._router.receive(self.connection, frame)

    def _lost(self) -> None:
        if self.open:
            self.open = False
            self._to_server.stop()
            self._to_client.stop()
            self._watch.lost(self)
            self.connection.lost()
            self._gone(self)
            self.tab.cut_off(self)

    def write_text(self, frame: bytes) -> int:
        """See `Wire.write_text`."""
        if self._loop.dead:
            return 0
        self._watch.sent(self, frame)
        self._to_client.put(frame)
        return len(frame) + 2

    def pause(self, seconds: float) -> None:
        """See `Wire.pause`."""
        self._to_server.hold(held=True)
        self._loop.call_later(seconds, lambda: self._to_server.hold(held=False))

    def takes_frames(self) -> bool:
        """See `Wire.takes_frames`."""
        return self.open and not self._closing

    def buffered_bytes(self) -> int:
        """See `Wire.buffered_bytes`."""
        return self._to_client.nbytes if self._slow else 0

    def start_close(self, code: int, reason: str) -> None:
        """See `Wire.start_close`."""
        if self._loop.dead:
            return
        self._closing = True
        self._watch.closing(self, code)
        self._to_client.put(code, reason)
        self._loop.call_later(CLOSE_TIMEOUT_S, self._lost)
