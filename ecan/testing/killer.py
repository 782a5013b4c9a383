"""Kill -9 in the middle of everything: a real server, real sockets, clients that never give up.

`Killer` starts ``python web_server.py`` over a durable store, opens fifty sessions of a few
users and lets them work (`ecan.testing.stubborn`). Meanwhile the server is killed,
drained, or killed while it starts, at random moments, and comes back on the same port.
`Account` holds what was said against what was said before; the end of `Killer.run` checks
that nothing acknowledged was lost or done twice.

The seed decides who asks for what and when the server dies; what the operating system
makes of it differs from run to run. So the seed is a hint, and the history in a failure
is the evidence.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from typing import TYPE_CHECKING, Any, Literal

import attrs

from ecan.testing.account import Account, Asked, BrokenPromiseError
from ecan.testing.client import Client
from ecan.testing.process import ServerProcess
from ecan.testing.stubborn import KEYS, Run, Session, Tab

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

PASSWORD = "correct horse battery"  # noqa: S105 - of servers that live for one test

LIVES = (0, 1, 20, 100, 300)
"""Requests that are answered between two deaths."""

MAX_LIFE_S = 10.0
"""It dies after this all the same."""

MAX_OLD = 5
"""Ids per session that are older than the ledger and asked for again."""

TAIL = 50
"""Lines of the server's output in a failure."""

Death = Literal["kill", "drain", "start"]
"""SIGKILL; SIGTERM; SIGKILL, and again on the way to the next ready line."""

SETTINGS = {
    "ECAN_STORE": "sqlite",
    "ECAN_DURABILITY": "commit",
    "ECAN_ADMIN_PASSWORD": PASSWORD,
    "ECAN_DEBUG_METHODS": "1",
    "ECAN_SIGNUP": "open",
    "ECAN_RATE_LIMIT": "0",
    "ECAN_LOGIN_RATE_LIMIT": "0",
    "ECAN_MAX_SESSIONS_PER_USER": "1000",
    "ECAN_LOG_FORMAT": "json",
    "ECAN_DRAIN_TIMEOUT": "5",
}


@attrs.frozen(kw_only=True)
class Plan:
    """What happens in a run.

    Attributes:
        seed: of everything random.
        deaths: how often the server dies.
        kinds: of deaths, drawn with equal chance; name one twice to have it twice as often.
        lives: requests that are answered between two deaths, drawn with equal chance.
        sessions, users: how many; sessions go round the users.
        two_tabs: how many sessions have two tabs.
        replays: answers per session that are asked for again at the end, three times.
        think_s: mean pause of a worker between two requests; a tab has one to three workers.
        settings: ``ECAN_...``, beside `SETTINGS`.
        may_lose: the server is allowed to forget what it acknowledged last, if it says so
            with another epoch; then it is counted what was lost, and replays are not checked.
    """

    seed: int
    deaths: int
    kinds: tuple[Death, ...] = ("kill",)
    lives: tuple[int, ...] = LIVES
    sessions: int = 50
    users: int = 5
    two_tabs: int = 6
    replays: int = 50
    think_s: float = 0.12
    settings: dict[str, str] = attrs.field(factory=dict)
    may_lose: bool = False


@attrs.define(kw_only=True)
class Report:
    """What a run did; ``str`` is one line.

    Attributes:
        sent_again: requests that went out again after a loss, to a second tab, or at the end.
        replays: answers that were marked as replayed.
        checked: answers that were asked for again at the end; `expired`: ids too old for it.
        lost: acknowledged increments that are gone, of a server that may lose them.
    """

    deaths: dict[str, int]
    requests: int = 0
    changing: int = 0
    sent_again: int = 0
    resumes: int = 0
    replays: int = 0
    pushes: int = 0
    gaps: int = 0
    cuts: int = 0
    checked: int = 0
    expired: int = 0
    lost: int = 0
    seconds: float = 0.0
    starts_s: list[float] = attrs.field(factory=list)

    def __str__(self) -> str:
        died = ", ".join(f"{count} x {kind}" for kind, count in self.deaths.items() if count)
        starts = sorted(self.starts_s)
        return (
            f"died {died or 'never'}; {self.requests} requests answered ({self.changing} changing),"
            f" {self.sent_again} sent again, {self.replays} replays; {self.resumes} resumes,"
            f" {self.cuts} cuts, {self.pushes} pushes, {self.gaps} gaps; {self.checked} answers"
            f" asked for again at the end, {self.expired} of them expired;"
            f" {self.lost} increments lost; start"
            f" {starts[len(starts) // 2]:.2f} s (most {starts[-1]:.2f}); {self.seconds:.0f} s"
        )


class Killer:
    """One run: `run` does all of it.

    Args:
        folder: for the server's data.
        plan: what happens.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self.report = Report(deaths=dict.fromkeys(("kill", "drain", "start"), 0))
        self.server = ServerProcess(folder, {**SETTINGS, **plan.settings})
        self.sessions: list[Session] = []
        self._run = Run(
            self.server.url,
            random.Random(plan.seed),  # noqa: S311 - a drill, no secret
            plan.think_s,
            asyncio.get_running_loop().create_future(),
        )
        self._story = f"seed {plan.seed}, {plan.deaths} deaths of {', '.join(plan.kinds)}"
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> Report:
        """Start, work, die, come back, and check.

        Raises:
            BrokenPromiseError: the server contradicted itself, or ended by itself.
        """
        started = time.monotonic()
        story = asyncio.create_task(self._tell())
        failure = self._run.failure
        try:
            await asyncio.wait((story, failure), return_when=asyncio.FIRST_COMPLETED)
            await (failure if failure.done() else story)
        finally:
            failure.cancel()
            for task in (story, *self._tasks):
                task.cancel()
            await asyncio.gather(story, *self._tasks, return_exceptions=True)
            await asyncio.to_thread(self.server.kill)
        self.report.seconds = time.monotonic() - started
        return self.report

    async def _tell(self) -> None:
        plan, rng = self.plan, self._run.rng
        await self._start()
        await self._log_in()
        workers = [
            self._spawn(session.work(tab, number))
            for session in self.sessions
            for tab in session.tabs
            for number in range(rng.randint(1, 3))
        ]
        for _ in range(plan.deaths):
            await self._live()
            await self._die(rng.choice(plan.kinds))
        await self._live()
        self._run.over.set()
        await asyncio.gather(*workers)  # each ends with its last answer
        self._count_requests()
        if plan.may_lose:
            await asyncio.gather(*map(self._count_lost, self.sessions))
        else:
            await self._check("before the last kill")
            await self._die("kill")
            await self._check("after the last kill")
            await self._die("drain")
            await self._check("after the last drain")
        self._count_all()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._run.fail(error)

    # -- the server ------------------------------------------------------------------

    async def _start(self) -> None:
        self._run.generation += 1
        started = time.monotonic()
        try:
            await asyncio.to_thread(self.server.start)
        except RuntimeError as error:
            raise BrokenPromiseError(f"{self._story}: {error}") from None
        self.report.starts_s.append(time.monotonic() - started)

    async def _live(self) -> None:
        """Until so many requests were answered, which may be none, and a moment longer."""
        due = self._answers() + self._run.rng.choice(self.plan.lives)
        await _until(lambda: self._answers() >= due, MAX_LIFE_S)
        await asyncio.sleep(self._run.rng.uniform(0.0, 0.05))
        process = self.server.process
        if process is not None and process.poll() is not None:
            raise self._server_error(f"it ended by itself, exit code {process.returncode}")

    def _answers(self) -> int:
        return sum(len(session.account.answered) for session in self.sessions)

    async def _die(self, kind: Death) -> None:
        """End the server in one of the ways, and start it again."""
        self.report.deaths[kind] += 1
        if kind == "drain":
            code = await asyncio.to_thread(self.server.stop, signal.SIGTERM)
            if code != 0:
                raise self._server_error(f"exit code {code} after SIGTERM")
        else:
            await asyncio.to_thread(self.server.kill)
        if kind == "start":
            await self._die_starting()
        await self._start()

    async def _die_starting(self) -> None:
        """Start it and kill it somewhere on its way to the ready line, or just after."""
        self._run.generation += 1
        start = asyncio.create_task(asyncio.to_thread(self.server.start))
        usual_s = self.report.starts_s[-1]
        await asyncio.sleep(self._run.rng.uniform(0.2, 1.1) * usual_s)
        process = self.server.process
        if process is not None:
            process.kill()
        with contextlib.suppress(RuntimeError):  # it was not ready yet
            await start
        await asyncio.to_thread(self.server.kill)

    def _server_error(self, what: str) -> BrokenPromiseError:
        return BrokenPromiseError(f"{self._story}: {what}\n{''.join(self.server.output[-TAIL:])}")

    # -- the clients -----------------------------------------------------------------

    async def _log_in(self) -> None:
        plan = self.plan
        async with Client(self.server.url) as client:
            for number in range(plan.users):
                await client.call("signup", {"username": f"user{number}", "password": PASSWORD})
            for number in range(plan.sessions):
                client.session = {}  # a connection holds one session; the next one replaces it
                await client.login(f"user{number % plan.users}", PASSWORD)
                sid = client.login_result["sid"]
                account = Account(f"s{number} ({sid})", self._story, may_lose=plan.may_lose)
                tabs = [
                    Tab(self._run, account, f"s{number}{letter}", dict(client.session))
                    for letter in ("ab" if number < plan.two_tabs else "a")
                ]
                self.sessions.append(Session(self._run, account, tabs))
        for session in self.sessions:
            for tab in session.tabs:
                self._spawn(tab.live())
        # Before the first push: then every tab sees all of them.
        await _until(lambda: all(len(s.account.cursors) == len(s.tabs) for s in self.sessions))

    # -- the end ---------------------------------------------------------------------

    async def _check(self, when: str) -> None:
        await asyncio.gather(*(self._check_session(session, when) for session in self.sessions))

    async def _check_session(self, session: Session, when: str) -> None:
        account, tab = session.account, session.tabs[0]
        account.note("", f"is checked {when}")
        for asked in account.kept(self.plan.replays):
            reply = await tab.ask(asked, again=True)
            if not reply["meta"]["replayed"]:
                account.broken(f"{when}: the answer to {asked.id} was not kept: {reply}", asked.id)
            self.report.checked += 1
        for asked in account.old(MAX_OLD):
            asked.old = True
            reply = await tab.ask(asked, again=True)
            self.report.checked += 1
            self.report.expired += not reply["meta"]["replayed"]
        account.check_counters(await self._counters(session, when))
        info = await tab.ask(self._look(account, f"{when}, info", "session.info"))
        seq = info["result"]["seq"]
        cursors = account.cursors.values()
        await _until(lambda: all(cursor.last >= seq for cursor in cursors), 5.0)
        account.check_pushes(seq)

    async def _count_lost(self, session: Session) -> None:
        values = await self._counters(session, "at the end")
        self.report.lost += session.account.lost(values)

    async def _counters(self, session: Session, when: str) -> dict[str, Any]:
        values = {}
        for key in KEYS:
            looked = self._look(session.account, f"{when}, {key}", "debug.state_get", key=key)
            values[key] = (await session.tabs[0].ask(looked))["result"]
        return values

    def _look(self, account: Account, request_id: str, method: str, **params: str) -> Asked:
        return account.ask(request_id, method, params, changes=False)

    def _count_requests(self) -> None:
        for session in self.sessions:
            answered = session.account.answered
            self.report.requests += len(answered)
            self.report.changing += sum(asked.changes for asked in answered)

    def _count_all(self) -> None:
        report = self.report
        report.cuts = self._run.cuts
        for session in self.sessions:
            account = session.account
            report.sent_again += sum(asked.sends - 1 for asked in account.answered)
            report.gaps += len(account.gaps)
            report.pushes += len(account.pushes)
            report.resumes += account.resumes
            report.replays += account.replays


async def _until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    """Wait for something that is spread over many accounts; whoever needs it looks again."""
    until = time.monotonic() + within_s
    while not condition() and time.monotonic() < until:  # noqa: ASYNC110 - no one event
        await asyncio.sleep(0.005)
