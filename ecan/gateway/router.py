"""The way of a frame from a connection to a session's mailbox. Never waits.

bytes ─▶ decode ─▶ which session? ─▶ method, role, guard ─▶ rate ─▶ params ─▶ mailbox
                        │ none                          any refusal: an error reply
                        └────────▶ lobby
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.actors.binding import Bound, invalid_token
from ecan.actors.call import Call
from ecan.actors.ledger import fingerprint
from ecan.actors.lifecycle import State
from ecan.actors.refusals import closed_error
from ecan.actors.tokens import digest
from ecan.errors import HandlerError, ReplyError
from ecan.gateway.ratelimit import TokenBucket
from ecan.handlers.registry import ROLES, Scope
from ecan.observability import get_logger, tracing
from ecan.protocol.codec import FrameError, decode, encode_error
from ecan.protocol.codes import CloseCode, ErrorCode
from ecan.protocol.frames import Answer

if TYPE_CHECKING:
    import asyncio

    from ecan.actors.guard import PoisonGuard
    from ecan.actors.sessions import SessionService
    from ecan.config import Settings
    from ecan.gateway.connection import Connection
    from ecan.gateway.lobby import Lobby
    from ecan.handlers.registry import MethodSpec, Registry
    from ecan.observability import Metrics
    from ecan.protocol.frames import Request
    from ecan.runtime import Clock

MAX_BACKLOG = 64
"""Frames of one connection that wait while its session is fetched from the store."""

log = get_logger("ecan.router")

# Looked up once: the attribute of an enum costs four times a global.
_CONNECTION = Scope.CONNECTION

_ROLE_RANK: dict[str, int] = {role: rank for rank, role in enumerate(ROLES)}


class Router:
    """Decides where each frame goes."""

    def __init__(
        self,
        registry: Registry,
        sessions: SessionService,
        guard: PoisonGuard,
        lobby: Lobby,
        settings: Settings,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._guard = guard
        self._lobby = lobby
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False

    def new_bucket(self) -> TokenBucket:
        """A full bucket with the configured rate, for a connection or a session."""
        limit = self._settings.rate_limit
        return TokenBucket(limit.rate_per_s, limit.burst, self._clock.mono())

    def receive(self, connection: Connection, data: bytes) -> None:
        """One text frame came in. Runs on: the loop."""
        metrics = self._metrics
        metrics.frames_in += 1
        metrics.bytes_in += len(data)
        now = connection.last_frame_mono = self._clock.mono()
        try:
            frame = decode(data)
        except FrameError as error:
            self._bad_frame(connection, data, error, now)
            return
        if type(frame) is Answer:
            self._answered(connection, frame)
            return
        request: Request = frame  # type: ignore[assignment]
        if tracing.active is not None:
            request.trace = tracing.active.begin(request.id, request.traceparent, now)
        if connection.backlog is not None:
            self._wait(connection, request)
            return
        self._route(connection, request, now)

    def _route(self, connection: Connection, request: Request, now: float) -> None:
        try:
            spec = self._registry.specs.get(request.method)  # `get`, without the call
            if spec is None:
                self._throttle(connection.bucket, now)
                raise _no_method(request.method)
            bound = connection.bound
            if spec.scope is _CONNECTION:
                self._throttle(connection.bucket, now)
                self._lobby.run(connection, request, spec)
                return
            if bound is not None and (
                request.session_id is None or request.session_id == connection.session_id
            ):
                if request.token is not None and request.token != connection.token:
                    bound = self._other_token(connection, bound, request.token)
                token = bound.token
                if token.revoked or token.expires_at <= self._clock.now():
                    raise self._dead_token(bound)
                self._deliver(connection, request, spec, bound, now)
                return
            self._bind_and_deliver(connection, request, spec, now)
        except ReplyError as error:
            self.refuse(connection, request, error)

    def _deliver(
        self,
        connection: Connection,
        request: Request,
        spec: MethodSpec,
        bound: Bound,
        now: float,
    ) -> None:
        cell = bound.cell
        bucket = cell.bucket
        if bucket is None:
            bucket = cell.bucket = self.new_bucket()
        wait_s = bucket.take(now)
        if wait_s:
            raise _too_fast(bucket, wait_s)
        if spec.role is not None and _ROLE_RANK[cell.user.role] < _ROLE_RANK[spec.role]:
            raise ReplyError(ErrorCode.FORBIDDEN, f"{spec.name} needs the role {spec.role}.")
        if self._guard.suspended and spec.name in self._guard.suspended:
            raise ReplyError(
                ErrorCode.METHOD_SUSPENDED,
                f"{spec.name} is switched off: {self._guard.suspended[spec.name]}.",
                retry_after_ms=60_000,
            )
        if self.draining and not (spec.control and spec.reads):
            raise _draining()
        params = request.params
        if params is not None:
            params = request.params = spec.without_credentials(params)
        print_ = fingerprint(spec.name, params)
        if params is not None or spec.params_type is not None:
            params = spec.structure(params)
        if request.deadline_ms is not None:
            timeout_s = request.deadline_ms / 1000
        else:
            timeout_s = spec.timeout_s or self._settings.request_timeout_s
        if request.trace is not None:
            request.trace.accepted(spec.name, cell.sid)
        cell.accept(Call(request, spec, params, print_, connection, now, now + timeout_s))

    def _throttle(self, bucket: TokenBucket, now: float) -> None:
        wait_s = bucket.take(now)
        if wait_s:
            raise _too_fast(bucket, wait_s)

    # -- which session ---------------------------------------------------------------

    def _other_token(self, connection: Connection, bound: Bound, token: str) -> Bound:
        """The request brings another token than the last one: check and remember it."""
        if bound.cell.state is State.CLOSED:
            raise closed_error(bound.cell.close_reason)
        record = bound.cell.tokens.find(token, self._clock.now())
        if record is None:
            raise invalid_token()
        connection.token = token
        connection.bound = bound = Bound(bound.cell, record)
        return bound

    @staticmethod
    def _dead_token(bound: Bound) -> ReplyError:
        if bound.cell.state is State.CLOSED:
            return closed_error(bound.cell.close_reason)
        return invalid_token()

    def _bind_and_deliver(
        self, connection: Connection, request: Request, spec: MethodSpec, now: float
    ) -> None:
        session_id = request.session_id
        bound = connection.bound
        if session_id is None:
            if spec.scope is Scope.ANY:
                self._throttle(connection.bucket, now)
                self._lobby.run(connection, request, spec)
                return
            raise ReplyError(ErrorCode.TOKEN_REQUIRED, f"{spec.name} needs a login.")
        if bound is not None and digest(session_id) == bound.cell.key:
            if request.token is not None:
                bound = self._other_token(connection, bound, request.token)
            if not bound.token.is_valid(self._clock.now()):
                raise self._dead_token(bound)
            connection.session_id = session_id
            self._deliver(connection, request, spec, bound, now)
            return
        self._throttle(connection.bucket, now)
        found = self._sessions.lookup(session_id, request.token)
        if found is None:
            connection.backlog = [request]
            self._spawn(self._fetch(connection, session_id, request.token))
            return
        self._bind(connection, found, session_id, request.token)
        self._deliver(connection, request, spec, found, now)

    @staticmethod
    def _bind(connection: Connection, bound: Bound, session_id: str, token: str | None) -> None:
        connection.bind(bound)
        connection.session_id = session_id
        connection.token = token

    def _wait(self, connection: Connection, request: Request) -> None:
        backlog = connection.backlog
        assert backlog is not None  # noqa: S101 - only called while there is one
        if len(backlog) >= MAX_BACKLOG:
            self.refuse(
                connection,
                request,
                ReplyError(ErrorCode.BUSY, "The session is being loaded.", retry_after_ms=200),
            )
            return
        backlog.append(request)

    async def _fetch(self, connection: Connection, session_id: str, token: str | None) -> None:
        """The session rests in the store: fetch it, then go on with what waits, in order."""
        error: ReplyError | None = None
        try:
            bound = await self._sessions.authenticate(session_id, token)
            if connection.is_open:
                self._bind(connection, bound, session_id, token)
        except ReplyError as refused:
            error = refused
        except Exception as problem:
            log.error("session.load_failed", exc_info=problem)  # noqa: TRY400 - the same
            error = ReplyError(
                ErrorCode.BUSY, "The session cannot be loaded now.", retry_after_ms=1000
            )
        waiting, connection.backlog = connection.backlog or [], None
        if error is not None and waiting:
            self.refuse(connection, waiting.pop(0), error)
        for request in waiting:
            if connection.backlog is not None:
                self._wait(connection, request)
            else:
                self._route(connection, request, self._clock.mono())

    def _spawn(self, coroutine: Any) -> None:
        import asyncio  # noqa: PLC0415 - only sessions that rest in the store need it

        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the rest --------------------------------------------------------------------

    def _answered(self, connection: Connection, answer: Answer) -> None:
        """A browser answered a push; only those that asked are waiting."""
        bound = connection.bound
        if bound is None or not bound.cell.asks:
            return
        ask = bound.cell.asks.get(answer.id)
        if ask is None or ask.future.done():
            return
        if not bound.token.is_valid(self._clock.now()):
            return
        if answer.ok:
            ask.future.set_result(answer.result)
        else:
            error = answer.error if type(answer.error) is dict else {}
            ask.future.set_exception(
                HandlerError(
                    str(error.get("code", "CLIENT_ERROR"))[:100],
                    str(error.get("message", "The client answered with an error."))[:1000],
                )
            )

    def _bad_frame(
        self, connection: Connection, data: bytes, error: FrameError, now: float
    ) -> None:
        if error.code is ErrorCode.PARSE_ERROR:
            try:
                bytes(data).decode()
            except UnicodeDecodeError:
                # RFC 6455 §8.1: a text frame that is not UTF-8 fails the connection.
                connection.close(CloseCode.INVALID_DATA, "A text frame must be UTF-8.")
                return
        self.reject(connection, error.id, error.code, error.message, now)

    def reject(
        self, connection: Connection, frame_id: str, code: ErrorCode, message: str, now: float
    ) -> None:
        """Answer a frame that is no request; too many of them end the connection."""
        self._metrics.rejected(code)
        if connection.bucket.take(now):
            connection.close(CloseCode.POLICY_VIOLATION, "Too many bad frames.")
            return
        connection.send(
            encode_error(
                frame_id,
                "",
                ReplyError(code, message),
                {},
                int(self._clock.now() * 1000),
            )
        )

    def refuse(self, connection: Connection, request: Request, error: ReplyError) -> None:
        """Answer a request that was not accepted."""
        self._metrics.rejected(error.code)
        if request.trace is not None:
            request.trace.end(error.code)
        if error.code == ErrorCode.RATE_LIMITED:
            connection.refused()
        bound = connection.bound
        meta: dict[str, Any] = {"replayed": False, "queue_ms": 0.0, "run_ms": 0.0}
        if bound is not None:
            meta["sid"] = bound.cell.sid
            meta["incarnation"] = bound.cell.incarnation
        connection.send(
            encode_error(request.id, request.method, error, meta, int(self._clock.now() * 1000))
        )


def _no_method(name: str) -> ReplyError:
    return ReplyError(
        ErrorCode.METHOD_NOT_FOUND,
        f"There is no method {name!r}; rpc.discover lists them all.",
    )


def _too_fast(bucket: TokenBucket, wait_s: float) -> ReplyError:
    return ReplyError(
        ErrorCode.RATE_LIMITED,
        f"More than {bucket.rate:g} requests per second; slow down.",
        retry_after_ms=max(1, round(wait_s * 1000)),
    )


def _draining() -> ReplyError:
    return ReplyError(
        ErrorCode.DRAINING, "The server is restarting; reconnect.", retry_after_ms=2000
    )
