"""Requests without a session: login, resume, logout, and what anybody may ask.

They run beside the sessions, so a session that is stuck or full can still be left.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

from ecan.actors.ledger import fingerprint
from ecan.errors import ReplyError
from ecan.handlers.context import ConnectionContext, current_context
from ecan.handlers.registry import Kind
from ecan.observability import get_logger
from ecan.protocol.codec import encode_error, encode_result
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from ecan.config import Settings
    from ecan.gateway.connection import Connection
    from ecan.handlers.ports import Server
    from ecan.handlers.registry import MethodSpec
    from ecan.observability import Metrics
    from ecan.protocol.frames import Request
    from ecan.runtime import Clock

MAX_RUNNING_EACH = 8
"""Waiting requests of one connection, a login with its password hash among them."""

log = get_logger("ecan.lobby")


class Lobby:
    """Runs the handlers of `Scope.CONNECTION`, and of `Scope.ANY` before login."""

    def __init__(self, server: Server, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._server = server
        self._settings = settings
        self._clock = clock
        self._metrics = metrics

    def run(self, connection: Connection, request: Request, spec: MethodSpec) -> None:
        """Run one request and answer it.

        Raises:
            ReplyError: INVALID_PARAMS, BUSY; nothing ran.
        """
        params = spec.without_credentials(request.params)
        fingerprint(spec.name, params)  # what cannot be written again cannot be echoed
        params = spec.structure(params)
        ctx = ConnectionContext(
            self._server,
            spec.name,
            request.id,
            address=connection.address,
            user_agent=connection.user_agent,
            session_id=request.session_id,
            token=request.token,
            connection=connection,
            params=request.params,
        )
        arguments = (ctx,) if spec.params_type is None else (ctx, params)
        started = self._clock.mono()
        trace = request.trace
        if trace is not None:
            trace.accepted(spec.name)
        if spec.kind is Kind.INLINE:
            reset = current_context.set(ctx)
            entered = trace.enter() if trace is not None else None
            try:
                self._succeed(connection, request, ctx, spec.function(*arguments), started)
            except BaseException as error:  # noqa: BLE001 - the fence of P5, for the lobby
                self._failed(connection, request, error, started)
            finally:
                current_context.reset(reset)
                if trace is not None and entered is not None:
                    trace.leave(entered)
            return
        if connection.lobby is None:
            connection.lobby = set()
        if len(connection.lobby) >= MAX_RUNNING_EACH:
            raise ReplyError(
                ErrorCode.BUSY, "Too many requests of this kind at once.", retry_after_ms=500
            )
        timeout_s = self._settings.request_timeout_s
        if request.deadline_ms is not None:
            timeout_s = min(timeout_s, request.deadline_ms / 1000)
        task = asyncio.get_running_loop().create_task(
            self._run(connection, request, spec, ctx, arguments, timeout_s),
            name=f"lobby {spec.name}",
        )
        connection.lobby.add(task)
        task.add_done_callback(connection.lobby.discard)

    async def _run(
        self,
        connection: Connection,
        request: Request,
        spec: MethodSpec,
        ctx: ConnectionContext,
        arguments: tuple[Any, ...],
        timeout_s: float,
    ) -> None:
        current_context.set(ctx)
        if request.trace is not None:
            request.trace.enter()  # for the rest of this task, as the context
        started = self._clock.mono()
        try:
            async with asyncio.timeout(timeout_s):
                result = await spec.function(*arguments)
            # RACE: no await between here and the binding in `after_reply`, so that no
            # push falls between what a resume counted as missed and what it gets live.
            self._succeed(connection, request, ctx, result, started)
        except TimeoutError:
            error = ReplyError(ErrorCode.TIMEOUT, "The deadline passed.", outcome="unknown")
            self._failed(connection, request, error, started)
        except asyncio.CancelledError:
            if request.trace is not None:
                request.trace.end(ErrorCode.CANCELLED)
            raise
        except BaseException as error:  # noqa: BLE001 - the fence of P5, for the lobby
            self._failed(connection, request, error, started)

    def _succeed(
        self,
        connection: Connection,
        request: Request,
        ctx: ConnectionContext,
        result: Any,
        started: float,
    ) -> None:
        meta = self._meta(started)
        if type(result) is dict and "sid" in result:
            meta["sid"] = result["sid"]
        frame = encode_result(request.id, request.method, result, meta, self._timestamp())
        self._observe(request, "success", meta)
        if request.trace is not None:
            request.trace.end()
        connection.send(frame)
        follow_ups, ctx.after_reply = ctx.after_reply, []  # they refer to `ctx` (ADR 17)
        for follow_up in follow_ups:
            follow_up()

    def _failed(
        self, connection: Connection, request: Request, error: BaseException, started: float
    ) -> None:
        if not isinstance(error, ReplyError):
            crash_id = secrets.token_hex(6)
            log.error("lobby.crashed", method=request.method, crash_id=crash_id, exc_info=error)
            error = ReplyError(
                ErrorCode.HANDLER_CRASHED,
                "The handler failed.",
                details={"crash_id": crash_id},
            )
        meta = self._meta(started)
        status = error.code.lower() if error.code in ErrorCode.__members__ else "error"
        self._observe(request, status, meta)
        if request.trace is not None:
            request.trace.end(error.code)
        connection.send(encode_error(request.id, request.method, error, meta, self._timestamp()))

    def _observe(self, request: Request, status: str, meta: dict[str, Any]) -> None:
        self._metrics.method(request.method).observe(status, 0.0, meta["run_ms"] / 1000)
        if request.method == "login":
            self._metrics.login(status)

    def _meta(self, started: float) -> dict[str, Any]:
        return {
            "replayed": False,
            "queue_ms": 0.0,
            "run_ms": round((self._clock.mono() - started) * 1000, 3),
        }

    def _timestamp(self) -> int:
        return int(self._clock.now() * 1000)
