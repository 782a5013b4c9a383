"""Clients that never give up: they come back after every loss and ask until they are answered.

A `Tab` outlives its connections: it resumes its session on each new one and sends what is
unanswered again, with the same id. What it sends and hears it enters into its session's
`Account`. `Session.work` is somebody at such a tab who counts, looks, pushes and sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import attrs
from websockets.exceptions import WebSocketException

from ecan.testing.account import Account, Asked, is_final
from ecan.testing.client import TIMEOUT_S, Client

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

LOST = (OSError, EOFError, TimeoutError, WebSocketException)
"""What a client sees of a server that dies."""

MAX_RECONNECT_S = 0.06
"""Impatient: a client that waits longer would miss the short lives of the server."""

MAX_WAIT_S = 0.2
"""At most, when the server asks to come again later."""

KEYS = ("apples", "pears", "plums")
"""The counters of a session."""

ABOUT = "about"
"""The param of a push that names the request it was asked with."""

WORK = {
    "debug.incr": 50,
    "debug.state_get": 20,
    "debug.push": 15,
    "debug.state_set": 7,
    "debug.sleep": 5,
    "session.info": 3,
}
"""How often each is asked for, of a hundred."""

LOOKING = frozenset({"debug.state_get", "session.info"})
"""Declared to only look (``reads=True``): after a death they look again. All else is kept."""

SAME_ID_SHARE = 0.1
"""Of the requests in a session with two tabs: both ask with one id at once."""

CUT_SHARE = 0.002
"""Of the requests: then the client loses its connection without the server's doing."""

CRASH_EVERY_S = 60.0
"""Of one session: four crashes within a minute would end it (P6)."""

FIRST_CRASH_S = 40.0


@attrs.define(eq=False)
class Run:
    """What all tabs of a run share.

    Attributes:
        url: of the server.
        rng: everything random comes from it.
        think_s: mean pause between two requests of one worker.
        failure: gets the first error.
        over: no new requests from here on.
        generation: number of the server process.
        cuts: connections that clients have cut.
    """

    url: str
    rng: random.Random
    think_s: float
    failure: asyncio.Future[None]
    over: asyncio.Event = attrs.field(factory=asyncio.Event)
    generation: int = 0
    cuts: int = 0

    def fail(self, error: BaseException) -> None:
        """End the run with this error."""
        if not self.failure.done():
            self.failure.set_exception(error)


class _Line(Client):
    """One connection of a tab; shows every frame to the tab, in the order they came."""

    def __init__(self, url: str, generation: int, tap: Callable[[_Line, Any], None]) -> None:
        super().__init__(url, open_timeout=5.0, close_timeout=1.0)
        self.generation = generation
        self._tap = tap

    def _receive(self, frame: dict[str, Any]) -> None:
        self._tap(self, frame)
        super()._receive(frame)

    async def hang_up(self) -> None:
        """End the connection, if there is one, without a word."""
        if self._ws is not None:
            self._ws.transport.abort()
            with contextlib.suppress(*LOST):
                await self.close()


class Tab:
    """A tab that outlives its connections; `ask` waits until it has an answer that stands.

    Args:
        run: what all tabs share.
        account: of its session.
        name: for people.
        credentials: session id and token.
    """

    def __init__(self, run: Run, account: Account, name: str, credentials: dict[str, Any]) -> None:
        self.name = name
        self.account = account
        self._run = run
        self._credentials = credentials
        self._line: _Line | None = None
        self._bound = asyncio.Event()
        self._least_incarnation = 0

    async def live(self) -> None:
        """Connect, resume, and do so again after every loss; until cancelled."""
        line = None
        try:
            while True:
                line = _Line(self._run.url, self._run.generation, self._frame)
                try:
                    await line.open()
                    await self._resume(line)
                except ConnectionRefusedError:
                    pass  # there is no server now; not worth a line of history each time
                except LOST as error:
                    self.account.note(self.name, "did not resume:", "", repr(error))
                else:
                    self._bound.set()
                    await line.ws.wait_closed()
                    self.account.note(self.name, "lost its connection")
                self._bound.clear()
                self._line = None
                await line.hang_up()
                await asyncio.sleep(self._run.rng.uniform(0.0, MAX_RECONNECT_S))
        finally:
            if line is not None:
                await line.hang_up()

    async def _resume(self, line: _Line) -> None:
        """Take up the session.

        Raises:
            ConnectionError: the server asks to come again.
        """
        params = dict(self._credentials)
        cursor = self.account.cursors.get(self.name)
        if cursor is not None:
            params |= {"last_seq": cursor.last, "epoch": cursor.epoch}
        line.session = self._credentials
        self._line = line
        self._least_incarnation = self.account.incarnation
        reply = await line.request("session.resume", params)
        if reply["status"] == "error":
            if is_final(reply):
                self.account.broken(f"the session was not resumed: {reply['error']}", self.name)
            raise ConnectionError(reply["error"]["code"])

    def _frame(self, line: _Line, frame: dict[str, Any]) -> None:
        """Enter a frame into the account. Runs as frames come, so their order is kept."""
        if line is not self._line or self._run.failure.done():
            return
        try:
            if frame["type"] == "request":
                self.account.push(self.name, frame)
            elif frame["method"] == "session.resume":
                if frame["status"] == "success":
                    self.account.resumed(self.name, frame["result"], self._least_incarnation)
            elif frame["status"] != "pending":
                self.account.reply(self.name, frame, line.generation)
        except BaseException as error:  # noqa: BLE001 - it belongs to the run, not to the reader
            self._run.fail(error)

    async def ask(self, asked: Asked, *, again: bool = False) -> dict[str, Any]:
        """Send a request, with the same id after every loss, until it is answered.

        Args:
            asked: the request.
            again: send it even if it was answered: in another tab, or kept for resume.
        """
        while True:
            await self._bound.wait()
            if asked.answer is not None and not again:
                return asked.answer
            line = self._line
            assert line is not None
            self.account.sent(self.name, asked, line.generation)
            try:
                reply = await line.request(asked.method, asked.params, id=asked.id)
            except TimeoutError:
                self.account.broken(f"no answer within {TIMEOUT_S:g} s", asked.id)
            except LOST:
                await asyncio.sleep(0.01)
                continue
            if is_final(reply):
                return reply
            wait_s = (reply["error"].get("retry_after_ms") or 100) / 1000
            await asyncio.sleep(min(MAX_WAIT_S, wait_s))

    def cut(self) -> bool:
        """Lose the connection by the client's own doing; False if there is none."""
        if self._line is None or not self._bound.is_set():
            return False
        self._line.cut()
        return True


class Session:
    """One session, its tabs, and what is done at them.

    Args:
        run: what all tabs share.
        account: of this session.
        tabs: one or two.
    """

    def __init__(self, run: Run, account: Account, tabs: list[Tab]) -> None:
        self.account = account
        self.tabs = tabs
        self._run = run
        self._crash_at = time.monotonic() + run.rng.uniform(1.0, FIRST_CRASH_S)

    async def work(self, tab: Tab, number: int) -> None:
        """Ask for one thing after the other until the run is over."""
        run, rng, account = self._run, self._run.rng, self.account
        count = 0
        while not run.over.is_set():
            count += 1
            method = self._choose()
            request_id = f"{tab.name}{number}-{count}"
            params = self._params(method, request_id)
            asked = account.ask(request_id, method, params, changes=method not in LOOKING)
            if len(self.tabs) > 1 and rng.random() < SAME_ID_SHARE:
                await asyncio.gather(*(each.ask(asked, again=True) for each in self.tabs))
            else:
                await tab.ask(asked, again=bool(rng.getrandbits(1)))
            if rng.random() < CUT_SHARE and tab.cut():
                run.cuts += 1
            await asyncio.sleep(rng.expovariate(1 / run.think_s))

    def _choose(self) -> str:
        if time.monotonic() > self._crash_at:
            self._crash_at = time.monotonic() + CRASH_EVERY_S
            return "debug.incr_then_crash"
        return self._run.rng.choices(list(WORK), list(WORK.values()))[0]

    def _params(self, method: str, request_id: str) -> dict[str, Any]:
        rng = self._run.rng
        if method == "debug.push":
            count = rng.randint(1, 3)
            return {"method": "fruit.note", "params": {ABOUT: request_id}, "count": count}
        if method == "debug.state_set":
            return {"key": "text", "value": "x" * rng.randint(10, 5000)}
        if method == "debug.sleep":
            return {"seconds": round(rng.uniform(0.0, 0.3), 3)}
        return {} if method == "session.info" else {"key": rng.choice(KEYS)}
