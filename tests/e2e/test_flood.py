"""A flood from many addresses fills bounded tables and nothing else: the short form of `python -m bench.flood`."""

import json
from pathlib import Path

from bench import flood
from fastmta._limits import TABLE_BYTES
from tests.support.waiting import wait_for

ADDRESSES = 2000
PAGES_BYTES = 1 << 20  # of other pages of the mappings


def test_a_flood_from_many_addresses_stays_within_the_stated_memory(tmp_path: Path) -> None:
    quarter = ADDRESSES // 4
    with flood.prepared(tmp_path, "") as server:
        seen = flood.measure(server, ADDRESSES, 0.2)
        wait_for(lambda: len(json.loads(server.cli("ban", "list", "--json").stdout)) == quarter, "all bans are kept")
    assert seen.replies == {
        "220": ADDRESSES,
        "250": 5 * quarter,
        "221": 2 * quarter,
        "450 4.2.0": quarter,
        "550 5.1.1": 2 * quarter,
        "421 4.7.0": quarter,
    }
    assert seen.own + seen.shared <= flood.MEMORY_BYTES
    assert seen.shared <= flood.TABLES * TABLE_BYTES + PAGES_BYTES
    assert seen.meanwhile.passed, "the healthy client has been served"
