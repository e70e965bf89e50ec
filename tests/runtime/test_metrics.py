import pytest

from fastmta._store import TABLE_NAMES
from fastmta.runtime.metrics import (
    METRICS,
    RANGE_BYTES,
    TABLES,
    SharedCells,
    index_of,
    local_cells,
    reset_gauges,
)


def test_damage_is_counted_by_each_table_of_the_store() -> None:
    assert (*TABLE_NAMES, "other") == TABLES


def test_every_cell_belongs_to_one_metric() -> None:
    places = [place for family in METRICS.families for place in family.places.values()]
    for histogram in METRICS.histograms:
        places += range(histogram.index, histogram.index + len(histogram.bounds) + 2)
    assert len(places) == len(set(places))
    assert max(places) < RANGE_BYTES // 8


def test_an_unlisted_label_value_counts_as_other() -> None:
    assert METRICS.auth_total["CARRIER-PIGEON", "success"] == METRICS.auth_total["other", "success"]
    assert METRICS.messages_rejected_total["whim"] == METRICS.messages_rejected_total["other"]


def test_an_unlisted_value_without_other_is_an_error() -> None:
    with pytest.raises(KeyError):
        METRICS.connections_total["gopher"]


def test_index_of_finds_each_kind_of_metric() -> None:
    assert index_of("fastmta_connections_total", service="imap") == METRICS.connections_total["imap"]
    assert index_of("fastmta_messages_received_total") == METRICS.messages_received_total
    assert index_of("fastmta_store_commit_seconds") == METRICS.commit_seconds.index
    with pytest.raises(KeyError):
        index_of("fastmta_unheard_of")


@pytest.mark.parametrize(("value", "bucket"), [(0, 0), (0.000064, 0), (0.000065, 1), (4.194304, 16), (5, 17), (-1, 0)])
def test_an_observation_falls_into_the_bucket_whose_bound_includes_it(value: float, bucket: int) -> None:
    cells = local_cells()
    METRICS.commit_seconds.observe(cells, value)
    counted = cells[METRICS.commit_seconds.index + 1 : METRICS.commit_seconds.index + 19].tolist()
    assert counted[bucket] == 1
    assert sum(counted) == 1


def test_ranges_are_apart_and_gauges_alone_are_reset() -> None:
    shared = SharedCells.create(4)
    first, second = shared.range(1), shared.range(2)
    total, gauge = METRICS.connections_total["smtp"], METRICS.connections["smtp"]
    first[total] += 5
    first[gauge] += 2
    reset_gauges(first)
    assert (first[total], first[gauge], second[total]) == (5, 0, 0)
    assert SharedCells(shared.fd, 4).range(1)[total] == 5
    with pytest.raises(IndexError):
        shared.range(4)
