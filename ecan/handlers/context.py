"""What a handler sees: `UserContext` in a session, `ConnectionContext` before login.

Handlers know nothing of actors, sockets or stores. `get_handler_context` gives the
context of the running request from anywhere in it, worker threads included.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from ecan.handlers.documents import CurrentUser, Work
from ecan.handlers.state import READS_ONLY, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ecan.handlers.ports import Server, SessionPort
    from ecan.handlers.registry import MethodSpec

T = TypeVar("T")


current_context: ContextVar[HandlerContext] = ContextVar("ecan_handler_context")


def get_handler_context() -> HandlerContext:
    """The context of the request that runs here.

    Runs on: loop and worker threads of a handler; not in `isolation="process"`.

    Raises:
        LookupError: called outside of a handler.
    """
    try:
        return current_context.get()
    except LookupError:
        raise LookupError(
            "get_handler_context() works only while a handler runs. Pass the context on "
            "to threads you start yourself: contextvars.copy_context().run(function)"
        ) from None


@attrs.frozen(kw_only=True)
class User:
    """Who is logged in.

    ``role`` is the account's; ``machine_role`` is what the client asked for.
    """

    user_id: int
    username: str
    role: str = "user"
    email: str = ""
    name: str = ""
    lang: str = "en"
    machine_role: str = ""

    def as_row(self) -> dict[str, Any]:
        """As the store keeps it: every field."""
        return {
            "user_id": self.user_id,
            "username": self.username,
            "role": self.role,
            "email": self.email,
            "name": self.name,
            "lang": self.lang,
            "machine_role": self.machine_role,
        }

    def public(self) -> dict[str, Any]:
        """As `user_info` of login."""
        return {name: value for name, value in self.as_row().items() if name != "user_id"}


class HandlerContext:
    """What every handler has, in a session or before login.

    Attributes:
        server: the server's own services (status, registry, sessions).
        method: of the running request.
        request_id: of the running request.
    """

    __slots__ = ("method", "request_id", "server")

    def __init__(self, server: Server, method: str, request_id: str) -> None:
        self.server = server
        self.method = method
        self.request_id = request_id

    @property
    def user(self) -> User:
        """Who is logged in.

        Raises:
            LookupError: nobody is; the method runs before login.
        """
        raise LookupError(f"{self.method} runs before login: there is no user")


class ConnectionContext(HandlerContext):
    """The context of a request at the lobby: no session (yet).

    Attributes:
        address: of the client.
        user_agent: of the client.
        session_id: as the request brought it, or None. Secret.
        token: as the request brought it, or None. Secret.
        params: as the request brought them. Not checked, and perhaps secret.
        after_reply: functions the gateway calls right after the reply has left, in
            order: that is how login and resume bind the connection.
    """

    __slots__ = (
        "address",
        "after_reply",
        "connection",
        "params",
        "session_id",
        "token",
        "user_agent",
    )

    def __init__(
        self,
        server: Server,
        method: str,
        request_id: str,
        *,
        address: str,
        user_agent: str,
        session_id: str | None,
        token: str | None,
        connection: Any = None,
        params: Any = None,
    ) -> None:
        super().__init__(server, method, request_id)
        self.address = address
        self.user_agent = user_agent
        self.session_id = session_id
        self.token = token
        self.connection = connection
        self.params = params
        self.after_reply: list[Callable[[], None]] = []


class UserContext(HandlerContext):
    """The context of one request in a session.

    Everything done through it happens with the request's commit or not at all (P4),
    except `progress` and `call`, whose frames leave at once.

    Attributes:
        session: the session itself: info, other sessions of the user, cancel, close.
        incarnation: which life of the session's actor runs this.
        deadline_mono: loop time at which the request is answered TIMEOUT.
        pushes: (method, params) to leave with the commit.
        end_reason: the session ends with this request's answer, and why.
        renewed: the one token of the session from this request's commit on.
        used_state: as `state`, None if it was not looked at.
        used_documents: as `documents`, None if none was touched.
    """

    __slots__ = (
        "_cancelled",
        "_slots",
        "_spec",
        "deadline_mono",
        "end_reason",
        "incarnation",
        "pushes",
        "renewed",
        "session",
        "used_documents",
        "used_state",
    )

    def __init__(
        self,
        server: Server,
        spec: MethodSpec,
        request_id: str,
        *,
        session: SessionPort,
        slots: Mapping[str, bytes],
        incarnation: int,
        deadline_mono: float,
    ) -> None:
        # The base's assignments, without the call: this runs for every request.
        self.server = server
        self.method = spec.name
        self.request_id = request_id
        self.session = session
        self.incarnation = incarnation
        self.deadline_mono = deadline_mono
        self.pushes: list[tuple[str, Any]] = []
        self.end_reason: str | None = None
        self.renewed: Any = None
        self._spec = spec
        self._slots = slots
        self.used_state: State | None = None
        self.used_documents: Work | None = None
        self._cancelled = False

    @property
    def user(self) -> CurrentUser:  # type: ignore[override]  # has all of User
        """Who is logged in, and their documents: ``ctx.user.collection("notes")``."""
        return CurrentUser(self.session.user, self)

    @property
    def state(self) -> State:
        """The session's named slots; read-only in `concurrent` methods."""
        state = self.used_state
        if state is None:  # many requests never ask for it
            spec = self._spec
            state = self.used_state = State(
                self._slots, locked=spec.locked, migrations=spec.migrations
            )
        return state

    @property
    def documents(self) -> Work:
        """What this request has read and written of the user's documents."""
        if self.used_documents is None:
            self.used_documents = Work(READS_ONLY if self._spec.reads else None)
        return self.used_documents

    @property
    def sid(self) -> str:
        """The session's public id."""
        return self.session.sid

    @property
    def cancelled(self) -> bool:
        """Whether the request was cancelled or timed out; a blocking handler may look and stop.

        Runs on: any thread.
        """
        return self._cancelled

    def mark_cancelled(self) -> None:
        """Called by the session when the request's answer has been given without the handler."""
        self._cancelled = True

    def slot(self, name: str, type_: type[T]) -> T:
        """A typed state slot: the live object, made with ``type_()`` if the slot is empty.

        Raises:
            SlotError: what is stored does not fit the type.
        """
        return self.state.slot(name, type_)

    def push(self, method: str, params: Any = None) -> None:
        """Send a push to every tab of the session when this request commits.

        Runs on: loop or worker thread.

        Raises:
            RuntimeError: the method is declared ``reads=True``.
        """
        if self._spec.reads:
            raise RuntimeError(f"{READS_ONLY}: it cannot push")
        self.pushes.append((method, params))

    def progress(self, result: Any) -> None:
        """Send a `pending` frame to the asking tab at once.

        Runs on: loop or worker thread. Dropped if the tab is gone.
        """
        self.session.progress(self, result)

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = None) -> Any:
        """Ask the browser and await its answer.

        The asking tab is asked if it is still there, else all tabs; the first answer counts.

        Args:
            method: what the browser app understands, for example ``ui.ask``.
            params: JSON-able.
            timeout_s: seconds; None: until the request's own deadline.

        Raises:
            HandlerError: CLIENT_GONE, CLIENT_TIMEOUT, or the client's own error.
        """
        return await self.session.call(self, method, params, timeout_s)

    def call_blocking(
        self, method: str, params: Any = None, *, timeout_s: float | None = None
    ) -> Any:
        """`call` for handlers in worker threads."""
        return asyncio.run_coroutine_threadsafe(
            self.call(method, params, timeout_s=timeout_s), self.server.loop
        ).result()
