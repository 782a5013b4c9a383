"""Tracing through a whole server: in this process, and in one of its own to an OTLP receiver."""

from __future__ import annotations

import http.server
import threading

import pytest
from edge_kit import Process

from ecan.errors import ConflictError
from ecan.observability import tracing
from ecan.testing import Client, running_app
from ecan.testing.process import ServerProcess

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PASSWORD = "correct horse battery"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"

HANDLERS = """
import time

from opentelemetry import trace

from ecan.handlers.registry import handler

tracer = trace.get_tracer("shop")


@handler("shop.async")
async def in_the_loop(ctx) -> int:
    with tracer.start_as_current_span("own async"):
        ctx.state["n"] = 1
    return 1


@handler("shop.thread")
def in_a_thread(ctx) -> int:
    with tracer.start_as_current_span("own thread"):
        time.sleep(0.01)
        ctx.state["n"] = 2
    return 2


HANDLERS = [in_the_loop, in_a_thread]
"""


@pytest.fixture
async def traced(no_task_left):
    """A server in this process that traces, and its spans so far."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.install(tracing.Tracing(provider))
    try:
        async with running_app() as app:
            yield app, exporter.get_finished_spans
    finally:
        tracing.install(None)


def _of(spans, request_id: str) -> dict:
    """Root and phases of a request."""
    (root,) = [one for one in spans if one.attributes.get("ecan.request_id") == request_id]
    below = [one for one in spans if one.parent and one.parent.span_id == root.context.span_id]
    return {"root": root, "phases": [one.name for one in below]}


async def test_a_handler_that_runs_again_says_so(traced, monkeypatch):
    """ADR 10: another session had changed what it read; the commit it lost has an event."""
    app, spans = traced
    commit, lost = app.app.store.commit, []

    def first_is_refused(change):
        if change.documents and not lost:
            lost.append(change)
            raise ConflictError("changed meanwhile")
        return commit(change)

    monkeypatch.setattr(app.app.store, "commit", first_is_refused)
    async with app.client() as client:
        await client.login("admin", PASSWORD)
        await client.call("save_settings", {"settings": {"a": 1}}, id="twice")
    found = _of(spans(), "twice")
    assert found["phases"] == ["gateway", "queue", "handler", "commit", "handler", "commit"]
    refused = [one for one in spans() if [e.name for e in one.events] == ["conflict"]]
    assert [one.name for one in refused] == ["commit"]


async def test_each_request_is_one_span_with_its_phases(traced):
    """Inline, async, thread, stream; reads have no commit, the lobby has no queue."""
    app, spans = traced
    async with app.client() as client:
        await client.login("admin", PASSWORD)
        sid = client.login_result["sid"]
        await client.call("debug.incr", {"key": "n"}, id="inline", traceparent=PARENT)
        await client.call("debug.state_get", {"key": "n"}, id="reads")
        await client.call("debug.sleep", {"seconds": 0.01}, id="async")
        await client.call("debug.block", {"seconds": 0.01}, id="thread")
        await client.call("debug.stream", {"n": 2, "delay": 0.0}, id="stream")
        await client.error("debug.crash", id="crash")
        await client.push("session.restarted")
        await client.error("debug.block", {"seconds": 0.3}, id="late", deadline_ms=50)
        await client.error("no.such.method", id="unknown")
        await client.call("debug.incr", {"key": "n"}, id="inline")
    found = spans()
    phases = ["gateway", "queue", "handler"]
    inline = [span for span in found if span.attributes.get("ecan.request_id") == "inline"]
    first, again = (_of([one, *(s for s in found if s not in inline)], "inline") for one in inline)
    assert first["phases"] == [*phases, "commit"]
    assert again["phases"] == ["gateway", "queue"]
    assert first["root"].context.trace_id == int(TRACE_ID, 16)
    assert first["root"].attributes["ecan.sid"] == sid
    assert first["root"].attributes["ecan.incarnation"] == 1
    assert _of(found, "reads")["phases"] == phases
    for request_id in ("async", "thread", "stream"):
        assert _of(found, request_id)["phases"] == [*phases, "commit"], request_id
    for request_id, code in (("crash", "HANDLER_CRASHED"), ("late", "TIMEOUT")):
        assert _of(found, request_id)["phases"] == phases
        assert _of(found, request_id)["root"].attributes["ecan.error_code"] == code
    assert _of(found, "unknown")["phases"] == ["gateway"]
    assert _of(found, "unknown")["root"].name == "request"
    (login,) = [span for span in found if span.name == "login"]
    assert _of(found, login.attributes["ecan.request_id"])["phases"] == ["gateway", "handler"]


class _Collector(http.server.BaseHTTPRequestHandler):
    """Takes OTLP over HTTP."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.server.batches.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    """A running receiver of OTLP."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    server.batches = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


async def test_a_real_server_sends_its_spans_to_an_otlp_receiver(tmp_path, collector):
    """Authors' own spans nest in the handler's, in threads too; a normal stop sends the rest."""
    (tmp_path / "traced_shop.py").write_text(HANDLERS, "utf-8")
    env = {
        "ECAN_HANDLERS": "traced_shop",
        "ECAN_ADMIN_PASSWORD": PASSWORD,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
    }
    with ServerProcess(tmp_path, env) as server:
        async with Client(server.url) as client:
            await client.login("admin", PASSWORD)
            await client.call("shop.async", traceparent=PARENT)
            await client.call("shop.thread", traceparent=PARENT)
        assert server.stop() == 0
        assert "Traceback" not in "".join(server.output)
    assert {path for path, _ in collector.batches} == {"/v1/traces"}
    resources = [one for _, batch in collector.batches for one in batch.resource_spans]
    names = {
        attribute.value.string_value
        for one in resources
        for attribute in one.resource.attributes
        if attribute.key == "service.name"
    }
    assert names == {"ecan-web"}
    spans = [span for one in resources for scope in one.scope_spans for span in scope.spans]
    mine = [span for span in spans if span.trace_id.hex() == TRACE_ID]
    by_id = {span.span_id: span for span in mine}
    for own, method in (("own async", "shop.async"), ("own thread", "shop.thread")):
        (span,) = [one for one in mine if one.name == own]
        handler = by_id[span.parent_span_id]
        assert (handler.name, by_id[handler.parent_span_id].name) == ("handler", method)
    assert PASSWORD not in str(collector.batches)


async def test_a_receiver_that_is_down_does_not_keep_the_server_from_ending(tmp_path):
    """Spans are lost, nothing else."""
    env = {
        "ECAN_ADMIN_PASSWORD": PASSWORD,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    }
    with ServerProcess(tmp_path, env) as server:
        async with Client(server.url) as client:
            await client.login("admin", PASSWORD)
        assert server.stop() == 0


async def test_spans_on_the_console_go_to_stderr(tmp_path):
    """OTEL_TRACES_EXPORTER=console; stdout keeps to the ready line."""
    process = Process(tmp_path, ECAN_ADMIN_PASSWORD=PASSWORD, OTEL_TRACES_EXPORTER="console")
    async with process:
        async with process.client() as client:
            await client.login("admin", PASSWORD)
        process.signal()
        assert await process.ended() == 0
    assert '"ecan.method": "login"' in process.err
    assert "ecan.method" not in process.out


async def test_an_exporter_that_is_not_there_ends_the_start(tmp_path):
    """One line that names the variable, and exit code 2."""
    process = Process(tmp_path, OTEL_TRACES_EXPORTER="jaeger")
    assert await process.ended() == 2
    (line,) = process.err.splitlines()
    assert line.startswith("ecan: OTEL_TRACES_EXPORTER")
    assert "otlp, console or none" in line
