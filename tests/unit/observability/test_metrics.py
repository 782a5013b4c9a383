"""The metrics."""

from __future__ import annotations

import doctest
import urllib.error
import urllib.request

import pytest

from ecan.observability import Histogram, Metrics, histogram, redact, serve_metrics
from ecan.observability.metrics import COUNTERS, MAX_LABELS


def _samples(metrics: Metrics) -> dict[str, float]:
    rows = {}
    for line in metrics.render().decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            rows[name] = float(value)
    return rows


def test_doctests():
    """The examples in the docstrings are true."""
    import sys

    assert doctest.testmod(histogram).failed == 0
    assert doctest.testmod(sys.modules[redact.__module__]).failed == 0


def test_every_counter_is_a_plain_integer_and_is_exported():
    """The hot path adds, the scrape makes Prometheus' types."""
    metrics = Metrics()
    for number, name in enumerate(COUNTERS):
        setattr(metrics, name, number)
    rows = _samples(metrics)
    assert {name: rows[f"ecan_{name}_total"] for name in COUNTERS} == {
        name: number for number, name in enumerate(COUNTERS)
    }


def test_requests_are_counted_by_method_and_status_with_their_times():
    """One observation gives count, queue time and run time."""
    metrics = Metrics()
    method = metrics.method("cart.add")
    assert metrics.method("cart.add") is method
    method.observe("success", 0.0004, 0.02)
    method.observe("TIMEOUT", 0.0, 60.0)
    assert method.calls == 2
    rows = _samples(metrics)
    assert rows['ecan_requests_total{method="cart.add",status="success"}'] == 1
    assert rows['ecan_requests_total{method="cart.add",status="TIMEOUT"}'] == 1
    assert rows['ecan_request_queue_seconds_bucket{le="0.0005",method="cart.add"}'] == 2
    assert rows['ecan_request_run_seconds_bucket{le="0.01",method="cart.add"}'] == 0
    assert rows['ecan_request_run_seconds_bucket{le="0.025",method="cart.add"}'] == 1
    assert rows['ecan_request_run_seconds_bucket{le="+Inf",method="cart.add"}'] == 2
    assert rows['ecan_request_run_seconds_sum{method="cart.add"}'] == pytest.approx(60.02)


def test_labelled_counters():
    """Refusals, logins and ends are counted by their reason."""
    metrics = Metrics()
    metrics.rejected("BUSY")
    metrics.rejected("BUSY")
    metrics.login("success")
    metrics.session_closed("idle")
    metrics.connection_closed(1013)
    rows = _samples(metrics)
    assert rows['ecan_rejected_total{reason="BUSY"}'] == 2
    assert rows['ecan_logins_total{outcome="success"}'] == 1
    assert rows['ecan_sessions_closed_total{reason="idle"}'] == 1
    assert rows['ecan_connections_closed_total{code="1013"}'] == 1
    assert metrics.labelled("rejected") == {"BUSY": 2}


def test_the_number_of_label_values_has_an_end():
    """A handler that makes up codes cannot fill the memory."""
    metrics = Metrics()
    for number in range(10 * MAX_LABELS):
        metrics.rejected(f"CODE_{number}")
    counts = metrics.labelled("rejected")
    assert len(counts) == MAX_LABELS + 1
    assert counts["other"] == 9 * MAX_LABELS


def test_gauges_are_read_when_scraped():
    """With and without a label."""
    metrics = Metrics()
    metrics.gauge_callback("connections", lambda: 7)
    metrics.gauge_callback("sessions", lambda: {"active": 3, "passivated": 2})
    rows = _samples(metrics)
    assert rows["ecan_connections"] == 7
    assert rows['ecan_sessions{state="passivated"}'] == 2


def test_a_gauge_that_is_not_in_the_table_is_refused():
    """Every metric stands in one file."""
    with pytest.raises(ValueError, match="no gauge 'moods'"):
        Metrics().gauge_callback("moods", lambda: 1)


def test_a_gauge_that_meets_a_change_is_read_again_and_else_left_out():
    """The scraper's thread may meet a dict that the loop is changing."""
    metrics = Metrics()
    attempts = []

    def once_changed():
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("dictionary changed size during iteration")
        return 5

    def always_changed():
        raise RuntimeError("dictionary changed size during iteration")

    metrics.gauge_callback("connections", once_changed)
    metrics.gauge_callback("dead_letters", always_changed)
    rows = _samples(metrics)
    assert rows["ecan_connections"] == 5
    assert "ecan_dead_letters" not in rows


def test_two_servers_in_one_process_do_not_share_figures():
    """The registry is private."""
    one, other = Metrics(), Metrics()
    one.frames_in += 1
    assert _samples(other)["ecan_frames_in_total"] == 0


def test_quantiles():
    """Interpolated in their bucket; the last bucket has no upper end."""
    histogram = Histogram((1.0, 2.0))
    assert histogram.quantile(0.5) == 0.0
    histogram.observe(10.0)
    assert histogram.quantile(0.5) == 2.0
    histogram.observe(1.5)
    assert histogram.quantile(0.25) == 1.5


def test_prometheus_can_scrape():
    """The endpoint answers while it is open and the port is free again afterwards."""
    metrics = Metrics()
    metrics.frames_in = 3
    server = serve_metrics("127.0.0.1", 0, metrics)
    url = f"http://127.0.0.1:{server.port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            assert b"ecan_frames_in_total 3.0" in response.read()
    finally:
        server.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)
