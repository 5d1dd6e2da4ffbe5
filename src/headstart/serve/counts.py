"""What GET /metrics says, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from headstart.serve.gate import Gate
from headstart.serve.served import Served

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Counts:
    """Of one server."""

    def __init__(self, gate: Gate) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "headstart_requests", "Requests by path and status", ("path", "status"), registry=self._registry
        )
        self.images = Counter(
            "headstart_images", "Images by model and result", ("model", "result"), registry=self._registry
        )
        self.seconds = Histogram(
            "headstart_predict_seconds",
            "From the head of a POST /predict to its answer, of those answered with 200",
            buckets=SECONDS,
            registry=self._registry,
        )
        self.reloads = Counter(
            "headstart_reloads",
            "Models that took another's place, or could not",
            ("model", "result"),
            registry=self._registry,
        )
        self.now = Now(gate)
        self._registry.register(self.now)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Now(Collector):
    """What is so at the moment. `models`: those at work."""

    def __init__(self, gate: Gate) -> None:
        self._gate, self.models = gate, list[Served]()

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("headstart_queue_images", "Images that wait or are worked on", self._gate.images)
        yield GaugeMetricFamily("headstart_body_bytes", "Bytes of bodies in memory", self._gate.bytes)
        known = GaugeMetricFamily(
            "headstart_model_info", "Models at work", labels=("model", "version", "task", "network")
        )
        for one in self.models:
            known.add_metric((one.name, one.version, one.model.task.name, one.model.backbone.name), 1)
        yield known
