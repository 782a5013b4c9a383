"""Latencies in the buckets of an HdrHistogram: cheap to count, merge and send."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DIGITS = 3
SUB_BUCKET_BITS = 11
"""2048 sub-buckets: the three significant digits of an HdrHistogram."""

MAX_US = 3_600_000_000
"""An hour."""

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)


def highest_equivalent(value: int) -> int:
    """The highest value of the bucket of ``value``.

    >>> highest_equivalent(1000), highest_equivalent(1_000_000)
    (1000, 1000447)
    """
    shift = max(0, value.bit_length() - SUB_BUCKET_BITS)
    return value | ((1 << shift) - 1)


class Counts:
    """How many values fell into which bucket; values are seconds, buckets microseconds.

    `add` costs 0.2 µs, where ``HdrHistogram.record_value`` takes 1.4.
    """

    __slots__ = ("buckets", "n", "total_s")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.n = 0
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one value."""
        # A timer may wake the sender some microseconds before it is due.
        seconds = max(0.0, seconds)
        value = int(seconds * 1e6)
        if value >> SUB_BUCKET_BITS:
            shift = value.bit_length() - SUB_BUCKET_BITS
            value = value >> shift << shift
        elif value < 1:
            value = 1
        buckets = self.buckets
        buckets[value] = buckets.get(value, 0) + 1
        self.n += 1
        self.total_s += seconds

    def merge(self, other: Counts) -> None:
        """Add the values of another one."""
        for value, count in other.buckets.items():
            self.buckets[value] = self.buckets.get(value, 0) + count
        self.n += other.n
        self.total_s += other.total_s

    def dump(self) -> dict[str, Any]:
        """For JSON; `load` is the way back."""
        return {"n": self.n, "total_s": self.total_s, "buckets": list(self.buckets.items())}

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Counts:
        """From `dump`."""
        counts = cls()
        counts.n, counts.total_s = data["n"], data["total_s"]
        counts.buckets = {int(value): count for value, count in data["buckets"]}
        return counts

    @classmethod
    def merged(cls, many: Iterable[Counts]) -> Counts:
        """All of them together."""
        total = cls()
        for counts in many:
            total.merge(counts)
        return total

    # -- reading -----------------------------------------------------------------------

    def histogram(self) -> Any:
        """The same as an ``HdrHistogram`` (1 µs to an hour, three digits)."""
        from hdrh.histogram import HdrHistogram  # noqa: PLC0415 - an extra

        histogram = HdrHistogram(1, MAX_US, DIGITS)
        for value, count in self.buckets.items():
            histogram.record_value(min(value, MAX_US), count)
        return histogram

    def percentiles_ms(self, wanted: Iterable[float] = PERCENTILES) -> list[float]:
        """Percentiles in milliseconds; empty without values.

        The least bucket that at least so many values lie in or below: the rank is rounded
        up, as in HdrHistogram for Java (the one for Python rounds it to the nearest, which
        is below the percentile). A bucket speaks for its highest value.
        """
        if not self.n:
            return []
        found = []
        left = iter(sorted(self.buckets.items()))
        seen = value = 0
        for percentile in wanted:
            rank = max(1, math.ceil(self.n * percentile / 100 - 1e-9))
            while seen < rank:
                value, count = next(left)
                seen += count
            found.append(highest_equivalent(value) / 1000)
        return found

    def quick_ms(self, percentile: float) -> float | None:
        """One percentile; None without values."""
        return next(iter(self.percentiles_ms((percentile,))), None)

    def summary(self) -> dict[str, Any]:
        """Count, mean, percentiles, maximum in milliseconds, and the portable encoding."""
        if not self.n:
            return {"n": 0}
        names = (f"p{p:g}" for p in PERCENTILES)
        return {
            "n": self.n,
            "mean_ms": round(self.total_s / self.n * 1000, 4),
            **dict(zip(names, self.percentiles_ms(), strict=True)),
            "max_ms": self.quick_ms(100.0),
            "hdr": self.histogram().encode().decode(),
        }

    def curve(self) -> list[tuple[float, float]]:
        """(share of values at or below, milliseconds), one point a bucket in use."""
        points = []
        seen = 0
        for value in sorted(self.buckets):
            seen += self.buckets[value]
            points.append((seen / self.n, value / 1000))
        return points


def from_hdr(encoded: str) -> Counts:
    """The counts of a portable encoding, as in the JSON file of an earlier run."""
    from hdrh.histogram import HdrHistogram  # noqa: PLC0415 - an extra

    histogram = HdrHistogram.decode(encoded.encode())
    counts = Counts()
    for item in histogram.get_recorded_iterator():
        count = item.count_added_in_this_iter_step
        value = histogram.get_lowest_equivalent_value(item.value_iterated_to)
        counts.buckets[value] = counts.buckets.get(value, 0) + count
        counts.n += count
        counts.total_s += value * count / 1e6
    return counts
