"""A few requests before a run: which methods there are, accounts, is anyone there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import attrs
import orjson

from ecan.loadtest.requests import Reply, Template
from ecan.loadtest.wire import Address, Wire, WireError

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_TIMEOUT_S = 30.0


@attrs.frozen
class Methods:
    """What the server says of its methods.

    Attributes:
        known: their names; None: it does not tell.
        ordered: those that are answered in order.
    """

    known: frozenset[str] | None
    ordered: frozenset[str]


class Probe:
    """One connection without a session; requests one after the other. A context manager.

    Args:
        url: of the server.

    Raises:
        WireError: when entered: nobody answers there.
    """

    def __init__(self, url: str) -> None:
        self._address = Address.parse(url)
        self._wire: Wire | None = None
        self._number = 0
        self._waiting: asyncio.Future[dict[str, Any]] | None = None

    async def __aenter__(self) -> Self:
        self._wire = await Wire.connect(self._address, self._on_text, self._on_lost)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._wire is not None:
            self._wire.close()

    def _on_text(self, payload: bytes) -> None:
        frame = orjson.loads(payload)
        waiting = self._waiting
        if frame.get("type") == "response" and waiting is not None and not waiting.done():
            waiting.set_result(frame)

    def _on_lost(self, _wire: Wire, code: int) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(WireError(f"the server hung up ({code})"))

    async def ask(
        self, method: str, params: Any = None, meta: Mapping[str, Any] | None = None
    ) -> Reply:
        """One request.

        Raises:
            WireError: no answer.
        """
        assert self._wire is not None  # noqa: S101 - entered
        self._number += 1
        self._waiting = asyncio.get_running_loop().create_future()
        self._wire.write(Template("probe-", method, params, dict(meta or {})).frame(self._number))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                frame = await self._waiting
        except TimeoutError:
            raise WireError(f"{method} got no answer within {ANSWER_TIMEOUT_S:g} s") from None
        if frame["status"] == "success":
            return Reply(True, frame.get("result"))
        return Reply(False, error=frame.get("error") or {})

    async def methods(self) -> Methods:
        """From ``rpc.discover``; a server without it has no order that we could check."""
        reply = await self.ask("rpc.discover")
        if not reply.ok:
            return Methods(None, frozenset())
        rows = {row["name"]: row.get("x-ecan") or {} for row in reply.result.get("methods", ())}
        ordered = frozenset(
            name
            for name, facts in rows.items()
            if facts.get("scope") in {"session", "any"}
            and not facts.get("concurrent")
            and not facts.get("control")
        )
        return Methods(frozenset(rows), ordered)
