"""When to restart a crashed session, and when to give up (P5, P6). Pure.

The budget belongs to one session: a crash loop of one user never uses another's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs
from tenacity import RetryCallState
from tenacity.wait import wait_exponential

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CRASHES = 3
"""More crashes than this within the window and the session is given up (P6; cf. OTP, Elixir)."""

WINDOW_S = 60.0
"""The window of the budget, and the quiet time after which the back-off starts over (P5)."""

FIRST_DELAY_S = 0.2
MAX_DELAY_S = 10.0
JITTER = 0.2
"""Plus or minus 20 %, so that sessions crashed by one cause do not restart in step."""

_wait = wait_exponential(multiplier=FIRST_DELAY_S, max=MAX_DELAY_S, exp_base=2)


def backoff_s(attempt: int, random: Callable[[], float]) -> float:
    """Seconds to wait before the ``attempt``-th restart in a row (1, 2, ...).

    Args:
        attempt: 1 for the first crash after a quiet minute.
        random: returns 0 <= x < 1.

    >>> [round(backoff_s(n, lambda: 0.5), 1) for n in range(1, 9)]
    [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    """
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = attempt
    return float(_wait(state)) * (1 + JITTER * (2 * random() - 1))


@attrs.define
class RestartBudget:
    """The crashes of one session that still count.

    Attributes:
        crashes: monotonic times within the window, oldest first.
        in_a_row: crashes since the last quiet minute; sets the back-off.
    """

    crashes: deque[float] = attrs.field(factory=deque)
    in_a_row: int = 0

    def crashed(self, now_mono: float, random: Callable[[], float]) -> float | None:
        """Record a crash.

        Returns:
            Seconds until the restart, or None: the budget is used up, give up.
        """
        if self.crashes and now_mono - self.crashes[-1] >= WINDOW_S:
            self.in_a_row = 0
        while self.crashes and now_mono - self.crashes[0] >= WINDOW_S:
            self.crashes.popleft()
        self.crashes.append(now_mono)
        self.in_a_row += 1
        if len(self.crashes) > MAX_CRASHES:
            return None
        return backoff_s(self.in_a_row, random)

    def counts(self, now_mono: float) -> bool:
        """Whether there are crashes that still count."""
        return bool(self.crashes) and now_mono - self.crashes[-1] < WINDOW_S

    def reset(self) -> None:
        """Forget all crashes: an operator revived the session."""
        self.crashes.clear()
        self.in_a_row = 0
