"""Spans of requests, with the SDK's exporter in memory."""

from __future__ import annotations

import doctest
import time

import pytest

from ecan.errors import ConfigError
from ecan.observability import tracing

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans():
    """What was exported so far, by name; tracing is on meanwhile."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.install(tracing.Tracing(provider))
    yield lambda: {span.name: span for span in exporter.get_finished_spans()}
    tracing.install(None)


def test_doctests():
    """The examples in the docstrings are true."""
    assert doctest.testmod(tracing).failed == 0


def test_phases_follow_each_other_below_the_request(spans):
    """Gateway, queue, handler, commit: each begins where the last one ended."""
    trace = tracing.active.begin("r-1", PARENT, time.monotonic() - 0.01)
    trace.accepted("cart.add", "abc")
    token = trace.enter(3)
    with tracing.active.provider.get_tracer("shop").start_as_current_span("own"):
        assert set(tracing.log_ids()) == {"trace_id", "span_id"}
    trace.leave(token)
    trace.commit()
    trace.end()
    trace.end("LATE")
    found = spans()
    root = found["cart.add"]
    phases = [found[name] for name in ("gateway", "queue", "handler", "commit")]
    assert all(phase.parent.span_id == root.context.span_id for phase in phases)
    assert found["own"].parent.span_id == found["handler"].context.span_id
    assert {span.context.trace_id for span in found.values()} == {
        0x0AF7651916CD43DD8448EB211C80319C
    }
    assert root.parent.span_id == 0xB7AD6B7169203331
    assert [phase.start_time for phase in phases] == [
        root.start_time,
        *(phase.end_time for phase in phases[:-1]),
    ]
    assert phases[-1].end_time == root.end_time
    assert phases[0].end_time - root.start_time >= 9_000_000
    assert dict(root.attributes) == {
        "ecan.request_id": "r-1",
        "ecan.method": "cart.add",
        "ecan.sid": "abc",
        "ecan.incarnation": 3,
    }
    assert root.status.is_ok or root.status.status_code.name == "UNSET"


def test_an_error_is_the_status_of_the_request(spans):
    """The code, never the message: that may hold what the client sent (P16)."""
    trace = tracing.active.begin("r-1", None, time.monotonic())
    trace.failed("BUSY")
    trace.end()
    root = spans()["request"]
    assert root.status.status_code.name == "ERROR"
    assert root.status.description == "BUSY"
    assert root.attributes["ecan.error_code"] == "BUSY"
    assert root.events == ()


def test_a_handler_that_goes_on_after_its_answer_makes_no_phases(spans):
    """A trace that has ended stays as it was."""
    trace = tracing.active.begin("r-1", "garbage", time.monotonic())
    trace.accepted("slow", "abc")
    trace.end("TIMEOUT")
    token = trace.enter(1)
    trace.leave(token)
    trace.commit()
    trace.rolled_back()
    assert set(spans()) == {"slow", "gateway", "queue"}


def test_log_lines_have_no_ids_without_a_span(spans):
    """Neither when it is off nor outside of a request."""
    assert tracing.log_ids() == {}
    tracing.install(None)
    assert tracing.log_ids() == {}


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
    ],
)
def test_what_is_not_built_in_is_refused_by_name(environ, name):
    """One line that names the variable, the value and what is allowed."""
    with pytest.raises(ConfigError, match=name):
        tracing.start(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_off_by_default_and_when_told_so(environ):
    """Nothing is imported, nothing made."""
    assert tracing.start(environ) is False
    assert tracing.active is None
    tracing.stop()


def test_a_missing_library_is_said(monkeypatch):
    """Who asks for spans without the extra is told how to get it."""

    def missing(*_):
        raise ImportError("no module", name="opentelemetry.sdk")

    monkeypatch.setattr(tracing, "_provider", missing)
    with pytest.raises(ConfigError, match=r"not installed .*ecan-web\[tracing\]"):
        tracing.start({"OTEL_TRACES_EXPORTER": "otlp"})
