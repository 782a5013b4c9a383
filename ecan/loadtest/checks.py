"""Promises of CONTRACT.md §4 that can be seen from outside, checked frame by frame. Pure.

One `SessionChecks` a session. `Violations` keeps a count of each kind and the first few in
words.
"""

from __future__ import annotations

from typing import Any

MAX_EXAMPLES = 20
"""Of each promise; the rest is only counted."""

PROMISES = {
    "P2": "replies in order",
    "P3": "exactly one answer",
    "P10": "exactly one effect",
    "P11": "nothing acknowledged is lost",
    "P12": "pushes without holes",
    "incarnation": "incarnations never go back",
    "frames": "every frame can be read",
}


class Violations:
    """What was broken, and how often.

    Attributes:
        ordered: replies whose order was looked at.
    """

    def __init__(self) -> None:
        self.ordered = 0
        self.counts: dict[str, int] = {}
        self.examples: list[dict[str, str]] = []

    def add(self, promise: str, session: str, text: str) -> None:
        """Note a broken promise."""
        count = self.counts[promise] = self.counts.get(promise, 0) + 1
        if count <= MAX_EXAMPLES:
            self.examples.append({"promise": promise, "session": session, "what": text})

    def merge(self, data: dict[str, Any]) -> None:
        """Add those of another process."""
        self.ordered += data["ordered"]
        for promise, count in data["counts"].items():
            self.counts[promise] = self.counts.get(promise, 0) + count
        self.examples += data["examples"]

    def dump(self) -> dict[str, Any]:
        """For JSON."""
        return {"counts": self.counts, "examples": self.examples, "ordered": self.ordered}

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())


class Counter:
    """A counter on the server that only this session's calls add to.

    INVARIANT: every value is seen once; a value that was jumped over comes later (an
    answer that had to be asked for again) or belongs to a call nobody got an answer to.

    Args:
        base: its value before; None: unknown, the first value that is seen tells.
    """

    __slots__ = ("base", "missing", "oks", "top", "unknown")

    def __init__(self, base: int | None = 0) -> None:
        self.base = base
        self.top = base or 0
        self.oks = 0
        self.unknown = 0
        self.missing: set[int] = set()

    def answered(self, value: Any) -> str | None:
        """A call succeeded with this value; what is wrong with it, if anything."""
        self.oks += 1
        if type(value) is not int:
            return f"the counter is {value!r}, not a number"
        if self.base is None:
            self.base, self.top = value - 1, value
        elif value > self.top:
            self.missing.update(range(self.top + 1, value))
            self.top = value
        elif value in self.missing:
            self.missing.discard(value)
        else:
            return f"the value {value} came twice"
        return None

    def total(self, value: Any) -> str | None:
        """The total at the end; what is wrong with it, if anything."""
        value = 0 if value is None else value
        least = (self.base or 0) + self.oks
        if self.base is None:
            return None  # nothing of it was ever answered
        if type(value) is not int or not least <= value <= least + self.unknown:
            unknown = f" and {self.unknown} without an answer" if self.unknown else ""
            before = f" from {self.base} on" if self.base else ""
            return f"the total is {value}, after {self.oks} successes{before}{unknown}"
        return None


class SessionChecks:
    """What one session has been told so far.

    Args:
        violations: where to report.
        name: of the session, in reports.
        fresh: it has no past: its counters are at 0.
    """

    __slots__ = (
        "_fresh",
        "_last",
        "_name",
        "_violations",
        "counters",
        "epoch",
        "incarnation",
        "seq",
    )

    def __init__(self, violations: Violations, name: str, *, fresh: bool = True) -> None:
        self._fresh = fresh
        self._violations = violations
        self._name = name
        self._last = 0
        self.counters: dict[str, Counter] = {}
        self.epoch: str | None = None
        self.seq: int | None = None
        self.incarnation = 0

    def broken(self, promise: str, text: str) -> None:
        """Report a violation of this session."""
        self._violations.add(promise, self._name, text)

    # -- connections -------------------------------------------------------------------

    def connected(self) -> None:
        """A new connection: replies on it are in an order of their own."""
        self._last = 0

    def opened(self, result: dict[str, Any]) -> None:
        """Login, or a resume that asked for nothing: numbers go on from here."""
        self.epoch, self.seq = result.get("epoch"), result.get("seq")

    def resumed(self, result: dict[str, Any]) -> None:
        """A resume with ``last_seq``: the answer says what is lost, if anything.

        Its ``seq`` may already be above our own: what was missed comes next.
        """
        epoch = result.get("epoch")
        if epoch != self.epoch:
            self.epoch = epoch
            self.seq = result.get("to", 0) if result.get("status") == "gap" else 0
        elif result.get("status") == "gap" and self.seq is not None:
            if result.get("from") != self.seq + 1:
                self.broken(
                    "P12",
                    f"told a gap from {result.get('from')}, but {self.seq} was the last seen",
                )
            self.seq = max(self.seq, result.get("to", self.seq))

    # -- frames ------------------------------------------------------------------------

    def push(self, meta: dict[str, Any]) -> None:
        """A push came."""
        seq, epoch = meta.get("seq"), meta.get("epoch")
        if type(seq) is not int:
            return  # not of a session: server.draining and its like carry no number
        if epoch != self.epoch:
            self.epoch, self.seq = epoch, seq
        elif self.seq is None or seq == self.seq + 1:
            self.seq = seq
        else:
            self.broken("P12", f"push {seq} followed push {self.seq} (epoch {epoch})")
            self.seq = max(seq, self.seq)

    def reply(self, number: int, meta: dict[str, Any], ordered: bool) -> None:
        """A final answer to request ``number`` came, sent once, on this connection."""
        if ordered:
            self._violations.ordered += 1
            if number < self._last:
                self.broken("P2", f"request {number} was answered after request {self._last}")
            else:
                self._last = number
        self.life(meta)

    def life(self, meta: dict[str, Any]) -> None:
        """The incarnation of an answer that is not a replay."""
        incarnation = meta.get("incarnation")
        if type(incarnation) is not int or meta.get("replayed"):
            return
        if incarnation < self.incarnation:
            self.broken("incarnation", f"incarnation {incarnation} after {self.incarnation}")
        self.incarnation = max(self.incarnation, incarnation)

    # -- counters ----------------------------------------------------------------------

    def counter(self, key: str) -> Counter:
        """A counter of this session."""
        found = self.counters.get(key)
        if found is None:
            found = self.counters[key] = Counter(0 if self._fresh else None)
        return found

    def start_counter(self, key: str, value: Any) -> None:
        """What a counter of a session with a past begins with."""
        self.counters[key] = Counter(value if type(value) is int else 0)

    def counted(self, key: str, value: Any) -> None:
        """A counting call succeeded."""
        if wrong := self.counter(key).answered(value):
            self.broken("P10", f"{key}: {wrong}")

    def verify(self, key: str, value: Any) -> None:
        """The total at the end."""
        counter = self.counter(key)
        if wrong := counter.total(value):
            self.broken("P10", f"{key}: {wrong}")
