"""A session seen from its client: requests under way, reconnects, checks of every frame."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from typing import TYPE_CHECKING, Any

import orjson

from ecan.loadtest.checks import SessionChecks
from ecan.loadtest.plan import READ_BACK
from ecan.loadtest.recorder import RECONNECT
from ecan.loadtest.requests import Pending, Reply, Template
from ecan.loadtest.wire import Wire, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.loadtest.plan import Call
    from ecan.loadtest.world import World

MAX_UNDER_WAY = 200
"""Of one user: below ECAN_MAILBOX_SIZE, so that what is BUSY is the server's own doing."""

FIRST_RETRY_S, MAX_RETRY_S = 0.05, 1.0
"""Before connecting again; doubling, jittered."""

ARRIVAL_PATIENCE_S = 120.0
"""How long to be told to come later, before the plan starts."""

LEAST_REJECTING_CODE = 4500
"""Close codes from here on say: do not come back (CONTRACT §2)."""

NO_PHASE = -1

_GONE = frozenset(
    {"SESSION_NOT_FOUND", "SESSION_EXPIRED", "SESSION_CLOSED", "INVALID_TOKEN", "TOKEN_REQUIRED"}
)


class Session:
    """One session and the one connection of it.

    Args:
        world: what all users share.
        number: of the user.
        session: credentials, if there are some already.
        account: name and password to log in with.

    Attributes:
        under_way: requests without their final answer, oldest first.
        connected: requests can be written now.
        dead: the session ended under its user.
        checks: what it has been told so far.
    """

    def __init__(
        self,
        world: World,
        number: int,
        session: dict[str, str] | None = None,
        account: tuple[str, str] | None = None,
    ) -> None:
        self.number = number
        self.random = random.Random(world.seed * 1_000_003 + number)  # noqa: S311 - repeatable
        self.under_way: dict[int, Pending] = {}
        self.connected = False
        self.dead = False
        self.checks = self._new_checks(world, fresh=True)
        self._world = world
        self._credentials: dict[str, str] = session or {}
        self._account = account or ("", "")
        # Ids are unique per session (P10), whoever used it before.
        self._prefix = secrets.token_hex(4) + "-"
        self._templates: dict[int, Template] = {}
        self._next = 0
        self._resent: dict[int, int] = {}
        self._known = False
        self._leaving = False
        self._wire: Wire | None = None
        self._returning: asyncio.Task[None] | None = None

    def _new_checks(self, world: World, *, fresh: bool) -> SessionChecks:
        return SessionChecks(world.violations, f"user {self.number}", fresh=fresh)

    @property
    def settled(self) -> bool:
        """Nothing is under way, and the connection is not about to be made again."""
        return not self.under_way and (self._returning is None or self._returning.done())

    # -- before and after the plan -------------------------------------------------------

    async def arrive(self) -> None:
        """Connect and resume, or log in when there are no credentials.

        Raises:
            WireError: that did not work.
        """
        await self._open_wire()
        name, password = self._account
        method, params = "login", {"username": name, "password": password}
        if self._credentials:
            method, params = "session.resume", self._credentials
        end = time.monotonic() + ARRIVAL_PATIENCE_S
        while not (reply := await self._ask(method, params, self._bound)).ok:
            error = reply.error or {}
            if not error.get("retryable") or time.monotonic() > end:
                raise WireError(f"{method}: {error.get('code')}: {error.get('message', '')}")
            await asyncio.sleep(min(MAX_RETRY_S, error.get("retry_after_ms", 500) / 1000))
        if method != "login":
            # It may have been through a run before: its counters go on.
            for key in self._world.counters:
                reply = await self._total(key)
                self.checks.start_counter(key, reply.result)
        self.connected = True

    async def verify(self) -> int:
        """Compare the counters' totals with the server's; how many were compared."""
        done = 0
        for key in list(self.checks.counters):
            if self.connected:
                reply = await self._total(key)
                if reply.ok:
                    self.checks.verify(key, reply.result)
                    done += 1
        return done

    async def _total(self, key: str) -> Reply:
        """What the server says a counter is at."""
        return await self._ask(self._world.counters.get(key, READ_BACK), {"key": key})

    async def leave(self) -> None:
        """Close, and wait for what still runs."""
        self._part()
        if self._wire is not None:
            self._wire.close()
        if self._returning is not None:
            await asyncio.gather(self._returning, return_exceptions=True)

    # -- sending -------------------------------------------------------------------------

    def fire(self, call: Call, due: float, phase: int) -> None:
        """Send a request of a mix."""
        template = self._templates.get(id(call))
        if template is None:
            template = Template(self._prefix, call.method, call.full_params, self._credentials)
            self._templates[id(call)] = template
        self._next += 1
        pending = Pending(self._next, call.method, template.frame(self._next), phase, due)
        if call.counter is not None:
            self.checks.counter(call.counter)
            pending.counter = call.counter
        self._send(pending)

    def make(self, method: str, params: Any, due: float, phase: int) -> Pending:
        """A request that is sent once."""
        self._next += 1
        template = Template(self._prefix, method, params, self._credentials)
        return Pending(self._next, method, template.frame(self._next), phase, due)

    async def _ask(
        self, method: str, params: Any, then: Callable[[Reply], None] | None = None
    ) -> Reply:
        """A request of the harness itself, which is counted nowhere.

        Raises:
            WireError: no answer.
        """
        pending = self.make(method, params, time.monotonic(), NO_PHASE)
        pending.then = then
        waiter = pending.waiter = asyncio.get_running_loop().create_future()
        self._write(pending)
        try:
            async with asyncio.timeout(self._world.timeout_s):
                reply: Reply = await waiter
        except TimeoutError:
            raise WireError(f"{method} got no answer") from None
        finally:
            self.under_way.pop(pending.number, None)
        return reply

    def _send(self, pending: Pending) -> None:
        self._world.recorder.sent(pending.phase, pending.method)
        if self.connected:
            sent = self._write(pending)
            self._world.lateness.add(max(0.0, sent - pending.due))
        elif self._leaving or self.dead:
            self._fail(pending, "NOT_CONNECTED")
        else:
            self.under_way[pending.number] = pending  # sent after the resume

    def _write(self, pending: Pending) -> float:
        self.under_way[pending.number] = pending
        sent = pending.sent = time.monotonic()
        pending.sends += 1
        if self._wire is not None:  # else it was lost a moment ago, and is sent again
            self._wire.write(pending.data)
        return sent

    def give_up(self, now: float) -> None:
        """Count what has waited too long as lost."""
        for pending in list(self.under_way.values()):
            if now - max(pending.due, pending.sent or 0.0) < self._world.timeout_s:
                break  # the rest is younger
            if pending.sent is not None and self.connected:
                self.checks.broken("P3", f"{pending.method} got no answer at all")
            self._lose(pending, "NO_ANSWER")

    def _lose(self, pending: Pending, code: str) -> None:
        self.under_way.pop(pending.number, None)
        self._resent[pending.number] = pending.sends  # a late answer is no second one
        if pending.counter is not None and pending.sends:
            self.checks.counter(pending.counter).unknown += 1
        self._fail(pending, code)

    def _fail(self, pending: Pending, code: str) -> None:
        if pending.phase >= 0:
            self._world.recorder.error(pending.phase, pending.method, code)
        self._finish(pending, Reply(False, error={"code": code}))

    @staticmethod
    def _finish(pending: Pending, reply: Reply) -> None:
        if pending.then is not None:
            pending.then(reply)
        if pending.waiter is not None and not pending.waiter.done():
            pending.waiter.set_result(reply)

    # -- frames --------------------------------------------------------------------------

    def _on_text(self, payload: bytes) -> None:
        try:
            frame = orjson.loads(payload)
            if frame["type"] == "response":
                self._response(frame)
            else:
                self._world.recorder.pushes += 1
                self.checks.push(frame.get("meta") or {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.checks.broken("frames", f"{error!r} in {payload[:200]!r}")

    def _response(self, frame: dict[str, Any]) -> None:
        request_id = frame["id"]
        if not request_id.startswith(self._prefix):
            return  # of the session's life before this run
        number = int(request_id[len(self._prefix) :])
        pending = self.under_way.get(number)
        if frame["status"] == "pending":
            self._world.recorder.pending_frames += 1
            if pending is not None and pending.waiter is not None:
                pending.parts = [*(pending.parts or ()), frame.get("result")]
        elif pending is None:
            self._again(number, frame)
        else:
            del self.under_way[number]
            self._final(pending, frame)

    def _final(self, pending: Pending, frame: dict[str, Any]) -> None:
        now = time.monotonic()
        meta = frame.get("meta") or {}
        error = (frame.get("error") or {}) if frame["status"] == "error" else None
        if pending.sends > 1:
            self._resent[pending.number] = pending.sends - 1
        self.checks.reply(
            pending.number,
            meta,
            ordered=pending.sends == 1
            and pending.method in self._world.ordered
            and (error is None or error.get("outcome") != "not_run"),
        )
        result = frame.get("result")
        recorder, method, phase = self._world.recorder, pending.method, pending.phase
        if phase < 0:
            pass
        elif error is None:
            late_s = max(0.0, (pending.sent or now) - pending.due)
            recorder.ok(phase, method, now - pending.due, late_s, meta)
            if pending.counter is not None:
                self.checks.counted(pending.counter, result)
        else:
            code = str(error.get("code"))
            recorder.error(phase, method, code, expected=code == pending.expected)
        self._finish(pending, Reply(error is None, result, error, tuple(pending.parts or ())))

    def _again(self, number: int, frame: dict[str, Any]) -> None:
        """A final answer to something that is not waited for."""
        if not 0 < number <= self._next:
            self.checks.broken("P3", f"an answer to request {number}, which was never sent")
        elif self._resent.get(number, 0) > 0:
            self._resent[number] -= 1  # asked twice, told twice
        else:
            self.checks.broken("P3", f"a second answer to request {number}: {frame['status']}")

    # -- connections ---------------------------------------------------------------------

    async def _open_wire(self) -> None:
        self._leaving = False
        self.checks.connected()
        self._wire = await Wire.connect(self._world.address, self._on_text, self._on_lost)

    def _bound(self, reply: Reply) -> None:
        """A session that is new to this client: everything starts over."""
        if reply.ok:
            self._credentials = {
                key: reply.result.get(key) or self._credentials.get(key, "")
                for key in ("session_id", "token")
            }
            fresh = "token" in reply.result  # a login, not a resume
            self.checks = self._new_checks(self._world, fresh=fresh)
            self.checks.opened(reply.result)
            self._known = True
            self._templates.clear()

    def _part(self) -> None:
        """From here on the end of the connection is our own doing."""
        self._leaving = True
        self.connected = False
        if self._returning is not None:
            # RACE: it must not come back beside a connection that is made on purpose.
            self._returning.cancel()

    def _on_lost(self, wire: Wire, code: int) -> None:
        if wire is not self._wire:
            return
        self.connected = False
        self._wire = None
        if self._leaving:
            self._lose_all("NOT_CONNECTED")
            return
        self._world.recorder.close(code)
        for pending in list(self.under_way.values()):
            if pending.phase < 0:  # the harness's own: asked anew, not sent again
                self._lose(pending, "DISCONNECTED")
        if not self._credentials:
            self._lose_all("DISCONNECTED")
        elif code >= LEAST_REJECTING_CODE:
            self._end(f"closed with {code}")
        elif self._returning is None or self._returning.done():
            self._returning = asyncio.get_running_loop().create_task(self._return())

    def _lose_all(self, code: str) -> None:
        for pending in list(self.under_way.values()):
            self._lose(pending, code)

    def _end(self, why: str) -> None:
        """The session is gone."""
        self.dead = True
        self._world.lost_sessions += 1
        if self._world.durable:
            self.checks.broken("P11", f"the session is gone: {why}")
        self._lose_all("SESSION_LOST")

    async def _return(self) -> None:
        """Connect again and resume, until it works or the session is gone."""
        lost_at = time.monotonic()
        recorder, phase = self._world.recorder, self._world.phase_now()
        recorder.sent(phase, RECONNECT)
        wait_s = FIRST_RETRY_S
        while not self._leaving and not self.dead:
            await asyncio.sleep(wait_s * self.random.uniform(0.5, 1.0))
            wait_s = min(MAX_RETRY_S, wait_s * 2)
            try:
                await self._open_wire()
                if await self._resume():
                    recorder.ok(phase, RECONNECT, time.monotonic() - lost_at)
                    return
            except WireError:
                continue
        recorder.error(phase, RECONNECT, "SESSION_LOST")

    async def _resume(self) -> bool:
        """Bind the new connection to the session; then send what was left over again.

        Raises:
            WireError: the connection is lost again, or there is no answer.
        """
        params: dict[str, Any] = dict(self._credentials)
        then = self._bound
        if self._known:
            then = self._resumed
            if self.checks.seq is not None:
                params |= {"last_seq": self.checks.seq, "epoch": self.checks.epoch}
        reply = await self._ask("session.resume", params, then)
        if reply.ok and self._wire is not None:
            self.connected = True
            for pending in list(self.under_way.values()):
                self._write(pending)
            return True
        if reply.code in _GONE:
            self._end(f"resume was answered {reply.code}")
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()
        return False

    def _resumed(self, reply: Reply) -> None:
        # RACE: what was missed follows the answer in the same read; the checks have to
        # know of the resume before the first of it.
        if reply.ok:
            self.checks.resumed(reply.result)
