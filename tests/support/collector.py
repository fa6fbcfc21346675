"""An OpenTelemetry collector on a loopback port, by the protocol's own messages: the edge where traces leave the house.

with Collector() as collector:
    Settings(otlp_endpoint=collector.url, ...)
    collector.spans()                the spans that came, each with the service that sent it
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True)
class Seen:
    """One span. `parent` is "" for a root; `pid` is that of the process that sent it."""

    service: str
    pid: int
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    failed: str


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes whatever is sent. `requests` holds the messages as they came."""

    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def Export(self, request: Any, context: Any) -> trace_service_pb2.ExportTraceServiceResponse:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def __enter__(self) -> Collector:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def spans(self) -> list[Seen]:
        """All that came, in order of arrival."""
        return [
            Seen(
                _plain(sent.resource.attributes)["service.name"], _plain(sent.resource.attributes)["process.pid"],
                span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                _plain(span.attributes), span.status.message if span.status.code == 2 else "",
            )
            for request in list(self.requests)
            for sent in request.resource_spans
            for scope in sent.scope_spans
            for span in scope.spans
        ]  # fmt: skip


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
