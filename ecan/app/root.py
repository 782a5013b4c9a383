"""Which parts there are, who gets what, start order and its reverse."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import attrs

from ecan.actors import Directory, Environment, PoisonGuard, SessionService
from ecan.actors.refusals import drained_error
from ecan.admin.live import live_settings
from ecan.admin.server import AdminServer
from ecan.admin.vitals import VitalSigns
from ecan.app.figures import Figures
from ecan.app.folders import gui_folder
from ecan.app.methods import build_registry, built_in
from ecan.config import LiveSettings, Settings
from ecan.errors import ConfigError
from ecan.gateway import Assets, Gateway, HttpAnswers, Lobby, Router
from ecan.handlers.accounts import AccountService, LoginThrottle, Passwords
from ecan.handlers.modules import HandlerModules
from ecan.handlers.reload import Reloader
from ecan.observability import Metrics, get_logger, serve_metrics
from ecan.runtime import (
    GarbageKeeper,
    HugePages,
    LoopClock,
    ProcessLane,
    StallWatchdog,
    WorkerThreads,
    set_switch_interval,
)
from ecan.store import make_store
from ecan.store.users import UserStore

if TYPE_CHECKING:
    from pathlib import Path

    from ecan.observability import EventBus

ANSWER_TIMEOUT_S = 5.0
"""How long the store may take to keep the last answers before connections close."""

DRAIN_LOOK_S = 0.02

log = get_logger("ecan.app")


class App(Figures):
    """One server. `start` and `stop` say in which order everything comes and goes.

    Args:
        config: the settings.
        gui: folder of the built browser app.

    Runs on: the loop it is made on.
    """

    def __init__(self, config: Settings, gui: Path | None = None) -> None:
        # Its own copy: `settings.set` of the admin socket changes it (`ecan.config.live`).
        self.settings = config = attrs.evolve(config)
        self.loop = asyncio.get_running_loop()
        self.clock = LoopClock()
        self.metrics = Metrics()
        self.registry = build_registry(config)
        self.store = make_store(config, self.metrics)
        self.workers = WorkerThreads(config.worker_threads)
        self.processes = ProcessLane()
        self.reloader = Reloader(
            HandlerModules(built_in(config), config.handlers),
            self.registry,
            self.store,
            self.workers,
            self.processes,
        )
        self.watchdog = StallWatchdog(self.loop, on_stall=self._stalled)
        # Started by the process, whose garbage and heap it is, not by the app.
        self.garbage = GarbageKeeper(self.clock, self.metrics.gc_pause.observe)
        self.huge_pages = HugePages(self.clock)
        self.guard = PoisonGuard()
        self.directory = Directory()
        self.sessions = SessionService(self.directory, self.guard, self.metrics)
        self.accounts = AccountService(
            UserStore(config.data_dir),
            Passwords(),
            LoginThrottle(
                config.login_rate_limit.count,
                config.login_rate_limit.per_s,
                clock=self.clock.mono,
            ),
            clock=self.clock,
            signup_open=config.signup_open,
        )
        self.environment = Environment(
            loop=self.loop,
            clock=self.clock,
            settings=config,
            store=self.store,
            server=self,
            workers=self.workers,
            processes=self.processes,
            watchdog=self.watchdog,
            observe=self._observe,
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
        self.gateway = Gateway(
            config,
            self.router,
            self.sessions,
            HttpAnswers(
                config,
                Assets.load(gui or gui_folder()),
                self.health,
                self._openrpc,
                self._connection_count,
            ),
            self.clock,
            self.metrics,
        )
        self.live = LiveSettings(config, live_settings(self))
        self.admin = AdminServer(self, config.admin_socket)
        self.vital_signs = VitalSigns(self.metrics, self.clock)
        self.stop_asked = asyncio.Event()
        self.stop_at_once = asyncio.Event()
        self._trouble: str | None = None
        self._starting = True
        self._draining = self._stopped = False
        self._started_mono = self.clock.mono()
        self._watch: asyncio.Task[None] | None = None
        self._metrics_server: Any = None
        self._lag_timer: Any = None

    # -- life ------------------------------------------------------------------------

    async def start(self) -> None:
        """Start every part; what a part needs is started before it.

        Raises:
            StoreError, ConfigError: a part cannot start; what was started is stopped.
        """
        set_switch_interval()
        self._gauges()
        try:
            await self.store.open()
            self.directory.total = await self.store.count()
            self.metrics.dead_letters = await self.store.letter_count()
            await self.accounts.start()
            self.watchdog.start()
            self._measure_lag(self.clock.mono())
            self.sessions.start(self.environment)
            self._watch = self.loop.create_task(self.accounts.watch(self._revoke))
            self._metrics_server = self._serve_metrics()
            await self._listen()
            await self.admin.start()
            # Last: a start that fails must not have made and shown a password.
            await self._first_admin()
        except BaseException:
            await self.stop()
            raise
        self._starting = False
        log.info(
            "handlers.loaded", count=len(self.registry), methods=[s.name for s in self.registry]
        )

    def _serve_metrics(self) -> Any:
        config = self.settings
        if config.metrics_port is None:
            return None
        try:
            return serve_metrics(config.metrics_host, config.metrics_port, self.metrics)
        except OSError as error:
            raise _cannot_listen(
                "ECAN_METRICS_PORT", config.metrics_host, config.metrics_port, error
            ) from error

    async def _listen(self) -> None:
        config = self.settings
        try:
            await self.gateway.start()
        except OSError as error:
            raise _cannot_listen("ECAN_WS_PORT", config.ws_host, config.ws_port, error) from error

    async def drain(self) -> None:
        """Finish what runs, then part from every client (P14)."""
        config = self.settings
        self._draining = self.router.draining = True
        log.info(
            "server.draining", sessions=self.sessions.count(), timeout_s=config.drain_timeout_s
        )
        self.events.emit("server.draining", timeout_s=config.drain_timeout_s)
        self.gateway.announce_drain(min(5000, int(config.drain_timeout_s * 1000)))
        await self._all_answered(config.drain_timeout_s)
        unfinished = self.directory.unanswered()
        if unfinished:
            log.warning("server.drain_timeout", unfinished_requests=unfinished)

    async def stop(self) -> None:
        """Stop every part, in the reverse order of `start`; safe to call half-way, and twice."""
        if self._stopped:
            return
        self._stopped = self._draining = self.router.draining = True
        self._answer_unfinished()
        await self._all_answered(ANSWER_TIMEOUT_S)
        await self.admin.close()
        await self.gateway.close()
        if self._metrics_server is not None:
            self._metrics_server.close()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self.sessions.stop()
        self.watchdog.stop()
        if self._lag_timer is not None:
            self._lag_timer.cancel()
        await self.processes.stop()
        self.workers.stop()
        await self.accounts.stop()
        await self.store.close()

    async def _all_answered(self, within_s: float) -> None:
        """Wait until every accepted request has its answer, and the store has that."""
        deadline = self.clock.mono() + within_s
        while self.clock.mono() < deadline and self.directory.unanswered():
            await self.clock.sleep(DRAIN_LOOK_S)

    def _answer_unfinished(self) -> None:
        """Whoever still waits gets an answer before the connections close (P3)."""
        for cell in self.directory:
            cell.refuse_all(drained_error("not_run"))
            if cell.actor is not None:
                cell.actor.end_running(drained_error("unknown"))

    async def _first_admin(self) -> None:
        password = await self.accounts.ensure_admin(
            self.settings.admin_user, self.settings.admin_password
        )
        if password is not None:
            # The one place where a password is written, once, because there is no
            # other way to tell it; to the terminal, not to the log.
            sys.stdout.write(
                f"ecan: first account {self.settings.admin_user!r}, password: {password}\n"
            )
            sys.stdout.flush()

    async def _revoke(self, user_id: int, reason: str) -> None:
        await self.sessions.close_user(user_id, reason)

    async def reload_handlers(self) -> dict[str, Any]:
        """Take changed handler modules without losing a session (ADR 12).

        Returns:
            ``{"reloaded": [module], "methods": {"added", "changed", "removed"},
            "migrated": {slot: n}}``.

        Raises:
            ReloadError: why nothing was changed.
        """
        answer = (await self.reloader.reload()).as_answer()
        self.environment.events.emit("handlers.reloaded", **answer)
        return answer

    # -- what operators ask for --------------------------------------------------------

    @property
    def events(self) -> EventBus:
        """See `ecan.admin.ports.AdminPort`."""
        return self.environment.events

    def ask_stop(self) -> None:
        """Drain and stop, as a signal asks for it; asked again: stop at once."""
        (self.stop_at_once if self.stop_asked.is_set() else self.stop_asked).set()

    def ask_drain(self, timeout_s: float | None) -> None:
        """See `ecan.admin.ports.AdminPort`."""
        if timeout_s is not None:
            self.live.set("ECAN_DRAIN_TIMEOUT", f"{timeout_s:.3f}")
        self.stop_asked.set()

    def ask_shutdown(self) -> None:
        """See `ecan.admin.ports.AdminPort`."""
        self.stop_asked.set()
        self.stop_at_once.set()

    def collect_garbage(self) -> dict[str, Any]:
        """See `ecan.admin.ports.AdminPort`."""
        look = self.garbage.look()
        log.info("gc.looked", seconds=round(look.seconds, 3), found=look.found)
        return {"seconds": round(look.seconds, 4), "found": look.found}

    def vitals(self) -> dict[str, Any]:
        """See `ecan.admin.ports.AdminPort`."""
        return self.vital_signs.read()


def _cannot_listen(name: str, host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(name, f"{host}:{port}", f"cannot listen there: {error.strerror or error}")
