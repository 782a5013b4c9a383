"""The composition root: which parts there are, who gets what, start order and its reverse."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from ecan import __version__
from ecan.actors import Directory, Environment, PoisonGuard, SessionService
from ecan.actors.log_context import log_facts, log_secrets
from ecan.actors.refusals import drained_error
from ecan.admin.live import live_settings
from ecan.admin.server import AdminServer
from ecan.admin.vitals import VitalSigns
from ecan.config import LiveSettings, Settings, load
from ecan.errors import ConfigError, StoreError
from ecan.gateway import Assets, Gateway, HttpAnswers, Lobby, Router
from ecan.handlers import system
from ecan.handlers.accounts import AccountService, LoginThrottle, Passwords
from ecan.handlers.modules import HandlerModules
from ecan.handlers.registry import Registry, load_registry
from ecan.handlers.reload import Reloader
from ecan.observability import Metrics, configure, get_logger, serve_metrics, tracing
from ecan.runtime import (
    LoopClock,
    ProcessLane,
    Stall,
    StallWatchdog,
    WorkerThreads,
    run_fenced,
    set_switch_interval,
)
from ecan.store import make_store
from ecan.store.base import MAX_LETTERS
from ecan.store.users import UserStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ecan.actors.call import Call
    from ecan.observability import EventBus

EXIT_CONFIG = 2
"""As CONTRACT §8: usage or configuration."""

GC_THRESHOLD = 10_000
"""New objects between two looks of the collector at the youngest ones."""

ANSWER_TIMEOUT_S = 5.0
"""How long the store may take to keep the last answers before connections close."""

DRAIN_LOOK_S = 0.02

LAG_INTERVAL_S = 1.0
"""Between two measurements of the loop's lag."""

GUI_FOLDER = Path("gui_v2") / "dist"
"""Of the built browser app: beside the package, or, when that was installed elsewhere, here."""


def gui_folder() -> Path:
    """Where the built browser app is, or would be."""
    beside = Path(__file__).parent.parent / GUI_FOLDER
    return beside if beside.is_dir() else Path.cwd() / GUI_FOLDER


log = get_logger("ecan.app")


BUILT_IN = (
    "ecan.handlers.system",
    "ecan.handlers.accounts.methods",
    "ecan.handlers.session",
    "ecan.handlers.settings",
)
"""Modules with handlers of our own; `DEBUG` is one with ECAN_DEBUG_METHODS."""

DEBUG = "ecan.handlers.debug"


def built_in(config: Settings) -> tuple[str, ...]:
    """Our own modules with handlers, as configured."""
    return (*BUILT_IN, DEBUG) if config.debug_methods else BUILT_IN


def build_registry(config: Settings) -> Registry:
    """Every method of the server: ours, and those of ECAN_HANDLERS.

    Raises:
        ConfigError: a module does not import, or two methods have one name.
    """
    return load_registry([*built_in(config), *config.handlers])


class App:
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

    def vitals(self) -> dict[str, Any]:
        """See `ecan.admin.ports.AdminPort`."""
        return self.vital_signs.read()

    # -- what the parts ask for ------------------------------------------------------

    def health(self) -> tuple[str, int]:
        """For /health: status and number of sessions."""
        status = "healthy"
        if self._draining:
            status = "draining"
        elif self.store.trouble is not None:
            status = "degraded"
        return status, self.sessions.count()

    def is_draining(self) -> bool:
        """See `ecan.handlers.ports.Server`."""
        return self._draining

    def status(self) -> dict[str, Any]:
        """See `ecan.handlers.ports.Server`."""
        return {
            "status": self.health()[0],
            "mode": self.settings.mode,
            "version": __version__,
            "uptime_s": round(self.clock.mono() - self._started_mono, 1),
            "sessions": self.sessions.by_state(),
            "connections": self._connection_count(),
            "store": self.store.name,
            "store_trouble": self.store.trouble,
            "handlers": len(self.registry),
            "crashes": self.metrics.crashes,
            "restarts": self.metrics.restarts,
            "suspended_methods": dict(self.guard.suspended),
            "dead_letters": self._dead_letters(),
            "worker_threads": self.workers.threads,
            "worker_zombies": self.workers.zombies,
        }

    def _dead_letters(self) -> int:
        return min(self.metrics.dead_letters, MAX_LETTERS)

    def _connection_count(self) -> int:
        return self.gateway.connection_count

    def _openrpc(self) -> bytes:
        return orjson.dumps(system.discover_document(self.registry))

    def _observe(self, call: Call, status: str) -> None:
        started = call.started_mono
        ended = self.clock.mono()
        name = call.spec.name
        figures = self.metrics.methods.get(name) or self.metrics.method(name)
        done = call.done_mono or ended
        figures.observe(
            status,
            (started or ended) - call.accepted_mono,
            done - started if started else 0.0,
            ended - done if call.committing else None,
        )

    def _measure_lag(self, due_mono: float) -> None:
        """How late the loop runs what was due."""
        now = self.clock.mono()
        self.metrics.loop_lag.observe(max(0.0, now - due_mono))
        self.vital_signs.sample(max(0.0, now - due_mono))
        self._look_at_store()
        due = now + LAG_INTERVAL_S
        self._lag_timer = self.clock.call_at(due, self._measure_lag, due)

    def _look_at_store(self) -> None:
        trouble, self._trouble = self._trouble, self.store.trouble
        if (trouble is None) is not (self._trouble is None):
            if self._trouble is None:
                self.events.emit("store.recovered")
            else:
                self.events.emit("store.degraded", trouble=self._trouble)

    def _stalled(self, stall: Stall) -> None:
        self.vital_signs.stalled(stall)
        if not stall.ended:
            self.metrics.stalls += 1

    def _gauges(self) -> None:
        gauge = self.metrics.gauge_callback
        gauge("sessions", self.sessions.by_state)
        gauge("connections", self._connection_count)
        gauge("worker_threads", lambda: self.workers.threads)
        gauge("worker_zombies", lambda: self.workers.zombies)
        gauge("dead_letters", self._dead_letters)
        gauge("methods_suspended", lambda: dict.fromkeys(self.guard.suspended, 1.0))
        gauge("store_degraded", lambda: float(self.store.trouble is not None))
        gauge("draining", lambda: float(self._draining))


def _cannot_listen(name: str, host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(name, f"{host}:{port}", f"cannot listen there: {error.strerror or error}")


async def serve(config: Settings) -> int:
    """Run a server until a signal ends it.

    Returns:
        The process's exit code.
    """
    app = App(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.ask_stop)
    await app.start()
    # What start-up made stays: no need to look at it in every collection. And a request
    # makes a dozen objects that die with it: the default of 700 would look every 60 requests.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    print(  # noqa: T201 - the ready line is part of the contract
        f"ecan: ready on {'https' if config.tls_cert else 'http'}://{_host(config)}:"
        f"{app.gateway.port} (mode={config.mode}, store={app.store.name}, "
        f"handlers={len(app.registry)})",
        flush=True,
    )
    await app.stop_asked.wait()
    drain = loop.create_task(app.drain())
    second = loop.create_task(app.stop_at_once.wait())
    await asyncio.wait((drain, second), return_when=asyncio.FIRST_COMPLETED)
    hurried = not drain.done()
    for task in (drain, second):
        task.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0 if hurried else 10.0):
            await app.stop()
    log.info("server.stopped", hurried=hurried)
    return 0


def _host(config: Settings) -> str:
    return f"[{config.ws_host}]" if ":" in config.ws_host else config.ws_host


def main() -> None:
    """Entry point of `web_server.py` and `ecan serve`; ends the process."""
    try:
        config = attrs.evolve(load(), mode="web")
        configure(config.log_level, config.log_format, facts=log_facts, secrets=log_secrets)
        for name, suggestion in config.unknown:
            log.warning("settings.unknown", name=name, did_you_mean=suggestion)
        tracing.start(os.environ)
        try:
            code = _run(serve(config))
        finally:
            tracing.stop()
    except (ConfigError, StoreError) as error:
        sys.stderr.write("".join(f"ecan: {line}\n" for line in str(error).splitlines()))
        sys.exit(EXIT_CONFIG)
    sys.exit(code)


def _run(coroutine: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop  # noqa: PLC0415 - not everywhere

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:  # pragma: no cover - where there is no uvloop
        factory = asyncio.new_event_loop
    return run_fenced(coroutine, factory)
