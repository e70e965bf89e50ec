"""All figures of the server as Prometheus text: every process's cells added up, and what the store knows now.

Any worker can answer, because the cells are shared and the store is one. Totals never fall while the supervisor lives:
a range outlives its worker.
"""

from collections.abc import Callable, Iterable, Iterator
from operator import add
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest

from fastmta.runtime.board import Board
from fastmta.runtime.metrics import CELLS, METRICS, SharedCells

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class StoreFigures:
    """What is read from the store for one answer; None stands for what it could not say."""

    __slots__ = ("host", "oldest_age_s", "queue", "store")

    def __init__(
        self, queue: dict[str, int], oldest_age_s: float, store: dict[str, float], host: dict[str, float] | None = None
    ) -> None:
        self.host = host or {}  # name -> figure of HOST
        self.queue = queue  # state -> messages
        self.oldest_age_s = oldest_age_s
        self.store = store  # name -> figure, exported as fastmta_store_<name>


HOST: Final = {
    "disk_free_bytes": "What is free for mail on the disk of data_directory",
    "disk_size_bytes": "The size of that disk",
    "disk_reserve_bytes": "queue_minfree: below it new mail is put off",
    "tls_certificate_expiry_timestamp_seconds": "When tls.cert_file ends to be valid",
}


class Collector:
    """A prometheus_client collector over the shared cells and `figures`, which reads the store."""

    def __init__(self, shared: SharedCells, figures: Callable[[], StoreFigures | None]) -> None:
        self._shared = shared
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Every family once; a gauge of the store is absent while the store cannot be read."""
        board = self._shared.range(0)
        totals = self._totals(board[Board.RANGES_USED])
        for family in METRICS.families:
            kind: type[CounterMetricFamily | GaugeMetricFamily] = (
                CounterMetricFamily if family.counter else GaugeMetricFamily
            )
            metric = kind(family.name, family.documentation, labels=family.labels)
            for values, index in family.places.items():
                metric.add_metric(values, totals[index] / family.scale if family.scale > 1 else totals[index])
            yield metric
        for histogram in METRICS.histograms:
            cumulative = 0
            buckets: list[tuple[str, float]] = []
            for number, bound in enumerate((*histogram.bounds, None)):
                cumulative += totals[histogram.index + 1 + number]
                buckets.append(("+Inf" if bound is None else str(bound / histogram.scale), cumulative))
            distribution = HistogramMetricFamily(histogram.name, histogram.documentation)
            distribution.add_metric([], buckets, totals[histogram.index] / histogram.scale)
            yield distribution
        yield _gauge("fastmta_workers", "Workers that accept", board[Board.READY])
        yield _gauge("fastmta_workers_configured", "Workers that should", board[Board.SLOTS])
        yield _gauge("fastmta_start_time_seconds", "When the supervisor started", board[Board.STARTED_AT_S])
        restarts = CounterMetricFamily("fastmta_worker_restarts_total", "Workers started again after a death")
        restarts.add_metric([], board[Board.RESTARTS])
        yield restarts
        figures = self._figures()
        if figures is not None:
            yield from _of_store(figures)

    def _totals(self, ranges: int) -> list[int]:
        """The sum of all ranges, cell by cell."""
        totals = [0] * CELLS
        for number in range(1, ranges):
            cells = self._shared.range(number)
            totals = list(map(add, totals, cells))
        return totals

    def pieces(self) -> Iterator[bytes]:
        """The answer to GET /metrics, one family at a time: all of it takes 2 ms, a family at most a tenth of that."""
        for family in self.collect():
            yield generate_latest(_Registry(family))


class _Registry:
    """The one method of prometheus_client's registry that its exposition calls, for a single family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    metric = GaugeMetricFamily(name, documentation)
    metric.add_metric([], value)
    return metric


def _of_store(figures: StoreFigures) -> Iterator[Metric]:
    queue = GaugeMetricFamily("fastmta_queue_messages", "Recipients in the queue", labels=["state"])
    for state, count in figures.queue.items():
        queue.add_metric([state], count)
    yield queue
    yield _gauge(
        "fastmta_queue_age_seconds", "Age of the oldest undelivered recipient that is not held", figures.oldest_age_s
    )
    for name, value in figures.host.items():
        yield _gauge(f"fastmta_{name}", HOST[name], value)
    for name, value in figures.store.items():
        yield _gauge(f"fastmta_store_{name}", f"The store: {name.replace('_', ' ')}", value)
