"""One life of the server: the real application, with what is outside of it simulated."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from ecan.actors import Directory, Environment, PoisonGuard, SessionService
from ecan.app import App
from ecan.gateway import Gateway, Lobby, Router
from ecan.handlers import session
from ecan.handlers.accounts import methods as accounts
from ecan.handlers.registry import Registry
from ecan.observability import Metrics
from ecan.protocol.codes import CloseCode
from ecan.runtime import LoopClock, StallWatchdog
from ecan.testing.simulator import methods
from ecan.testing.simulator.jobs import SimulatedProcesses, SimulatedThreads
from ecan.testing.simulator.link import CLOSE_TIMEOUT_S, Link

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ecan.config import Settings
    from ecan.testing.simulator.chance import Chance
    from ecan.testing.simulator.loop import SimulatedLoop
    from ecan.testing.simulator.store import SimulatedStore
    from ecan.testing.simulator.tab import Tab
    from ecan.testing.simulator.trace import Trace
    from ecan.testing.simulator.watch import Watch


def registry() -> Registry:
    """The methods of a simulated server: its own, those of sessions, and two of accounts."""
    return Registry([*methods.HANDLERS, *session.HANDLERS, accounts.logout, accounts.refresh_token])


class SimulatedGateway(Gateway):
    """The gateway's part of a drain, over simulated links."""

    def __init__(self, sessions: SessionService) -> None:
        self.links: dict[int, Link] = {}
        self._sessions = sessions

    def gone(self, link: Link) -> None:
        """A connection ended."""
        del self.links[link.number]

    @property
    def connection_count(self) -> int:
        """See `Gateway.connection_count`."""
        return len(self.links)

    async def close(self) -> None:
        """See `Gateway.close`."""
        for link in list(self.links.values()):
            link.connection.close(CloseCode.SERVICE_RESTART, "The server is restarting.")
            await asyncio.sleep(random.uniform(0.0, 0.02))  # noqa: S311
        for _ in range(int(CLOSE_TIMEOUT_S * 20) + 20):
            if not self.links:
                return
            await asyncio.sleep(0.05)


class SimulatedServer(App):
    """The application, made of the real parts; store, jobs and sockets are simulated.

    Attributes:
        watch: looks at what handlers and connections do.
        started: it takes connections.
        ended: it was stopped in an orderly way.
    """

    def __init__(
        self,
        config: Settings,
        loop: SimulatedLoop,
        store: SimulatedStore,
        chance: Chance,
        trace: Trace,
        watch: Watch,
        wall: Callable[[], float],
    ) -> None:
        self.settings = config
        self.loop = self._simulated = loop
        self.clock = LoopClock(loop, wall=wall)
        self.metrics = Metrics()
        self.registry = registry()
        self.store = store
        self.workers = SimulatedThreads(loop, chance.work, trace)
        self.processes = SimulatedProcesses(loop, chance.work)
        self.watchdog = StallWatchdog(loop)
        self.guard = PoisonGuard()
        self.directory = Directory()
        self.sessions = SessionService(self.directory, self.guard, self.metrics)
        self.environment = Environment(
            loop=loop,
            clock=self.clock,
            settings=config,
            store=store,
            server=self,
            workers=self.workers,
            processes=self.processes,
            watchdog=self.watchdog,
            observe=lambda _call, status: trace.count(f"observed.{status}"),
            tell_supervisor=self.sessions.tell_supervisor,
            describe=self.sessions.describe,
            expires_in_s=self.sessions.expires_in_s,
        )
        self.router = Router(
            self.registry,
            self.sessions,
            self.guard,
            Lobby(self, config, self.clock, self.metrics),
            config,
            self.clock,
            self.metrics,
        )
        self.gateway: SimulatedGateway = SimulatedGateway(self.sessions)
        self.watch = watch
        self.started = self.ended = False
        self._chance = chance
        self._draining = self._stopped = False
        self._started_mono = self.clock.mono()
        self._watch = self._metrics_server = self._lag_timer = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ABSENT  # accounts, admin socket and whatever else comes and goes beside the core

    async def start(self) -> None:
        """See `App.start`."""
        await self.store.open()
        self.directory.total = await self.store.count()
        self.metrics.dead_letters = await self.store.letter_count()
        self.sessions.start(self.environment)
        self.started = True

    async def shut_down(self) -> None:
        """As the first SIGTERM does."""
        await self.drain()
        await self.stop()
        self.ended = True

    def connect(self, number: int, tab: Tab) -> None:
        """A tab opens a connection."""
        link = Link(
            number,
            tab,
            self._simulated,
            self._chance.network,
            self.router,
            self.sessions,
            self.clock,
            self.metrics,
            self.watch,
            self.gateway.gone,
        )
        self.gateway.links[number] = link
        tab.connected(link)


class _Absent:
    """A part of the application that is not simulated: does nothing, at once or awaited."""

    def __getattr__(self, name: str) -> _Absent:
        return self

    def __call__(self, *_args: Any, **_options: Any) -> _Absent:
        return self

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_ABSENT = _Absent()
