"""A server's sessions without sockets: fake tabs, the memory store, real actors.

`a_world` starts a `SessionService`; `World.open` logs in and gives a `Tab`, which sends
requests as the router does. At the end the world checks what holds after every test:
no request got two answers (P3), and no task is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import orjson
from handlers_kit import TIMEOUT_S, kit_handlers
from stores_kit import KitStore

from ecan.actors import Directory, Environment, PoisonGuard, SessionService
from ecan.actors.call import Call
from ecan.actors.cell import Cell
from ecan.actors.ledger import fingerprint
from ecan.actors.messages import OpenSession
from ecan.config import Settings
from ecan.errors import HandlerError, ReplyError
from ecan.handlers import debug, session, settings
from ecan.handlers.context import ConnectionContext, User
from ecan.handlers.registry import Registry
from ecan.observability import Metrics
from ecan.protocol.frames import Request
from ecan.runtime import LoopClock, ProcessLane, StallWatchdog, WorkerThreads
from ecan.store import Ended, LetterRow

T0 = 1_700_000_000.0

_peer_ids = itertools.count(1)
_request_ids = itertools.count(1)


class FakePeer:
    """The other end of a connection: keeps what it is sent."""

    def __init__(self) -> None:
        self.id = next(_peer_ids)
        self.address = "127.0.0.1"
        self.user_agent = "test"
        self.connected_at = T0
        self.is_open = True
        self.backlog_bytes = 0
        self.sent_bytes = 0
        self.frames: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self._changed = asyncio.Event()

    def send(self, frame: bytes) -> bool:
        if self.is_open:
            self.sent_bytes += len(frame)
            self.frames.append(orjson.loads(frame))
            self._changed.set()
        return self.is_open

    def send_all(self, frames: list[bytes]) -> None:
        for frame in frames:
            self.send(frame)

    def close(self, code: int, reason: str) -> None:
        self.closed = (int(code), reason)
        self.is_open = False

    def finals(self, request_id: str) -> list[dict[str, Any]]:
        """Final responses to a request."""
        return [
            frame
            for frame in self.frames
            if frame["type"] == "response"
            and frame["id"] == request_id
            and frame["status"] != "pending"
        ]

    def pending(self) -> list[Any]:
        """What `pending` frames carried."""
        return [frame["result"] for frame in self.frames if frame.get("status") == "pending"]

    def pushes(self, method: str | None = None) -> list[dict[str, Any]]:
        return [
            frame
            for frame in self.frames
            if frame["type"] == "request" and method in (None, frame["method"])
        ]

    async def until(self, found: Callable[[], Any]) -> Any:
        """Wait until a frame made it true."""
        async with asyncio.timeout(TIMEOUT_S * 100_000):  # simulated time runs far ahead
            while not (value := found()):
                self._changed.clear()
                await self._changed.wait()
        return value


class Tab:
    """A connection bound to a session."""

    def __init__(
        self,
        world: World,
        cell: Cell,
        session_id: str = "",
        token: str = "",
        *,
        bound: bool = True,
    ) -> None:
        self.world = world
        self.cell = cell
        self.session_id = session_id
        self.token = token
        self.peer = FakePeer()
        self.connection = FakeConnection(self)
        if bound:
            world.sessions.attach(cell, self.peer)  # type: ignore[arg-type]

    def leave(self) -> None:
        """The connection is lost."""
        self.peer.is_open = False
        self.world.sessions.detach(self.cell, self.peer)  # type: ignore[arg-type]

    def another(self) -> Tab:
        """A second connection of the same session."""
        return Tab(self.world, self.cell, self.session_id, self.token)

    def send(
        self,
        method: str,
        params: Any = None,
        *,
        id: str | None = None,  # noqa: A002 - as `Client`
        deadline_s: float | None = None,
        size_bytes: int = 100,
        cancel_on_disconnect: bool = False,
    ) -> str:
        """Put a request into the session's mailbox, as the router does."""
        world = self.world
        request_id = id or f"r{next(_request_ids)}"
        spec = world.registry.get(method)
        assert spec is not None, method
        request = Request(
            request_id,
            method,
            params,
            size_bytes=size_bytes,
            cancel_on_disconnect=cancel_on_disconnect,
        )
        if world.guard.is_suspended(method):
            raise ReplyError("METHOD_SUSPENDED", world.guard.suspended[method])
        now = world.clock.mono()
        timeout_s = deadline_s or spec.timeout_s or world.settings.request_timeout_s
        call = Call(
            request,
            spec,
            spec.structure(params),
            fingerprint(method, params),
            self.peer,  # type: ignore[arg-type]
            now,
            now + timeout_s,
        )
        self.cell.accept(call)
        world.accepted.append((self.peer, request_id))
        return request_id

    async def reply(self, request_id: str) -> dict[str, Any]:
        """The final response."""
        frames = await self.peer.until(lambda: self.peer.finals(request_id))
        return frames[-1]

    async def request(self, method: str, params: Any = None, **options: Any) -> dict[str, Any]:
        peer = self.peer
        before = len(peer.finals(options["id"])) if "id" in options else 0
        request_id = self.send(method, params, **options)
        await peer.until(lambda: len(peer.finals(request_id)) > before)
        return peer.finals(request_id)[-1]

    async def call(self, method: str, params: Any = None, **options: Any) -> Any:
        frame = await self.request(method, params, **options)
        assert frame["status"] == "success", frame
        return frame["result"]

    async def error(self, method: str, params: Any = None, **options: Any) -> dict[str, Any]:
        frame = await self.request(method, params, **options)
        assert frame["status"] == "error", frame
        return frame["error"]

    async def push(self, method: str, count: int = 1) -> list[dict[str, Any]]:
        await self.peer.until(lambda: len(self.peer.pushes(method)) >= count)
        return self.peer.pushes(method)

    def answer(self, push: dict[str, Any], result: Any = None, error: Any = None) -> None:
        """Answer a push that asked, as the router passes it on."""
        future = self.cell.asks[push["id"]].future
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(HandlerError(error, "the client's own words"))


@attrs.define(eq=False)
class FakeConnection:
    """What the lobby's handlers bind."""

    tab: Tab
    bound: Any = None

    @property
    def peer(self) -> FakePeer:
        return self.tab.peer

    def bind(self, bound: Any) -> None:
        self.bound = bound
        self.tab.cell = bound.cell
        self.tab.world.sessions.attach(bound.cell, self.peer)  # type: ignore[arg-type]


class FakeServer:
    """As handlers see the server."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.loop = asyncio.get_running_loop()
        self.settings = world.settings
        self.registry = world.registry
        self.sessions = world.sessions
        self.accounts = None
        self.draining = False

    def status(self) -> dict[str, Any]:
        return {}

    def is_draining(self) -> bool:
        return self.draining


class World:
    """All parts of the sessions' core."""

    def __init__(
        self, functions: tuple[Callable[..., Any], ...], store: Any, options: dict[str, Any]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.settings = Settings(mode="web", debug_methods=True, **options)
        # The wall's clock goes with the loop's, simulated or not.
        self.clock = LoopClock(loop, wall=lambda: T0 + loop.time())
        self.registry = Registry(
            [
                *debug.HANDLERS,
                *session.HANDLERS,
                *settings.HANDLERS,
                *kit_handlers(self),
                *functions,
            ]
        )
        self.metrics = Metrics()
        self.store: Any = store if store is not None else KitStore()
        self.guard = PoisonGuard()
        self.directory = Directory()
        self.sessions = SessionService(self.directory, self.guard, self.metrics)
        self.workers = WorkerThreads(256)
        self.processes = ProcessLane(1)
        self.observed: list[tuple[str, str]] = []
        self.server = FakeServer(self)
        self.env = Environment(
            loop=loop,
            clock=self.clock,
            settings=self.settings,
            store=self.store,
            server=self.server,  # type: ignore[arg-type]
            workers=self.workers,
            processes=self.processes,
            watchdog=StallWatchdog(loop),
            observe=lambda call, status: self.observed.append((call.id, status)),
            tell_supervisor=self.sessions.tell_supervisor,
            describe=self.sessions.describe,
            expires_in_s=self.sessions.expires_in_s,
        )
        self.accepted: list[tuple[FakePeer, str]] = []
        self.ran: list[Any] = []
        self.gates: dict[str, threading.Event] = {}
        self.async_gates: dict[str, asyncio.Event] = {}
        self.started: dict[str, asyncio.Event] = {}

    # -- sessions --------------------------------------------------------------------

    async def open(self, user_id: int = 1, **user: Any) -> Tab:
        """Log in."""
        reply = asyncio.get_running_loop().create_future()
        username = user.pop("username", f"user{user_id}")
        self.sessions.tell_supervisor(
            OpenSession(User(user_id=user_id, username=username, **user), reply)
        )
        opened = await reply
        return Tab(self, opened.cell, opened.session_id, opened.token)

    def lobby(self, tab: Tab | None = None, **credentials: Any) -> ConnectionContext:
        """The context of a request before login."""
        return ConnectionContext(
            self.server,  # type: ignore[arg-type]
            "session.resume",
            "1",
            address="",
            user_agent="",
            session_id=credentials.get("session_id"),
            token=credentials.get("token"),
            connection=tab.connection if tab is not None else None,
        )

    async def come_back(self, tab: Tab) -> Tab:
        """A new connection with the session's credentials."""
        bound = await self.sessions.authenticate(tab.session_id, tab.token)
        return Tab(self, bound.cell, tab.session_id, tab.token)

    async def resume(
        self, tab: Tab, *, last_seq: int | None = None, epoch: str | None = None
    ) -> tuple[dict[str, Any], Tab]:
        """A new tab resumes the session, as the lobby does it."""
        back = Tab(self, tab.cell, tab.session_id, tab.token, bound=False)
        ctx = self.lobby(back, session_id=tab.session_id, token=tab.token)
        answer = await self.sessions.resume(ctx, last_seq, epoch)
        for follow_up in ctx.after_reply:
            follow_up()
        return answer, back

    async def at_rest(self, tab: Tab) -> None:
        """The tab leaves and its session leaves memory."""
        tab.leave()
        await asyncio.sleep(self.settings.passivate_detached_after_s + 20)
        assert self.directory.get(tab.cell.sid) is None

    async def until_gone(self, tab: Tab) -> None:
        """The store has no such session any more."""
        while not isinstance(await self.store.load(tab.cell.sid), Ended):
            await asyncio.sleep(1)

    async def letters(self) -> list[LetterRow]:
        """Dead letters, the newest first."""
        return list(await self.store.letters(100))

    async def state(self, cell: Cell, state: str) -> None:
        """Wait until a session is in that state."""
        await self.until(lambda: cell.state == state)

    async def until(self, found: Callable[[], Any]) -> Any:
        """Wait for a condition that no frame tells of."""
        for _ in range(20_000):
            if value := found():
                return value
            await asyncio.sleep(0.001)
        raise AssertionError("the condition never came true")

    # -- what the kit's handlers wait for --------------------------------------------

    def gate(self, name: str) -> threading.Event:
        """Threads wait for it."""
        return self.gates.setdefault(name, threading.Event())

    def async_gate(self, name: str) -> asyncio.Event:
        """Coroutines wait for it."""
        return self.async_gates.setdefault(name, asyncio.Event())

    def has_started(self, name: str) -> asyncio.Event:
        """Set when a handler with this name runs."""
        return self.started.setdefault(name, asyncio.Event())

    def note_started(self, name: str) -> None:
        self.env.loop.call_soon_threadsafe(self.has_started(name).set)

    # -- checks ----------------------------------------------------------------------

    def check_one_answer_each(self) -> None:
        """Every accepted request has got exactly one final response (P3)."""
        wrong = {
            request_id: peer.finals(request_id)
            for peer, request_id in self.accepted
            if len(peer.finals(request_id)) != 1
        }
        assert wrong == {}

    def check_no_two_answers(self) -> None:
        for peer, request_id in self.accepted:
            finals = [f for f in peer.finals(request_id) if not f["meta"]["replayed"]]
            assert len(finals) <= self.accepted.count((peer, request_id)), finals


@contextlib.asynccontextmanager
async def a_world(
    *functions: Callable[..., Any], store: Any = None, **settings: Any
) -> AsyncIterator[World]:
    """A running world; ``functions`` are handlers of the test's own."""
    before = asyncio.all_tasks()
    world = World(functions, store, settings)
    world.sessions.start(world.env)
    try:
        yield world
        world.check_no_two_answers()
    finally:
        for gate in world.gates.values():
            gate.set()
        for async_gate in world.async_gates.values():
            async_gate.set()
        if isinstance(world.store, KitStore):
            world.store.release()
        world.sessions.stop()
        await world.processes.stop()
        world.workers.stop()
        for _ in range(10):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=5)
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        assert left == set(), left
