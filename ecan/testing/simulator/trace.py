"""What happened in a simulation, step by step, and what must never happen."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter, deque

KEPT_LINES = 400
"""Of the trace; enough to see what led to a failure."""


class Violation(AssertionError):  # noqa: N818 - a promise was not kept; nothing went wrong here
    """A promise of CONTRACT.md was broken.

    Args:
        promise: its number, for example ``P10``.
        story: what was seen.
    """

    def __init__(self, promise: str, story: str) -> None:
        super().__init__(f"{promise}: {story}")
        self.promise = promise
        self.story = story


class Trace:
    """The lines of a run. Two runs that did the same have the same `digest`.

    Attributes:
        counts: how often each kind of event happened.
        lines: the last ones.
        now_s: simulated seconds, set by the simulation.
        violation: the first one that was seen.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self.counts: Counter[str] = Counter()
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.now_s = 0.0
        self.violation: Violation | None = None
        self._verbose = verbose
        self._hash = hashlib.sha256()

    def add(self, kind: str, text: str = "") -> None:
        """Something happened."""
        self.counts[kind] += 1
        line = f"{self.now_s:12.6f}  {kind:<22} {text}"
        self._hash.update(line.encode("utf-8", "replace"))
        self.lines.append(line)
        if self._verbose:
            sys.stdout.write(line + "\n")

    def count(self, kind: str) -> None:
        """As `add`, without a line of its own."""
        self.counts[kind] += 1

    def broken(self, promise: str, story: str) -> None:
        """A promise was broken: noted here, because the core's fences would catch an exception."""
        self.add("violation", f"{promise}: {story}")
        if self.violation is None:
            self.violation = Violation(promise, story)

    def check(self) -> None:
        """Raise the violation, if there was one."""
        if self.violation is not None:
            raise self.violation

    @property
    def digest(self) -> str:
        """Of all lines so far."""
        return self._hash.hexdigest()
