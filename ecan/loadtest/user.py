"""A user of a load test: what scenarios call, and what chaos does to it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ecan.loadtest.recorder import CONNECT
from ecan.loadtest.session import Session
from ecan.loadtest.wire import WireError

if TYPE_CHECKING:
    from ecan.loadtest.plan import Call
    from ecan.loadtest.requests import Pending, Reply
    from ecan.loadtest.world import World


class User(Session):
    """One user. Every step is due when the step before it has ended.

    Attributes:
        number: 0 to users - 1, the same in every run.
        random: for the scenario's own choices; seeded.
        state: a dict of the scenario's own, kept from run to run.
        busy: a scenario runs.
        crashes: when it was made to crash.
    """

    def __init__(
        self,
        world: World,
        number: int,
        session: dict[str, str] | None = None,
        account: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(world, number, session, account)
        self.state: dict[str, Any] = {}
        self.busy = False
        self.crashes: deque[float] = deque()
        self._due = 0.0
        self._phase = 0

    def begin_run(self, due: float, phase: int) -> None:
        """A run of the scenario begins; its first step is due now."""
        self._due, self._phase = due, phase
        self.busy = True

    # -- connection and session ----------------------------------------------------------

    async def connect(self) -> bool:
        """Open a connection and resume the session, if there is one; False if refused."""
        recorder = self._world.recorder
        recorder.sent(self._phase, CONNECT)
        if self._returning is not None and not self._returning.done():
            # RACE: two resumes of one client; what it missed would come twice.
            self.cut()
        try:
            await self._open_wire()
            if self._credentials and not await self._resume():
                recorder.error(self._phase, CONNECT, "RESUME_REFUSED")
                return False
        except WireError:
            recorder.error(self._phase, CONNECT, "CONNECT_FAILED")
            return False
        finally:
            due, self._due = self._due, time.monotonic()
        self.connected = True
        recorder.ok(self._phase, CONNECT, self._due - due)
        return True

    async def login(self, *, expect: str | None = None) -> Reply:
        """Log in with the user's account; the connection belongs to the new session.

        Args:
            expect: an error code that is wanted here and counts as no error.
        """
        name, password = self._account
        pending = self.make(
            "login", {"username": name, "password": password}, self._due, self._phase
        )
        pending.then = self._bound
        pending.expected = expect
        return await self._run(pending)

    async def logout(self) -> Reply:
        """End the session; what comes next is a login."""
        self._leaving = True  # the server may hang up
        reply = await self.call("logout")
        self._credentials = {}
        self._known = False
        return reply

    async def reconnect(self) -> bool:
        """Cut the connection, come back, resume; False if that was refused."""
        self.cut()
        return await self.connect()

    def cut(self) -> None:
        """Drop the connection as a dying network does, until `connect`."""
        self._part()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()

    def close(self) -> None:
        """Part as a browser does, until `connect`."""
        self._part()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    # -- requests ------------------------------------------------------------------------

    async def call(self, method: str, params: Any = None, *, expect: str | None = None) -> Reply:
        """One request, from its turn in the scenario to its final answer.

        Args:
            method: of the request.
            params: of the request.
            expect: an error code that is wanted here and counts as no error.
        """
        pending = self.make(method, params, self._due, self._phase)
        pending.expected = expect
        return await self._run(pending)

    async def stream(self, method: str, params: Any = None) -> tuple[Any, ...]:
        """As `call`; the results of its ``pending`` frames."""
        return (await self.call(method, params)).parts

    async def incr(self, key: str = "load") -> Reply:
        """``debug.incr``, verified: no value twice, and the right total at the end."""
        pending = self.make("debug.incr", {"key": key}, self._due, self._phase)
        self.checks.counter(key)
        pending.counter = key
        return await self._run(pending)

    async def do(self, call: Call) -> Reply:
        """A call of a mix, in a closed loop."""
        pending = self.make(call.method, call.full_params, self._due, self._phase)
        if call.counter is not None:
            self.checks.counter(call.counter)
            pending.counter = call.counter
        return await self._run(pending)

    async def _run(self, pending: Pending) -> Reply:
        waiter = pending.waiter = asyncio.get_running_loop().create_future()
        self._send(pending)
        reply: Reply = await waiter
        self._due = time.monotonic()
        return reply

    # -- time ----------------------------------------------------------------------------

    async def think(self, seconds: float) -> None:
        """Do nothing; what comes next is due when this is over, not when we woke up."""
        self._due += seconds
        await asyncio.sleep(self._due - time.monotonic())

    async def hold(self, seconds: float) -> None:
        """Stay connected and take pushes."""
        await self.think(seconds)

    # -- chaos ---------------------------------------------------------------------------

    def crash(self, due: float, phase: int, key: str) -> None:
        """Send a request that adds to a counter and crashes: the counter must not move."""
        pending = self.make("debug.incr_then_crash", {"key": key}, due, phase)
        pending.expected = "HANDLER_CRASHED"
        self.crashes.append(due)
        self._send(pending)

    def lose_connection(self) -> None:
        """The network dies under this user, who comes back by itself."""
        if self._wire is not None:
            self._wire.abort()

    def freeze(self, seconds: float) -> None:
        """Read nothing for a while."""
        wire = self._wire
        if wire is not None and wire.open:
            wire.freeze()
            asyncio.get_running_loop().call_later(seconds, wire.thaw)
