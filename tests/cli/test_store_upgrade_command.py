"""`fastmta store upgrade`: every other command names it for a store of an earlier version, and it does what it says."""

import lzma
import os
from pathlib import Path

import pytest

from fastmta.cli.failures import EX_NOINPUT, EX_TEMPFAIL
from fastmta.config.load import load
from fastmta.runtime.lock import lock_directory

OLD = Path(__file__).parents[1] / "store" / "old_stores" / "format_1.mdb.xz"


@pytest.fixture
def directory(cli, tmp_path):
    cli.user()
    directory = Path(load(tmp_path / "fastmta.toml").data_directory)
    (directory / "data.mdb").write_bytes(lzma.decompress(OLD.read_bytes()))
    return directory


def test_commands_name_the_upgrade_and_it_brings_the_store_over(cli, directory):
    refused = cli("user", "list")
    assert refused.code != 0
    assert "stop the server and run fastmta store upgrade" in refused.err
    assert "20 bodies would be rewritten" in cli.ok("store", "upgrade", "--dry-run").out
    assert cli("user", "list").code == refused.code
    assert "format 1 to 2: 22 messages, 20 bodies rewritten" in cli.ok("store", "upgrade").out
    assert "the store's format, 2, is served as it is; --finish brings it to 4" in cli.ok("store", "upgrade").out
    assert (
        "format 2 to 4: 10 recipients, 2 accounts would be rewritten"
        in cli.ok("store", "upgrade", "--finish", "--dry-run").out
    )
    assert "format 2 to 4: 10 recipients, 2 accounts rewritten" in cli.ok("store", "upgrade", "--finish").out
    assert "nothing to do" in cli.ok("store", "upgrade").out
    assert "nothing to do" in cli.ok("store", "upgrade", "--finish").out
    assert "first@example.org" in cli.ok("user", "list").out
    assert "no problem found" in cli.ok("store", "check").out


def test_it_is_refused_while_a_server_runs(cli, directory):
    lock = lock_directory(directory)
    try:
        assert cli("store", "upgrade").code == EX_TEMPFAIL
    finally:
        os.close(lock)


def test_without_a_store_it_says_so(cli):
    assert cli("store", "upgrade").code == EX_NOINPUT
