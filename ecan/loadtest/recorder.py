"""What a generator process counts: per phase and method, and per second for the screen."""

from __future__ import annotations

from typing import Any

from ecan.loadtest.counts import Counts

PARTS = ("total", "late", "network", "queue", "run", "commit")
"""``total`` from the intended time is the sum of the others, as far as the server tells."""

ITERATION = "(iteration)"
CONNECT = "(connect)"
RECONNECT = "(reconnect)"
AROUND = frozenset({ITERATION, RECONNECT})
"""Hold other requests or none: not part of any total."""


class Stats:
    """One method in one phase. Only successes have latencies: a quick no is no service."""

    __slots__ = ("errors", "expected", "ok", "parts", "replayed", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.ok = 0
        self.replayed = 0
        self.errors: dict[str, int] = {}
        self.expected: dict[str, int] = {}
        self.parts: dict[str, Counts] = {name: Counts() for name in PARTS}

    def dump(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sent": self.sent,
            "ok": self.ok,
            "replayed": self.replayed,
            "errors": self.errors,
            "expected": self.expected,
            "parts": {name: counts.dump() for name, counts in self.parts.items()},
        }

    def merge(self, data: dict[str, Any]) -> None:
        """Add what `dump` made elsewhere."""
        self.sent += data["sent"]
        self.ok += data["ok"]
        self.replayed += data["replayed"]
        for mine, other in ((self.errors, data["errors"]), (self.expected, data["expected"])):
            for code, count in other.items():
                mine[code] = mine.get(code, 0) + count
        for name, counts in data["parts"].items():
            self.parts[name].merge(Counts.load(counts))

    @property
    def failed(self) -> int:
        """Errors nobody asked for."""
        return sum(self.errors.values())


class Recorder:
    """All of one process.

    Attributes:
        second: what ended since `tick` was called last.
    """

    def __init__(self, phases: int) -> None:
        self.stats: list[dict[str, Stats]] = [{} for _ in range(phases)]
        self.dropped = [0] * phases
        self.closes: dict[str, int] = {}
        self.pushes = 0
        self.pending_frames = 0
        self._second = self._fresh()

    @staticmethod
    def _fresh() -> dict[str, Any]:
        return {"sent": 0, "ok": 0, "errors": 0, "dropped": 0, "latency": Counts()}

    def tick(self) -> dict[str, Any]:
        """What ended since the last call, for JSON."""
        second, self._second = self._second, self._fresh()
        return {**second, "latency": second["latency"].dump()}

    def of(self, phase: int, method: str) -> Stats:
        """The figures of a method in a phase."""
        methods = self.stats[phase]
        found = methods.get(method)
        if found is None:
            found = methods[method] = Stats()
        return found

    def sent(self, phase: int, method: str) -> None:
        """A request was due."""
        self.of(phase, method).sent += 1
        if method not in AROUND:
            self._second["sent"] += 1

    def drop(self, phase: int) -> None:
        """An arrival found no user with room."""
        self.dropped[phase] += 1
        self._second["dropped"] += 1

    def close(self, code: int) -> None:
        """A connection ended that we did not end."""
        key = str(code)
        self.closes[key] = self.closes.get(key, 0) + 1

    def ok(
        self,
        phase: int,
        method: str,
        total_s: float,
        late_s: float = 0.0,
        meta: dict[str, Any] | None = None,
    ) -> None:
        """A request succeeded.

        Args:
            phase: of the intended time.
            method: of the request.
            total_s: from the intended time to the answer.
            late_s: from the intended time to the write.
            meta: of the answer: the server's own times; a replay has none of this request.
        """
        stats = self.of(phase, method)
        stats.ok += 1
        parts = stats.parts
        parts["total"].add(total_s)
        parts["late"].add(late_s)
        if meta is not None:
            if meta.get("replayed"):
                stats.replayed += 1
            else:
                queue_s = meta.get("queue_ms", 0.0) / 1000
                run_s = meta.get("run_ms", 0.0) / 1000
                rest_s = total_s - late_s - queue_s - run_s
                parts["queue"].add(queue_s)
                parts["run"].add(run_s)
                if "commit_ms" in meta:
                    commit_s = meta["commit_ms"] / 1000
                    parts["commit"].add(commit_s)
                    rest_s -= commit_s
                parts["network"].add(max(0.0, rest_s))
        if method not in AROUND:
            second = self._second
            second["ok"] += 1
            second["latency"].add(total_s)

    def error(self, phase: int, method: str, code: str, *, expected: bool = False) -> None:
        """A request failed; ``expected``: that was asked for."""
        stats = self.of(phase, method)
        if expected:
            stats.expected[code] = stats.expected.get(code, 0) + 1
        else:
            stats.errors[code] = stats.errors.get(code, 0) + 1
            if method not in AROUND:
                self._second["errors"] += 1

    def dump(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "stats": [
                {name: stats.dump() for name, stats in methods.items()} for methods in self.stats
            ],
            "dropped": self.dropped,
            "closes": self.closes,
            "pushes": self.pushes,
            "pending_frames": self.pending_frames,
        }
