"""All figures of the server as Prometheus text: every process's cells added up, and what the store knows now.

Any worker can answer, because the cells are shared and the store is one. Totals never fall while the supervisor lives:
a range outlives its worker.
"""

from collections.abc import Callable, Iterable, Iterator
from operator import add
from typing import Final

from fastmta.runtime.board import Board
from fastmta.runtime.metrics import CELLS, METRICS, Family, Histogram, SharedCells

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
    """The text over the shared cells and `figures`, which reads the store."""

    def __init__(self, shared: SharedCells, figures: Callable[[], StoreFigures | None]) -> None:
        self._shared = shared
        self._figures = figures

    def text(self) -> bytes:
        """The whole answer to GET /metrics; a gauge of the store is absent while the store cannot be read."""
        return "".join(self._lines()).encode()

    def _lines(self) -> Iterator[str]:
        board = self._shared.range(0)
        totals = self._totals(board[Board.RANGES_USED])
        for head, scale, samples in _FAMILIES:
            yield head
            for lead, index in samples:
                yield f"{lead}{totals[index] / scale}\n"
        for head, histogram, leads in _HISTOGRAMS:
            yield head
            cumulative = 0
            for number, lead in enumerate(leads[:-2]):
                cumulative += totals[histogram.index + 1 + number]
                yield f"{lead}{float(cumulative)}\n"
            yield f"{leads[-2]}{float(cumulative)}\n{leads[-1]}{totals[histogram.index] / histogram.scale}\n"
        yield _one("fastmta_workers", "Workers that accept", board[Board.READY])
        yield _one("fastmta_workers_configured", "Workers that should", board[Board.SLOTS])
        yield _one("fastmta_start_time_seconds", "When the supervisor started", board[Board.STARTED_AT_S])
        yield _one(
            "fastmta_worker_restarts_total", "Workers started again after a death", board[Board.RESTARTS], "counter"
        )
        figures = self._figures()
        if figures is not None:
            yield from _of_store(figures)

    def _totals(self, ranges: int) -> list[int]:
        """The sum of all ranges, cell by cell."""
        totals = [0] * CELLS
        for number in range(1, ranges):
            totals = list(map(add, totals, self._shared.range(number)))
        return totals


def _of_store(figures: StoreFigures) -> Iterator[str]:
    yield _head("fastmta_queue_messages", "Recipients in the queue", "gauge")
    for state, count in figures.queue.items():
        yield f'fastmta_queue_messages{{state="{state}"}} {float(count)}\n'
    yield _one(
        "fastmta_queue_age_seconds", "Age of the oldest undelivered recipient that is not held", figures.oldest_age_s
    )
    for name, value in figures.host.items():
        yield _one(f"fastmta_{name}", HOST[name], value)
    for name, value in figures.store.items():
        yield _one(f"fastmta_store_{name}", f"The store: {name.replace('_', ' ')}", value)


# --- the text format of Prometheus, version 0.0.4; nothing that is put into it needs escaping ---


def _head(name: str, documentation: str, kind: str) -> str:
    return f"# HELP {name} {documentation}\n# TYPE {name} {kind}\n"


def _one(name: str, documentation: str, value: float, kind: str = "gauge") -> str:
    return f"{_head(name, documentation, kind)}{name} {float(value)}\n"


def _labelled(name: str, labels: Iterable[tuple[str, str]]) -> str:
    """What stands before a sample's value."""
    shown = ",".join(f'{label}="{value}"' for label, value in sorted(labels))
    return f"{name}{{{shown}}} " if shown else f"{name} "


def _family(family: Family) -> tuple[str, int, list[tuple[str, int]]]:
    """The head of a family, its scale, and what stands before each sample, with its cell."""
    head = _head(family.name, family.documentation, "counter" if family.counter else "gauge")
    samples = [
        (_labelled(family.name, zip(family.labels, values, strict=True)), index)
        for values, index in family.places.items()
    ]
    return head, family.scale, samples


def _histogram(histogram: Histogram) -> tuple[str, Histogram, list[str]]:
    """The head of a histogram and what stands before each bucket, the count and the sum."""
    name = histogram.name
    bounds = [*(str(bound / histogram.scale) for bound in histogram.bounds), "+Inf"]
    leads = [_labelled(f"{name}_bucket", [("le", bound)]) for bound in bounds]
    return _head(name, histogram.documentation, "histogram"), histogram, [*leads, f"{name}_count ", f"{name}_sum "]


_FAMILIES: Final = [_family(family) for family in METRICS.families]
_HISTOGRAMS: Final = [_histogram(histogram) for histogram in METRICS.histograms]
