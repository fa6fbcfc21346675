"""Spans by OpenTelemetry, sent to a collector by OTLP over gRPC.

Only this file knows the library, and it is imported only where P2M_OTLP_ENDPOINT is set.

    Spans       begin: a span under a parent; root: the one that a run's trace begins with; close
    Span        set: attributes; end

A span never holds what a person or the LLM wrote, nor an error's message: names, numbers and reasons alone.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attributes = Mapping[str, str | int | float | bool]

_SCOPE = "p2m"
_TIMEOUT_S = 3.0
# A generation asks the LLM some hundred times a second: what comes in a second fits several times.
_QUEUE, _BATCH, _DELAY_MS = 16_384, 1_024, 1_000.0
_KINDS = {
    "internal": trace.SpanKind.INTERNAL, "server": trace.SpanKind.SERVER, "client": trace.SpanKind.CLIENT,
}  # fmt: skip
_W3C = TraceContextTextMapPropagator()


_root: ContextVar[tuple[int, int] | None] = ContextVar("p2m_root", default=None)


class _Ids(RandomIdGenerator):
    """Random ids, but for a root's, which follow from its run."""

    def generate_trace_id(self) -> int:
        root = _root.get()
        return root[0] if root else super().generate_trace_id()

    def generate_span_id(self) -> int:
        root = _root.get()
        return root[1] if root else super().generate_span_id()


class Span:
    """One span under way."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def ids(self) -> tuple[str, str]:
        """Trace id and span id, as hexadecimal digits."""
        context = self._span.get_span_context()
        return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)

    @property
    def traceparent(self) -> str:
        """The span as W3C Trace Context hands it on."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, context=trace.set_span_in_context(self._span))
        return carrier.get("traceparent", "")

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def end(self, failed: str = "") -> None:
        """Ends it; `failed` is the reason where it failed."""
        if failed:
            self._span.set_status(trace.StatusCode.ERROR, failed)
        self._span.end()


class Spans:
    """All spans of this process, each in the name of a service. Every method may be called from any thread."""

    def __init__(self, collector: str) -> None:
        self._exporter = OTLPSpanExporter(endpoint=collector, timeout=_TIMEOUT_S)
        self._processor = BatchSpanProcessor(
            self._exporter, max_queue_size=_QUEUE, max_export_batch_size=_BATCH, schedule_delay_millis=_DELAY_MS
        )
        self._tracers: dict[str, trace.Tracer] = {}
        self._lock = threading.Lock()

    def begin(self, name: str, service: str, traceparent: str, attributes: Attributes, kind: str = "internal") -> Span:
        """A span under the one that `traceparent` names."""
        parent = _W3C.extract({"traceparent": traceparent})
        tracer = self._tracer(service)
        return Span(tracer.start_span(name, context=parent, kind=_KINDS[kind], attributes=dict(attributes)))

    def root(self, name: str, service: str, traceparent: str, attributes: Attributes, at: float) -> None:
        """The first span of a trace, with the ids of `traceparent`: a moment, `at` seconds of the epoch."""
        _, trace_id, span_id, _ = traceparent.split("-")
        tracer = self._tracer(service)
        given = _root.set((int(trace_id, 16), int(span_id, 16)))
        try:
            span = tracer.start_span(
                name, context=trace.set_span_in_context(trace.INVALID_SPAN), start_time=int(at * 1e9),
                attributes=dict(attributes),
            )  # fmt: skip
        finally:
            _root.reset(given)
        span.end(end_time=max(time.time_ns(), int(at * 1e9)))

    def close(self) -> None:
        """Sends what is left, for at most a few seconds: a collector that is down holds nobody up."""
        sending = threading.Thread(target=self._processor.force_flush, daemon=True)
        sending.start()
        sending.join(_TIMEOUT_S)
        if sending.is_alive():  # it is trying again and again
            with contextlib.suppress(Exception):
                self._exporter.shutdown(timeout_millis=0)
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _tracer(self, service: str) -> trace.Tracer:
        with self._lock:
            if service not in self._tracers:
                resource = Resource.create(
                    {"service.name": f"p2m-{service}", "service.namespace": "p2m", "process.pid": os.getpid()}
                )
                provider = TracerProvider(resource=resource, id_generator=_Ids(), shutdown_on_exit=False)
                provider.add_span_processor(self._processor)
                self._tracers[service] = provider.get_tracer(_SCOPE)
            return self._tracers[service]
