"""The Prometheus endpoint: binds the metrics to prometheus_client and serves them over HTTP.

Only this file knows the library, and it is imported only where P2M_METRICS_PORT is set. What is served holds numbers
and names of parts, stages and LLMs; it asks for no login, so it binds loopback unless P2M_METRICS_HOST says otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from threading import Thread
from wsgiref.simple_server import WSGIServer

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.kit.telemetry.metrics import METRICS, Counter, Watched

log = logging.getLogger(__name__)

_KINDS = {"counter": prometheus.Counter, "gauge": prometheus.Gauge}


class _Looks(Collector):
    """Looks at what is watched, at each scrape."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for metric in METRICS:
            if isinstance(metric, Watched):
                family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
                for labels, value in metric.values():
                    family.add_metric(labels, value)
                yield family


class Endpoint:
    """http://host:port/metrics. `port` is the bound one. OSError where it is taken."""

    def __init__(self, host: str, port: int) -> None:
        registry = prometheus.CollectorRegistry()
        # The process's own: memory, processor time, open files.
        prometheus.ProcessCollector(registry=registry)
        registry.register(_Looks())
        self._server: WSGIServer
        self._thread: Thread
        self._server, self._thread = prometheus.start_http_server(port, host, registry)
        self.port = int(self._server.server_port)
        for metric in METRICS:
            if metric.kind == "histogram":
                metric.bound = prometheus.Histogram(
                    metric.name, metric.meaning, metric.labels, registry=registry, buckets=metric.buckets
                )
            elif not isinstance(metric, Watched):
                metric.bound = _KINDS[metric.kind](metric.name, metric.meaning, metric.labels, registry=registry)
            if isinstance(metric, Counter):
                for value in metric.known:
                    metric.bound.labels(value)
        log.info("metrics at http://%s:%d/metrics", host, self.port)

    def close(self) -> None:
        """Stops serving; the metrics do nothing again."""
        for metric in METRICS:
            metric.bound = None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
