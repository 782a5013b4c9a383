"""One run: server, sessions, generators, what is done to the server, the result."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from typing import TYPE_CHECKING, Any

import attrs

from ecan.admin.client import AsyncClient
from ecan.loadtest import sessions, slo
from ecan.loadtest.fleet import Fleet
from ecan.loadtest.generator import Job, raise_file_limit
from ecan.loadtest.plan import Plan, PlanError, split_at_events
from ecan.loadtest.probe import Methods, Probe
from ecan.loadtest.result import Raw, make_result
from ecan.loadtest.sampling import Sampler
from ecan.loadtest.schedule import Schedule
from ecan.loadtest.sessions import Supply
from ecan.loadtest.wire import WireError

if TYPE_CHECKING:
    from pathlib import Path

    from ecan.loadtest.live import Live
    from ecan.loadtest.local_server import LocalServer

KEPT_FILES = 64
"""Of the process itself, beside its connections."""


@attrs.frozen(kw_only=True)
class Options:
    """How a plan is run.

    Attributes:
        plan_ref: name or path, for the generator processes.
        url: of the server.
        processes: generators.
        server: the one that was started for the run, or None.
        admin_socket: makes the sessions, and tells the server's pid; or None.
        admin_user: for whom the admin socket makes sessions.
        account: log in with this one; or None.
        sign_up: make accounts first.
        metrics_url: where to scrape the server, or None.
        objective: parsed.
        max_lag_s: what a generator's loop may be late.
        seed: of chance.
    """

    plan_ref: str
    url: str
    processes: int = 1
    server: LocalServer | None = None
    admin_socket: Path | None = None
    admin_user: str = "admin"
    account: tuple[str, str] | None = None
    sign_up: bool = False
    metrics_url: str | None = None
    objective: tuple[slo.Term, ...] = ()
    max_lag_s: float = 0.02
    seed: int = 1


class Runner:
    """Runs plans against one server; sessions are made once and used again.

    Args:
        options: how.
        live: what is seen meanwhile.

    Attributes:
        stopped: somebody wanted it to end.
    """

    def __init__(self, options: Options, live: Live) -> None:
        self.stopped = False
        self._options, self._live = options, live
        self._methods: Methods | None = None
        self._supply = Supply([], [], "")
        self._pid: int | None = None
        self._events: list[dict[str, Any]] = []
        self._stop: asyncio.Event | None = None
        self._sample: dict[str, Any] = {}
        self._ended_at = 0.0

    @property
    def objective(self) -> tuple[slo.Term, ...]:
        """What the runs are judged by."""
        return self._options.objective

    @property
    def most_users(self) -> int:
        """As open files allow, in the generators; the server has a limit of its own."""
        return (raise_file_limit() - KEPT_FILES) * self._options.processes

    @property
    def _durable(self) -> bool:
        server = self._options.server
        return server is not None and server.durable

    def stop(self) -> bool:
        """End the run early; the result is made of what there is. False: none has begun."""
        self.stopped = True
        if self._stop is None:
            return False
        self._stop.set()
        return True

    async def run(self, plan: Plan) -> dict[str, Any]:
        """Play a plan; the result.

        Raises:
            PlanError: the server cannot do what it is made of.
            WireError, ClientError: nobody is there, or it said no.
            FleetError: a generator could not do its job.
        """
        plan, missing = await self._fit(plan)
        await self._supply_for(plan)
        self._stop = asyncio.Event()
        self._events = []
        started_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        async with Fleet(self._jobs(plan, missing)) as fleet:
            self._live.progress(f"connecting {plan.users:,} users …")
            await fleet.connected()
            start = fleet.go()
            dones = await self._play(plan, fleet, start)
            played_s = min(plan.seconds, self._ended_at - start)
            rows = fleet.seconds.rows
        self._live.close()
        return make_result(
            Raw(
                plan=plan,
                dones=dones,
                rows=rows,
                events=self._events,
                started_at=started_at,
                played_s=played_s,
                objective=self._options.objective,
                max_lag_s=self._options.max_lag_s,
                facts=self._facts(missing),
            )
        )

    # -- before ------------------------------------------------------------------------

    async def _fit(self, plan: Plan) -> tuple[Plan, list[str]]:
        """The plan as this server can play it, and the methods it lacks."""
        if plan.chaos.server_events and self._options.server is None:
            raise PlanError("only a server that was started with --start can be killed or drained")
        if plan.users > self.most_users:
            raise PlanError(
                f"{plan.users} users need as many open files; {self.most_users} are allowed"
                " (ulimit -n, or more --processes)"
            )
        if self._methods is None:
            async with Probe(self._options.url) as probe:
                self._methods = await probe.methods()
            await self._find_pid()
        known = self._methods.known
        missing: set[str] = set()
        if known is not None:
            missing = {call.method for call in plan.calls} - known
            if plan.chaos.crash and "debug.incr_then_crash" not in known:
                raise PlanError("--crash needs a server with ECAN_DEBUG_METHODS=1, or --start")
        phases = split_at_events(plan.phases, plan.chaos.server_events)
        return attrs.evolve(plan.without(missing), phases=phases), sorted(missing)

    async def _find_pid(self) -> None:
        socket = self._options.admin_socket
        if self._options.server is None and socket is not None:
            async with AsyncClient(socket) as client:
                self._pid = client.server_pid

    async def _supply_for(self, plan: Plan) -> None:
        """Sessions or accounts for every user, made once."""
        options, have = self._options, self._supply
        if plan.users <= max(len(have.sessions), len(have.accounts)):
            return

        def progress(done: int) -> None:
            self._live.progress(f"making sessions: {done:,} of {plan.users:,}")

        if options.sign_up:
            per_account = max(1, -(-plan.users // sessions.ACCOUNTS))
            accounts = await sessions.sign_up(options.url, plan.users, per_account, progress)
            self._supply = Supply([], accounts, f"{len(set(accounts))} new accounts, by login")
        elif options.admin_socket is not None and plan.connected:
            made = await sessions.by_admin_socket(
                options.admin_socket,
                options.admin_user,
                plan.users - len(have.sessions),
                progress,
            )
            self._supply = Supply([*have.sessions, *made], [], "the admin socket")
        elif options.account is not None:
            accounts = [options.account] * plan.users
            self._supply = Supply([], accounts, f"logins as {options.account[0]}")
        else:
            raise PlanError(
                "where do the sessions come from? Give --start, --admin-socket, --user with"
                " --password-stdin, or --signup"
            )

    def _jobs(self, plan: Plan, missing: list[str]) -> list[Job]:
        of = min(self._options.processes, plan.users)
        methods = self._methods or Methods(None, frozenset())
        jobs = []
        for k in range(of):
            first, last = plan.users * k // of, plan.users * (k + 1) // of
            jobs.append(
                Job(
                    plan=self._options.plan_ref,
                    url=self._options.url,
                    phases=[attrs.asdict(phase) for phase in plan.phases],
                    chaos=attrs.asdict(plan.chaos),
                    missing=missing,
                    sessions=self._supply.sessions[first:last],
                    accounts=self._supply.accounts[first:last],
                    users=last - first,
                    first=first,
                    k=k,
                    of=of,
                    ordered=sorted(methods.ordered),
                    timeout_s=plan.timeout_s,
                    durable=self._durable,
                    seed=self._options.seed,
                )
            )
        return jobs

    def _facts(self, missing: list[str]) -> dict[str, Any]:
        notes = []
        if missing:
            notes.append(f"The server has no {', '.join(missing)}; the plan was played without.")
        if self._methods is not None and not self._methods.ordered:
            notes.append("The server has no rpc.discover: the order of replies is not checked.")
        return {
            "url": self._options.url,
            "sessions": self._supply.made_by,
            "started_by_us": self._options.server is not None,
            "durable": self._durable,
            "seed": self._options.seed,
            "notes": notes,
        }

    # -- the plan ----------------------------------------------------------------------

    async def _play(self, plan: Plan, fleet: Fleet, start: float) -> list[dict[str, Any]]:
        schedule = Schedule(plan.phases)
        sampler = Sampler(self._server_pid, self._options.metrics_url)
        await sampler.sample()

        def on_second(row: dict[str, Any]) -> None:
            if self._sample:
                row["server"] = self._sample
            phase = plan.phases[schedule.phase_at(row["second"] - 1)]
            self._live.second(row, self._sample, phase.name)

        async def sample() -> None:
            second = 0
            while True:
                second += 1
                await asyncio.sleep(max(0.0, start + second - 0.1 - time.monotonic()))
                self._sample = await sampler.sample()

        async def end_early() -> None:
            assert self._stop is not None  # noqa: S101 - run set it
            await self._stop.wait()
            self._ended_at = time.monotonic()
            fleet.stop()

        self._ended_at = start + plan.seconds
        tasks = [
            asyncio.create_task(work)
            for work in (sample(), end_early(), self._trouble(plan, start))
        ]
        try:
            return await fleet.results(on_second)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            if sampler.problem:
                self._live.note(f"ecan: {sampler.problem}")
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    self._live.note(f"ecan: {type(outcome).__name__}: {outcome}")

    def _server_pid(self) -> int | None:
        server = self._options.server
        return self._pid if server is None else server.pid

    async def _trouble(self, plan: Plan, start: float) -> None:
        """Kill or drain the server when the plan says so, and start it again."""
        server = self._options.server
        if server is None:
            return
        for at, name in plan.chaos.server_events:
            await asyncio.sleep(max(0.0, start + at - time.monotonic()))
            self._event(start, name)
            await (server.kill() if name == "kill -9" else server.drain())
            await server.start()
            self._event(start, "ready again")

    def _event(self, start: float, what: str) -> None:
        self._events.append({"at_s": round(time.monotonic() - start, 3), "what": what})
        self._live.note(f"{self._events[-1]['at_s']:.1f} s: server: {what}")

    async def clean_up(self) -> None:
        """Log out the sessions that were made over the admin socket; idle ones end anyway."""
        if self._options.server is None and self._supply.sessions:
            with contextlib.suppress(WireError):
                await sessions.log_out(self._options.url, self._supply.sessions)
