"""A session as its handlers see it: the `SessionPort` of one incarnation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ecan.actors.cell import Ask
from ecan.actors.tokens import new_token
from ecan.errors import HandlerError
from ecan.protocol.codec import encode_pending, encode_push

if TYPE_CHECKING:
    from ecan.actors.call import Call
    from ecan.actors.cell import Cell
    from ecan.actors.environment import Environment
    from ecan.handlers.context import User, UserContext
    from ecan.store import DocumentPage, DocumentRow, Order


class SessionView:
    """What handlers may ask of their session; they never see the actor."""

    __slots__ = ("_ask_count", "cell", "env", "incarnation")

    def __init__(self, cell: Cell, env: Environment) -> None:
        self.cell = cell
        self.env = env
        self.incarnation = cell.incarnation
        self._ask_count = 0

    @property
    def user(self) -> User:
        """See `SessionPort`."""
        return self.cell.user

    @property
    def sid(self) -> str:
        """See `SessionPort`."""
        return self.cell.sid

    def brief(self) -> dict[str, Any]:
        """See `SessionPort`."""
        cell = self.cell
        return {
            "tabs": len(cell.tabs),
            "incarnation": self.incarnation,
            "restarts": cell.restarts,
        }

    def info(self, ctx: UserContext) -> dict[str, Any]:
        """See `SessionPort`."""
        call = self.cell.pending.get(ctx.request_id)
        origin = call.origin if call is not None else None
        return self.env.describe(self.cell, origin)

    def keep(self, seconds: float | None) -> dict[str, Any]:
        """See `SessionPort`."""
        cell = self.cell
        cell.touch()
        cell.facts_changed = True  # written with the commit of the request that asks
        if seconds is not None:
            cell.keep_until_mono = self.env.clock.mono() + seconds
        return {"kept": True, "expires_in_s": round(self.env.expires_in_s(cell), 1)}

    def cancel(self, request_id: str) -> str:
        """See `SessionPort`."""
        return self.cell.cancel(request_id)

    def end(self, ctx: UserContext, reason: str) -> None:
        """See `SessionPort`."""
        ctx.end_reason = reason

    def renew_token(self, ctx: UserContext) -> dict[str, Any]:
        """See `SessionPort`."""
        env = self.env
        secret, ctx.renewed = new_token(env.clock.now(), env.settings.token_ttl_s)
        return {"token": secret, "expires_at": ctx.renewed.expires_at}

    def progress(self, ctx: UserContext, result: Any) -> None:
        """See `SessionPort`."""
        call = self.cell.pending.get(ctx.request_id)
        if call is None or call.answered:
            return
        frame = encode_pending(
            call.id,
            call.spec.name,
            result,
            {"sid": self.cell.sid, "incarnation": self.incarnation},
            self.cell.timestamp(),
        )
        self.env.on_loop(self._send_progress, call, frame)

    @staticmethod
    def _send_progress(call: Call, frame: bytes) -> None:
        if call.answered:
            return
        call.origin.send(frame)
        for peer in call.waiters or ():
            peer.send(frame)

    async def read_document(self, collection: str, key: str) -> DocumentRow | None:
        """See `SessionPort`."""
        return await self.env.store.document(self.cell.user.user_id, collection, key)

    async def read_documents(
        self, collection: str, *, prefix: str, order: Order, cursor: str | None, limit: int
    ) -> DocumentPage:
        """See `SessionPort`."""
        return await self.env.store.documents(
            self.cell.user.user_id,
            collection,
            prefix=prefix,
            order=order,
            cursor=cursor,
            limit=limit,
        )

    async def call(
        self, ctx: UserContext, method: str, params: Any, timeout_s: float | None
    ) -> Any:
        """See `SessionPort`."""
        if ctx.cancelled:
            raise HandlerError("CANCELLED", "The request was answered without this handler.")
        cell = self.cell
        pending = cell.pending.get(ctx.request_id)
        origin = pending.origin if pending is not None else None
        peer = origin if origin is not None and origin.is_open else None
        asked = [peer] if peer is not None else list(cell.tabs.values())
        if not asked:
            raise HandlerError("CLIENT_GONE", "No tab of this session is open to answer.")
        self._ask_count += 1
        ask_id = f"c-{cell.sid}-{self.incarnation}-{self._ask_count}"
        meta = {"expects_answer": True, "epoch": cell.outbox.epoch, "sid": cell.sid}
        ask = Ask(
            encode_push(ask_id, method, params, meta, cell.timestamp()),
            self.env.loop.create_future(),
            peer,
        )
        if cell.asks is None:
            cell.asks = {}
        cell.asks[ask_id] = ask
        for tab in asked:
            tab.send(ask.frame)
        try:
            async with asyncio.timeout(timeout_s):
                return await ask.future
        except TimeoutError:
            raise HandlerError("CLIENT_TIMEOUT", f"No answer within {timeout_s} s.") from None
        finally:
            cell.asks.pop(ask_id, None)
