"""Every metric of the server, on one private registry.

The hot path adds to plain integers; Prometheus' own types are made when somebody
scrapes (``Counter.inc`` costs 0.5-1 µs and ``labels()`` 2.5 µs, an addition 0.03).
No ids as labels: a label's values are methods, codes and states (P16, cardinality).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ecan.observability.histogram import Histogram

SECONDS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
"""Bounds of every duration: from an inline handler to the default deadline."""

BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
"""Bounds of works in one transaction of the store."""

DEPTHS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Bounds of mailbox depth, up to the default ECAN_MAILBOX_SIZE."""

MAX_LABELS = 64
"""Values of one label; codes are made by handlers, so their number has to have an end."""

COUNTERS = {
    "frames_in": "Frames received.",
    "frames_out": "Frames handed to connections.",
    "bytes_in": "Bytes of frames received.",
    "bytes_out": "Bytes of frames handed to connections.",
    "pushes": "Pushes committed.",
    "connections_opened": "Connections accepted.",
    "sessions_opened": "Sessions created.",
    "activations": "Passivated sessions brought back into memory.",
    "passivations": "Idle sessions moved out of memory.",
    "commits": "Commits written to the store.",
    "replays": "Requests answered from the ledger.",
    "crashes": "Handlers that crashed their session's actor.",
    "restarts": "Actors restarted after a crash.",
    "give_ups": "Sessions that crashed too often and failed.",
    "conflicts": "Handlers run again: another session had changed what they read.",
    "handlers_abandoned": "Handlers left behind that did not stop at their deadline.",
    "supervisor_restarts": "Times the supervisor failed and another took over.",
    "stalls": "Handlers that held the loop too long.",
}
"""Attributes of `Metrics` that the hot path adds to: ``metrics.frames_in += 1``."""

LABELLED = {
    "rejected": ("reason", "Requests and connections refused, by error code."),
    "logins": ("outcome", "Logins by outcome."),
    "sessions_closed": ("reason", "Sessions ended, by reason."),
    "budget_exceeded": ("budget", "Sessions over a limit of a budget, at most once a minute."),
    "connections_closed": ("code", "Connections ended, by close code."),
}

GAUGES = {
    "sessions": ("state", "Sessions by state."),
    "connections": (None, "Open connections."),
    "worker_threads": (None, "Threads of synchronous handlers."),
    "worker_zombies": (None, "Threads whose handler was abandoned at its deadline and still runs."),
    "dead_letters": (None, "Crashing requests kept."),
    "methods_suspended": ("method", "1 for each method that is switched off."),
    "store_degraded": (None, "1 while changes cannot be written."),
    "huge_pages_bytes": (None, "Memory in huge pages after the last pass over the heap."),
    "draining": (None, "1 while the server shuts down."),
}
"""What may be given to `Metrics.gauge_callback`."""


class MethodMetrics:
    """The figures of one registered method. Made and cached by `Metrics.method`.

    Attributes:
        by_status: how many requests ended in ``success`` or in each error code.
        queue: seconds between acceptance and start.
        run: seconds the handler ran.
        commit: seconds from the handler's end until its changes were durable; only of
            requests that changed something.
    """

    __slots__ = ("by_status", "commit", "name", "queue", "run")

    def __init__(self, name: str) -> None:
        self.name = name
        self.by_status: dict[str, int] = {}
        self.queue = Histogram(SECONDS)
        self.run = Histogram(SECONDS)
        self.commit = Histogram(SECONDS)

    def observe(
        self, status: str, queue_s: float, run_s: float, commit_s: float | None = None
    ) -> None:
        """Count one finished request. Costs 0.3 µs, with a commit 0.4.

        Args:
            status: ``success`` or an error code in lower case.
            queue_s: from acceptance to start.
            run_s: of the handler.
            commit_s: until what it did was durable; None: it changed nothing.
        """
        counts = self.by_status
        if status in counts:
            counts[status] += 1
        else:
            _add(counts, status)
        # `Histogram.observe` without the calls: this runs for every request.
        queue, run = self.queue, self.run
        queue.counts[bisect_left(SECONDS, queue_s)] += 1
        queue.total += queue_s
        run.counts[bisect_left(SECONDS, run_s)] += 1
        run.total += run_s
        if commit_s is not None:
            commit = self.commit
            commit.counts[bisect_left(SECONDS, commit_s)] += 1
            commit.total += commit_s

    @property
    def calls(self) -> int:
        """Finished requests, however they ended."""
        return sum(self.by_status.copy().values())


_WORD = re.compile(r"[a-z]+(_[a-z]+)*")
"""What a label's value looks like; a reason that somebody wrote by hand may hold an id."""

_MAX_WORD_CHARS = 20


def _add(counts: dict[str, int], label: str) -> None:
    known = counts.get(label)
    if known is None:
        if len(counts) >= MAX_LABELS:
            label = "other"
        known = counts.get(label, 0)
    counts[label] = known + 1


class Metrics:
    """All figures of one server; every attribute named in `COUNTERS` is a plain integer.

    Attributes:
        dead_letters: kept before the start, and written since.

    Runs on: the loop, but for `render` and scrapes, which may come from any thread.
    """

    dead_letters: int
    frames_in: int
    frames_out: int
    bytes_in: int
    bytes_out: int
    pushes: int
    connections_opened: int
    sessions_opened: int
    activations: int
    passivations: int
    commits: int
    replays: int
    crashes: int
    restarts: int
    give_ups: int
    conflicts: int
    handlers_abandoned: int
    supervisor_restarts: int
    stalls: int

    __slots__ = (
        *COUNTERS,
        "_gauges",
        "_labelled",
        "dead_letters",
        "gc_pause",
        "loop_lag",
        "mailbox_depth",
        "methods",
        "registry",
        "send",
        "store_batch",
        "store_write",
    )

    def __init__(self) -> None:
        for name in COUNTERS:
            setattr(self, name, 0)
        self.methods: dict[str, MethodMetrics] = {}
        self.dead_letters = 0
        self.gc_pause = Histogram(SECONDS)
        self.loop_lag = Histogram(SECONDS)
        self.mailbox_depth = Histogram(DEPTHS)
        self.send = Histogram(SECONDS)
        self.store_batch = Histogram(BATCHES)
        self.store_write = Histogram(SECONDS)
        self._labelled: dict[str, dict[str, int]] = {name: {} for name in LABELLED}
        self._gauges: dict[str, Callable[[], float | Mapping[str, float]]] = {}
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(_ServerCollector(self))

    def method(self, name: str) -> MethodMetrics:
        """The figures of a method. Only for registered ones: names of clients are unbounded."""
        found = self.methods.get(name)
        if found is None:
            found = self.methods[name] = MethodMetrics(name)
        return found

    def batch_written(self, works: int, seconds: float) -> None:
        """The store wrote a batch; see `ecan.store.sqlite_queue.StoreObserver`."""
        self.store_batch.observe(works)
        self.store_write.observe(seconds)

    def rejected(self, reason: str) -> None:
        """A request or connection was refused, with this error code or word."""
        _add(self._labelled["rejected"], reason)

    def budget_exceeded(self, budget: str) -> None:
        """A session is over a limit: ``cpu_s_soft`` and the like."""
        _add(self._labelled["budget_exceeded"], budget)

    def login(self, outcome: str) -> None:
        """A login ended: ``success`` or an error code."""
        _add(self._labelled["logins"], outcome)

    def session_closed(self, reason: str) -> None:
        """A session ended: ``logout``, ``idle``, ``killed`` or another reason."""
        plain = len(reason) <= _MAX_WORD_CHARS and _WORD.fullmatch(reason)
        _add(self._labelled["sessions_closed"], reason if plain else "other")

    def connection_closed(self, code: int) -> None:
        """A connection ended with this close code."""
        _add(self._labelled["connections_closed"], str(code))

    def gauge_callback(self, name: str, read: Callable[[], float | Mapping[str, float]]) -> None:
        """Let a gauge of `GAUGES` be read when scraped; a second call replaces the first.

        Args:
            name: for example ``worker_threads``, or ``sessions``.
            read: the value; for a gauge with a label, value by label. Runs on any thread.

        Raises:
            ValueError: no such gauge.
        """
        if name not in GAUGES:
            raise ValueError(f"no gauge {name!r} in the table")
        self._gauges[name] = read

    def labelled(self, name: str) -> dict[str, int]:
        """A copy of the counts of a counter of `LABELLED`."""
        return self._labelled[name].copy()

    def gauges(self) -> Iterator[tuple[str, float | Mapping[str, float]]]:
        """Every gauge that can be read now."""
        for name, read in list(self._gauges.items()):
            # RACE: the scraper's thread may meet a dict that the loop is changing.
            for _attempt in range(3):
                try:
                    yield name, read()
                    break
                except RuntimeError:
                    continue

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _ServerCollector(Collector):
    """Turns the plain figures into Prometheus' types when scraped."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        for name, doc in COUNTERS.items():
            yield CounterMetricFamily(f"ecan_{name}", doc, value=getattr(metrics, name))
        for name, (label, doc) in LABELLED.items():
            counter = CounterMetricFamily(f"ecan_{name}", doc, labels=[label])
            for value, count in metrics.labelled(name).items():
                counter.add_metric([value], count)
            yield counter
        for name, reading in metrics.gauges():
            yield _gauge(name, reading)
        yield _histogram(
            "ecan_gc_pause_seconds",
            "A collection of garbage, which holds everything up.",
            metrics.gc_pause,
        )
        yield _histogram("ecan_loop_lag_seconds", "How late the loop is.", metrics.loop_lag)
        yield _histogram(
            "ecan_mailbox_depth_requests", "Requests waiting at enqueue.", metrics.mailbox_depth
        )
        yield _histogram(
            "ecan_send_seconds",
            "From writing a frame to the operating system taking it; a sample.",
            metrics.send,
        )
        yield _histogram("ecan_store_batch_works", "Works in one transaction.", metrics.store_batch)
        yield _histogram(
            "ecan_store_write_seconds", "One transaction, syncs included.", metrics.store_write
        )
        yield from self._methods(list(metrics.methods.values()))

    @staticmethod
    def _methods(methods: list[MethodMetrics]) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "ecan_requests", "Finished requests by method and status.", labels=["method", "status"]
        )
        queue = HistogramMetricFamily(
            "ecan_request_queue_seconds", "From acceptance to start.", labels=["method"]
        )
        run = HistogramMetricFamily(
            "ecan_request_run_seconds", "How long handlers ran.", labels=["method"]
        )
        commit = HistogramMetricFamily(
            "ecan_request_commit_seconds",
            "From a handler's end until its changes were durable.",
            labels=["method"],
        )
        for method in methods:
            for status, count in method.by_status.copy().items():
                requests.add_metric([method.name, status], count)
            queue.add_metric([method.name], method.queue.buckets(), method.queue.total)
            run.add_metric([method.name], method.run.buckets(), method.run.total)
            commit.add_metric([method.name], method.commit.buckets(), method.commit.total)
        yield from (requests, queue, run, commit)


def _gauge(name: str, reading: float | Mapping[str, float]) -> Metric:
    label, doc = GAUGES[name]
    gauge = GaugeMetricFamily(f"ecan_{name}", doc, labels=[label] if label else [])
    values = reading if isinstance(reading, Mapping) else {"": reading}
    for value, number in values.items():
        gauge.add_metric([value] if label else [], number)
    return gauge


def _histogram(name: str, doc: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, doc, histogram.buckets(), histogram.total)
