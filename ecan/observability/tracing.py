"""Spans of requests for OpenTelemetry; off unless the standard OTEL_* variables ask for them.

Each request is one span, named like its method, with its phases below it::

    request ─┬─ gateway   received, checked, accepted
             ├─ queue     waiting for the requests before it
             ├─ handler   its code; spans of its own nest here, in threads too
             └─ commit    until what it did is durable

It continues the browser's trace if the request has ``meta.traceparent``. Off, all of
this costs a look at `active` and at the ``trace`` of requests and calls.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from ecan.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

SERVICE_NAME = "ecan-web"
"""Unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say another."""

FLUSH_S = 3.0
"""How long the last spans may take at the end of the process."""

MAX_NAME_CHARS = 200
"""Of a client's request id or method name in a span."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

active: Tracing | None = None
"""What makes spans in this process; None: nobody wants them."""


class Trace:
    """The spans of one request; made by `Tracing.begin`. Runs on: the loop.

    Its phases follow each other; `end` may come in any of them, and twice.
    """

    __slots__ = ("_base_ns", "_code", "_context", "_phase", "_root", "_tracing")

    def __init__(
        self, tracing: Tracing, root: Span, context: Context, base_ns: int, received_ns: int
    ) -> None:
        self._tracing = tracing
        self._root = root
        self._context = context
        self._base_ns = base_ns
        self._code: str | None = None
        self._phase: Span | None = self._start("gateway", received_ns)

    def accepted(self, method: str, sid: str | None = None) -> None:
        """The gateway let it through, to a session or, without one, to the lobby."""
        self._root.update_name(method)
        self._root.set_attribute("ecan.method", method)
        if sid is not None:
            self._root.set_attribute("ecan.sid", sid)
            self._next("queue")

    def enter(self, incarnation: int = 0) -> Token[Context]:
        """The handler begins; spans made from here on are below it. Undo with `leave`."""
        self._next("handler")
        if incarnation:
            self._root.set_attribute("ecan.incarnation", incarnation)
        api = self._tracing.api
        span = self._phase or self._root
        token: Token[Context] = api.context.attach(
            api.trace.set_span_in_context(span, self._context)
        )
        return token

    def leave(self, token: Token[Context]) -> None:
        """The handler's code is left, however it ended."""
        self._tracing.api.context.detach(token)

    def commit(self) -> None:
        """The handler is done and what it did goes to the store."""
        self._next("commit")

    def rolled_back(self) -> None:
        """It runs again: another session had changed what it read."""
        if self._phase is not None:
            self._phase.add_event("conflict", timestamp=self._now_ns())

    def failed(self, code: str) -> None:
        """It is going to be answered with this error code."""
        self._code = code

    def end(self, code: str | None = None) -> None:
        """It was answered: with this error code, with that of `failed`, or well."""
        phase, self._phase = self._phase, None
        if phase is None:
            return
        now_ns = self._now_ns()
        phase.end(now_ns)
        code = code or self._code
        if code is not None:
            self._root.set_attribute("ecan.error_code", code)
            self._root.set_status(self._tracing.api.trace.StatusCode.ERROR, code)
        self._root.end(now_ns)

    def _next(self, name: str) -> None:
        if self._phase is None:
            return  # ended: an abandoned handler may still commit
        now_ns = self._now_ns()
        self._phase.end(now_ns)
        self._phase = self._start(name, now_ns)

    def _start(self, name: str, start_ns: int) -> Span:
        return self._tracing.tracer.start_span(name, self._context, start_time=start_ns)

    def _now_ns(self) -> int:
        return self._base_ns + int(self._tracing.mono() * 1e9)


class _Api:
    """The parts of OpenTelemetry's interface that are used, imported when they are."""

    def __init__(self) -> None:
        from opentelemetry import context, trace  # noqa: PLC0415 - an extra
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415 - an extra

        self.context: Any = context
        self.trace: Any = trace
        self.propagator = tracecontext.TraceContextTextMapPropagator()


class Tracing:
    """Makes the spans of requests.

    Args:
        provider: of spans.
        mono: the clock whose times `begin` gets.
    """

    def __init__(
        self, provider: TracerProvider, mono: Callable[[], float] = time.monotonic
    ) -> None:
        self.api = _Api()
        self.provider = provider
        self.mono = mono
        self.tracer = provider.get_tracer("ecan")

    def begin(self, request_id: str, traceparent: str | None, received_mono: float) -> Trace:
        """A request came in.

        Args:
            request_id: the client's, no secret.
            traceparent: W3C trace context; one that is malformed starts a new trace.
            received_mono: when.
        """
        # Times of one request are all taken from one clock, which nobody sets.
        base_ns = time.time_ns() - int(self.mono() * 1e9)
        received_ns = base_ns + int(received_mono * 1e9)
        parent = None
        if traceparent is not None:
            parent = self.api.propagator.extract({"traceparent": traceparent})
        root = self.tracer.start_span(
            "request",
            parent or self.api.context.Context(),
            kind=self.api.trace.SpanKind.SERVER,
            attributes={"ecan.request_id": request_id[:MAX_NAME_CHARS]},
            start_time=received_ns,
        )
        context = self.api.trace.set_span_in_context(root, self.api.context.Context())
        return Trace(self, root, context, base_ns, received_ns)


def log_ids() -> dict[str, str]:
    """``trace_id`` and ``span_id`` of the span that is current here, for log lines."""
    if active is None:
        return {}
    found = active.api.trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"}


def install(tracing: Tracing | None) -> None:
    """Make spans with this from now on, in the whole process; None: no more."""
    global active  # noqa: PLW0603 - a look at a module costs less than a way to each request
    active = tracing


def wanted(environ: Mapping[str, str]) -> list[str]:
    """The exporters that OTEL_* variables ask for; none if tracing is off.

    >>> wanted({}), wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    ([], ['otlp'])
    >>> wanted({"OTEL_TRACES_EXPORTER": "none"}), wanted({"OTEL_TRACES_EXPORTER": "console"})
    ([], ['console'])

    Raises:
        ConfigError: an exporter or protocol that is not built in.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    named = environ.get("OTEL_TRACES_EXPORTER", "")
    names = [name.strip() for name in named.split(",") if name.strip()]
    if not names and any(environ.get(name) for name in _ENDPOINTS):
        names = ["otlp"]
    if names == ["none"]:
        return []
    if not set(names) <= {"otlp", "console"}:
        raise ConfigError("OTEL_TRACES_EXPORTER", named, "otlp, console or none")
    for name in _PROTOCOLS:
        if "otlp" in names and environ.get(name, "http/protobuf") != "http/protobuf":
            raise ConfigError(name, environ[name], "http/protobuf")
    return names


def start(environ: Mapping[str, str]) -> bool:
    """Begin to trace if the environment asks for it; the SDK reads the rest of OTEL_* itself.

    Returns:
        Whether it did.

    Raises:
        ConfigError: it asks for what is not there.
    """
    exporters = wanted(environ)
    if not exporters:
        return False
    variable = next(name for name in ("OTEL_TRACES_EXPORTER", *_ENDPOINTS) if environ.get(name))
    try:
        provider = _provider(environ, exporters)
    except ImportError as error:
        raise ConfigError(
            variable,
            environ[variable],
            f"nothing: tracing is not installed ({error.name}); pip install 'ecan-web[tracing]'",
        ) from None
    except ValueError as error:
        raise ConfigError(variable, environ[variable], str(error)) from None
    install(Tracing(provider))
    return True


def _provider(environ: Mapping[str, str], exporters: list[str]) -> TracerProvider:
    from opentelemetry import trace  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )

    named = environ.get("OTEL_SERVICE_NAME") or (
        "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    )
    provider = TracerProvider(
        resource=Resource.create({} if named else {"service.name": SERVICE_NAME}),
        shutdown_on_exit=False,
    )
    if "otlp" in exporters:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    if "console" in exporters:
        # Stdout belongs to the ready line and to results.
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
    # Spans that authors make in their handlers go the same way.
    trace.set_tracer_provider(provider)
    return provider


def stop() -> None:
    """Trace no more; what is left is sent, within `FLUSH_S`. Runs on: any thread, no loop."""
    tracing = active
    install(None)
    if tracing is None:
        return
    # A collector that is down must not use up the time the process has to end in.
    flush = threading.Thread(target=tracing.provider.shutdown, name="ecan-spans", daemon=True)
    flush.start()
    flush.join(FLUSH_S)
