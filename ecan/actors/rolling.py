"""A sliding window counter. Pure.

As Cloudflare's rate limiter has it:
https://blog.cloudflare.com/counting-things-a-lot-of-different-things/
"""

from __future__ import annotations

WINDOW_S = 60.0


class Rolling:
    """How much came in the last window, in three numbers. Pure.

    Never more than came in the last two windows, never less than came in this one.

    >>> used = Rolling(0.0)
    >>> used.add(30.0, 30.0)
    >>> used.at(59.0), used.at(90.0), used.at(120.0)
    (30.0, 15.0, 0.0)
    """

    __slots__ = ("_before", "_ends_mono", "_now")

    def __init__(self, now_mono: float) -> None:
        self._ends_mono = now_mono + WINDOW_S
        self._now = self._before = 0.0

    def add(self, amount: float, now_mono: float) -> None:
        """So much came."""
        if now_mono >= self._ends_mono:
            self._turn(now_mono)
        self._now += amount

    def _turn(self, now_mono: float) -> None:
        if now_mono < self._ends_mono + WINDOW_S:
            self._before = self._now
            self._ends_mono += WINDOW_S
        else:
            self._before = 0.0
            self._ends_mono = now_mono + WINDOW_S
        self._now = 0.0

    def at(self, now_mono: float) -> float:
        """How much came in the window up to now."""
        if now_mono >= self._ends_mono:
            self._turn(now_mono)
        return self._before * min(1.0, (self._ends_mono - now_mono) / WINDOW_S) + self._now

    def below_in_s(self, limit: float, now_mono: float) -> float:
        """Seconds until it is less than that, if nothing more comes.

        >>> used = Rolling(0.0)
        >>> used.add(30.0, 30.0)
        >>> used.below_in_s(20.0, 30.0), used.below_in_s(40.0, 30.0)
        (50.0, 0.0)
        """
        if self.at(now_mono) < limit:
            return 0.0
        left_s = self._ends_mono - now_mono
        if self._now < limit:  # the last window's share goes first
            return left_s - WINDOW_S * (limit - self._now) / self._before
        return left_s + WINDOW_S * (1.0 - limit / self._now)
