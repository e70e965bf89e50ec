"""`fastmta verified`: what is known of addresses is listed and forgotten, by a worker or without one."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from fastmta.store import MailStore
from fastmta.store.verified import Verified
from tests.support.server import Server

NOW_MS = int(time.time() * 1000)  # a server forgets what is too old
ROWS = [
    Verified("ann@one.test", "ok", "2.1.5", "fine", NOW_MS + 0),
    Verified("bob@one.test", "bounced", "5.1.1", "nobody here", NOW_MS + 1),
    Verified("carl@two.test", "deferred", "4.2.1", "later", NOW_MS + 2),
    Verified("dora@not-one.test", "ok", "2.1.5", "fine", NOW_MS + 3),
]


def listed(server: Server, *options: str) -> dict[str, str]:
    rows = json.loads(server.cli("verified", "list", "--json", *options).stdout)
    return {row["address"]: row["status"] for row in rows}


@pytest.mark.parametrize("running", [False, True], ids=["alone", "worker"])
def test_what_is_known_of_addresses_is_listed_and_forgotten(tmp_path: Path, running: bool) -> None:
    server = Server(tmp_path, services=("smtp",), with_tls=False)
    store = MailStore.open(server.data_directory, sync=False)
    for row in ROWS:
        asyncio.run(store.verified.put(row))
    store.close()
    if running:
        server.start()
    try:
        assert listed(server) == {row.address: row.status for row in ROWS}
        assert listed(server, "--domain", "One.test") == {"ann@one.test": "ok", "bob@one.test": "bounced"}
        assert listed(server, "--status", "deferred") == {"carl@two.test": "deferred"}
        assert "5.1.1 nobody here" in server.cli("verified", "list").stdout
        assert json.loads(server.cli("verified", "clear", "Carl@two.test", "--json").stdout) == {"cleared": 1}
        assert json.loads(server.cli("verified", "clear", "carl@two.test", "--json").stdout) == {"cleared": 0}
        assert json.loads(server.cli("verified", "clear", "@one.test", "--json").stdout) == {"cleared": 2}
        assert listed(server) == {"dora@not-one.test": "ok"}
        assert server.cli("verified", "clear", "all", check=False).returncode == 64
        assert json.loads(server.cli("verified", "clear", "ALL", "--json").stdout) == {"cleared": 1}
        assert listed(server) == {}
    finally:
        server.stop()
    store = MailStore.open(server.data_directory, sync=False)
    assert store.verified.count == 0
    store.close()
