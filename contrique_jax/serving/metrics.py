"""What Prometheus may ask for."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """Counters of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], float], died: Callable[[], float]):
        """`waiting`: images that are not answered yet; `died`: decoding processes that did."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("contrique_requests", "Requests answered", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "contrique_request_seconds", "From a request's headers to its answer", ["route"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.images = Counter(
            "contrique_images", "Images by what became of them: scored, broken", ["outcome"], registry=self.registry
        )
        self.batches = Histogram(
            "contrique_batch_images", "Images that went through the network together", buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )  # fmt: skip
        Gauge("contrique_waiting_images", "Images not answered yet", registry=self.registry).set_function(waiting)
        Gauge(
            "contrique_decoders_died", "Decoding processes that an image brought down", registry=self.registry
        ).set_function(died)

    def text(self) -> bytes:
        return generate_latest(self.registry)
