"""Requests under way: the bytes of each, and what is known about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import orjson

from ecan.loadtest.wire import text_frame

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

ID_DIGITS = 10
_MARK = "#" * ID_DIGITS


class Template:
    """A request of one session whose number alone changes.

    Args:
        prefix: of the session's request ids.
        method, params, meta: of the request.
    """

    __slots__ = ("_head", "_tail")

    def __init__(self, prefix: str, method: str, params: Any, meta: dict[str, Any]) -> None:
        body: dict[str, Any] = {"id": prefix + _MARK, "type": "request", "method": method}
        if params is not None:
            body["params"] = params
        if meta:
            body["meta"] = meta
        self._head, self._tail = text_frame(orjson.dumps(body)).split(_MARK.encode(), 1)

    def frame(self, number: int) -> bytes:
        """The frame of request ``number``."""
        return self._head + b"%010d" % number + self._tail


@attrs.frozen
class Reply:
    """What a scenario gets.

    Attributes:
        ok: it succeeded.
        result: of a success.
        error: the error object, else None.
        parts: results of the ``pending`` frames before.
    """

    ok: bool
    result: Any = None
    error: dict[str, Any] | None = None
    parts: tuple[Any, ...] = ()

    @property
    def code(self) -> str | None:
        """The error code, else None."""
        return None if self.error is None else str(self.error.get("code"))


@attrs.define(slots=True, eq=False)
class Pending:
    """A request without its final answer.

    Attributes:
        due: the intended time, on the monotonic clock.
        sent: when it was written last; None: not yet, there was no connection.
        sends: how often it was written.
        phase: of the intended time; below 0: of the harness itself, counted nowhere.
        then: called with the reply before the next frame is looked at.
    """

    number: int
    method: str
    data: bytes
    phase: int
    due: float
    counter: str | None = None
    expected: str | None = None
    waiter: asyncio.Future[Reply] | None = None
    then: Callable[[Reply], None] | None = None
    sent: float | None = None
    sends: int = 0
    parts: list[Any] | None = None
