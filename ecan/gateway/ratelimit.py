"""A token bucket: as much as comes in a burst, then at a rate. Pure."""

from __future__ import annotations


class TokenBucket:
    """Allows ``burst`` at once and ``rate`` per second after that.

    Args:
        rate: requests per second; 0 allows everything.
        burst: size of the bucket.
        now_mono: seconds.

    >>> bucket = TokenBucket(10.0, 2, 0.0)
    >>> [bucket.take(0.0) for _ in range(3)], bucket.take(0.1)
    ([0.0, 0.0, 0.1], 0.0)
    """

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, now_mono: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = float(burst)
        self._at = now_mono

    def take(self, now_mono: float) -> float:
        """Take one; 0.0 if allowed, else the seconds until one will be."""
        if self.rate <= 0:
            return 0.0
        level = self._level + (now_mono - self._at) * self.rate
        level = min(level, self.burst)
        self._at = now_mono
        if level >= 1.0:
            self._level = level - 1.0
            return 0.0
        self._level = level
        return (1.0 - level) / self.rate
