"""The store as a command opens it."""

import asyncio
from pathlib import Path

from fastmta.cli.opened import open_store, run_with
from fastmta.config.schema import Config
from fastmta.index.marker import Marker
from fastmta.store import MailStore


def test_a_store_that_went_back_takes_no_index_of_later_past_a_command_either(tmp_path: Path) -> None:
    config = Config(data_directory=str(tmp_path))

    async def add(_config: Config, store: MailStore) -> None:
        for n in range(5):
            await store.accounts.add(f"u{n}@example.test", "x")

    store = open_store(config)
    marker = Marker(tmp_path / "index", store.number)
    marker.begin(store.last_txn_id)
    index = tmp_path / "index" / "1f.fts"
    index.write_bytes(b"x")
    marker.note(store.last_txn_id())
    store.close()
    open_store(config).close()
    assert index.exists()
    marker.note(store_at := _transaction(config) + 3)
    marker.close()
    run_with(config, add)
    assert _transaction(config) >= store_at
    assert not index.exists()


def _transaction(config: Config) -> int:
    found: list[int] = []

    async def look(_config: Config, store: MailStore) -> None:
        await asyncio.sleep(0)
        found.append(store.last_txn_id())

    run_with(config, look)
    return found[0]
