"""Turns, so that a crowd that comes at once does not hold up the others (P6).

In one turn the loop reads every socket that has something, and all that was read is worked
through before it looks again. 500 handshakes, or ten clients with 128 requests each, would
be one long turn for everybody; here they are many short ones, with the others in between.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

PORTION_S = 0.01
"""In so much time everybody has a portion that passes at once; who has waited so long, too."""

NEWCOMERS = 2
"""Handshakes and first messages in a turn of the loop: half a millisecond."""

GREEDY = 4
"""Messages in a turn, of connections that send more than others: 0.15 ms."""


class Turns:
    """Lets so many calls run in each turn of the loop; more wait, in order.

    Args:
        loop: whose turns.
        at_once: calls in one of them.
        patience_s: who has waited so long need not wait for room any more.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, at_once: int, patience_s: float = math.inf
    ) -> None:
        self._loop = loop
        self._at_once = at_once
        self._patience_s = patience_s
        self._left = at_once
        self._waiting: deque[tuple[float, Callable[[], object]]] = deque()

    def enter(self) -> bool:
        """Whether there is room in this turn; if so it is taken."""
        if not self._left:
            return False
        if self._left == self._at_once:
            self._loop.call_soon(self._next)
        self._left -= 1
        return True

    def take(self, call: Callable[[], object]) -> None:
        """Do it now if there is room in this turn, else as soon as there is."""
        if self.enter():
            call()
        else:
            self._waiting.append((self._loop.time(), call))

    def _next(self) -> None:
        waiting = self._waiting
        self._left = self._at_once
        if not waiting:
            return
        self._loop.call_soon(self._next)
        patient_since = self._loop.time() - self._patience_s
        while waiting and (self._left or waiting[0][0] <= patient_since):
            self._left = max(0, self._left - 1)
            _, call = waiting.popleft()
            try:
                call()
            except Exception as error:  # noqa: BLE001 - of one, which the others do not mind
                self._loop.call_exception_handler({"message": "a turn failed", "exception": error})


class Doors:
    """The two crowds of a gateway.

    Attributes:
        newcomers: handshakes, and the first message of a connection.
        greedy: messages of connections that send more at once, or faster, than others.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.newcomers = Turns(loop, NEWCOMERS)
        self.greedy = Turns(loop, GREEDY, PORTION_S)
