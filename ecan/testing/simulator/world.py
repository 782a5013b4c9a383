"""The whole simulated world: one disk, one process after the other, users and their tabs."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

from ecan.actors.lifecycle import State
from ecan.config import Settings
from ecan.config.parsers import RateLimit
from ecan.errors import ReplyError, SupervisionError
from ecan.protocol.frames import Sid
from ecan.testing.simulator.disk import Disk
from ecan.testing.simulator.loop import SimulatedLoop
from ecan.testing.simulator.model import Model, Request
from ecan.testing.simulator.reads import Faults
from ecan.testing.simulator.server import SimulatedServer
from ecan.testing.simulator.store import SimulatedStore
from ecan.testing.simulator.tab import ClientSession, Tab
from ecan.testing.simulator.watch import Watch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from ecan.testing.simulator.chance import Chance
    from ecan.testing.simulator.trace import Trace

T0 = 1_700_000_000.0
START_S = 10.0
"""A process that has not started within this long, with a healthy store, never will."""

SESSION_TIMEOUT_S = 900.0
MAILBOX_SIZE = 6


def settings() -> Settings:
    """Bounds small enough to be met."""
    return Settings(
        mode="web",
        mailbox_size=MAILBOX_SIZE,
        session_timeout_s=SESSION_TIMEOUT_S,
        passivate_after_s=90.0,
        passivate_detached_after_s=30.0,
        max_sessions_per_user=3,
        request_timeout_s=8.0,
        rate_limit=RateLimit(20.0, 30),
        drain_timeout_s=5.0,
        token_ttl_s=7200.0,
    )


class World:
    """Everything there is.

    Attributes:
        clients: sessions as their browsers know them.
        tabs: all tabs, of all sessions.
        faults: of the store; outlive a process.
    """

    def __init__(self, chance: Chance, trace: Trace) -> None:
        self.chance = chance
        self.trace = trace
        self.faults = Faults()
        self.disk = Disk(trace)
        self.model = Model(self.disk, trace)
        self.disk.lands = self.model.lands
        self.model.now = self.now
        self.watch = Watch(self.model, self.disk, trace, self.faults, SESSION_TIMEOUT_S)
        self.disk.ends = self.watch.ended
        self.clients: list[ClientSession] = []
        self.tabs: list[Tab] = []
        self.server: SimulatedServer
        self._loop: SimulatedLoop
        self._store: SimulatedStore
        self._links = 0
        self._wall_offset_s = T0
        self._settings = settings()
        self.boot()

    # -- processes ---------------------------------------------------------------------

    def boot(self) -> None:
        """Start a process over what is on the disk."""
        self.model.new_life()
        self.watch.new_life()
        now_s = self.trace.now_s
        self._loop = loop = SimulatedLoop(  # type: ignore[abstract]  # what nothing here asks for
            self.chance.loop, now_s, self.trace
        )
        self._store = SimulatedStore(
            self.disk, loop, self.chance.store, self.faults, self.trace, self.model
        )
        self.server = SimulatedServer(
            self._settings, loop, self._store, self.chance, self.trace, self.watch, self.now
        )
        self.model.is_over = self._is_over
        self.trace.add("process.starts", str(self.model.life))
        unreadable, self.faults.unreadable = self.faults.unreadable, False
        self.spawn(self.server.start())
        self.run_for(START_S)
        self.faults.unreadable = unreadable
        if not self.server.started:
            self.trace.broken("P14", "the process does not start")
        self.trace.check()

    def _is_over(self, sid: str) -> bool:
        directory = self.server.directory
        cell = directory.get(Sid(sid))
        return directory.reason(Sid(sid)) is not None or (
            cell is not None and cell.state is State.CLOSED
        )

    def kill(self) -> None:
        """As ``kill -9``, and a new process: what had not landed is lost."""
        self.trace.add("process.killed")
        self._loop.die()
        for tab in self.tabs:
            tab.link = None
        if self.disk.limbo is not None and self.chance.plan.random() < 0.5:  # noqa: PLR2004
            self.trace.add("store.limbo_found")
            self.disk.found_after_a_kill()
        self.disk.limbo = None
        self._wall_offset_s += self.chance.plan.choice((0.0, 1.0, 30.0))
        self.boot()

    def shut_down(self) -> None:
        """SIGTERM, and a new process when that one has ended."""
        self.trace.add("process.drains")
        self.spawn(self.server.shut_down())
        self.run_for(40.0)
        if not self.server.ended:
            self.trace.broken("P14", "the process does not end")
        self.kill()

    def end(self) -> None:
        """Nothing runs any more."""
        self._loop.die()

    def now(self) -> float:
        """UTC epoch seconds."""
        return self._wall_offset_s + self.trace.now_s

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something in the process."""
        task = self._loop.create_task(coroutine)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            story = "".join(traceback.format_exception(error))
            self.trace.broken("bug", f"{task.get_coro()} failed: {story}")

    # -- time --------------------------------------------------------------------------

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        self._loop.run_until(self._loop.time() + seconds)
        self.check_bounds()

    def run_callbacks(self, count: int) -> None:
        """Let the process run for some callbacks; no time passes."""
        self._loop.run_callbacks(count)
        self.check_bounds()

    def check_bounds(self) -> None:
        """Nothing grows beyond its bound (P8); nobody busy sleeps (P13); figures are true."""
        directory = self.server.directory
        states = Counter(cell.state for cell in directory)
        if states != +Counter(directory.by_state):
            self.trace.broken("figures", f"{dict(states)} are told as {directory.by_state}")
        for cell in directory:
            if len(cell.mailbox) > MAILBOX_SIZE:
                self.trace.broken("P8", f"{cell} holds {len(cell.mailbox)} requests")
            running = [call for call in cell.pending.values() if call.started_mono]
            if cell.state is State.PASSIVATED and any(not call.answered for call in running):
                self.trace.broken("P13", f"{cell} sleeps while {running} run")
        self.trace.check()

    # -- users -------------------------------------------------------------------------

    def new_client(self, user_id: int) -> ClientSession:
        """A user opens the application in a browser."""
        client = ClientSession(len(self.clients) + 1, user_id)
        self.clients.append(client)
        tab = self.new_tab(client)
        tab.login()
        return client

    def new_tab(self, client: ClientSession) -> Tab:
        """Another tab of the same session."""
        tab = Tab(client, len(client.tabs) + 1, self.trace, self.chance.plan)
        client.tabs.append(tab)
        self.tabs.append(tab)
        self.connect(tab)
        return tab

    def connect(self, tab: Tab) -> None:
        """A tab opens a connection."""
        self._links += 1
        self.trace.add("tab.connects", f"{tab} link {self._links}")
        self.server.connect(self._links, tab)

    def disconnect(self, tab: Tab) -> None:
        """A tab is gone without a word."""
        if tab.link is not None:
            self.trace.add("tab.gone", f"{tab} {tab.link}")
            tab.link.cut()
            tab.link = None

    def request(self, client: ClientSession, method: str, doing: dict[str, Any]) -> Request:
        """A new request of the application, with an id of its own."""
        request_id = f"r{len(self.model.requests) + 1}"
        spec = self.server.registry.get(method)
        assert spec is not None
        request = Request(
            request_id,
            method,
            {"tag": request_id, **doing},
            client,
            effect=method in EFFECTS,
            document=doing.get("document") if method == "sim.async" else None,
            reads=spec.reads,
            serial=not spec.concurrent,
            control=spec.control,
        )
        self.model.requests[request_id] = request
        client.requests.append(request)
        return request

    def crash_supervisor(self) -> None:
        """A bug of the supervisor's own: it does not know a message."""
        self.trace.add("supervisor.crashes")
        self.server.sessions.tell_supervisor(object())

    # -- operators ---------------------------------------------------------------------

    def steer(self, sid: str, command: str) -> None:
        """An operator's command; it may not fit the session's state."""
        if command in ("revive", "reset"):
            self.model.forgive(sid)
        self.spawn(self._steer(sid, command))

    async def _steer(self, sid: str, command: str) -> None:
        try:
            if command == "kill":
                await self.server.sessions.close(sid, "killed")
            else:
                await self.server.sessions.steer(sid, command)
        except (SupervisionError, ReplyError) as error:
            self.trace.add("operator.refused", f"{command} {sid}: {error}")
        else:
            self.trace.add(f"operator.{command}", sid)
            if command in ("revive", "reset"):
                self.model.forgive(sid)


EFFECTS = ("sim.inline", "sim.async", "sim.deaf", "sim.thread", "sim.stream", "sim.ask")
"""Methods that leave their id in the session's log."""
