"""Stores of earlier formats: upgraded, killed at any point and resumed, they show what they showed."""

import json
import lzma
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from fastmta._store import STORE_LEVEL, TABLE_BLOB, TABLE_MESSAGE, TABLE_META, Store, blob_meta, digest_of
from fastmta.model.errors import StorageFailure, StoreDamaged, StoreUnreadable
from fastmta.store import MailStore
from fastmta.store.check import check_store
from fastmta.store.salvage import salvage
from fastmta.store.upgrade import body_from_one, plan, upgrade
from tests.store.showing import shown

OLD_STORES = Path(__file__).parent / "old_stores"
NAMES = ["format_1"]  # those that are not served as they are


@pytest.fixture(params=NAMES)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """The directory of a store of an earlier format, and its name."""
    directory = tmp_path / "old"
    directory.mkdir()
    (directory / "data.mdb").write_bytes(lzma.decompress((OLD_STORES / f"{request.param}.mdb.xz").read_bytes()))
    return directory, request.param


def require_equal(directory: Path, name: str) -> None:
    mail = MailStore.open(directory, create=False, sync=False)
    try:
        assert check_store(mail.raw).problems == []
        assert json.loads(json.dumps(shown(mail))) == json.loads((OLD_STORES / f"{name}.json").read_text())
        for key, value in mail.raw.scan(TABLE_BLOB, b"", b"", 100_000):
            assert len(value) <= 4080
            assert len(key) == 12 or blob_meta(value).cuts == ()
    finally:
        mail.close()


def test_an_upgraded_store_shows_what_it_showed(old: tuple[Path, str]) -> None:
    directory, name = old
    told: list[tuple[str, int, int]] = []
    done = upgrade(directory, lambda *words: told.append(words))
    assert done.is_needed
    assert done.records["messages"] > 20
    assert told[-1][1] == told[-1][2]
    require_equal(directory, name)
    assert not upgrade(directory).is_needed


def test_an_old_store_is_refused_with_the_one_command(old: tuple[Path, str]) -> None:
    directory, _ = old
    with pytest.raises(StoreUnreadable, match=r"earlier FastMTA.*run fastmta store upgrade"):
        MailStore.open(directory)


def test_a_dry_run_changes_nothing(old: tuple[Path, str]) -> None:
    directory, _ = old
    before = (directory / "data.mdb").read_bytes()
    found = plan(directory)
    assert found.records["bodies"] > 10
    after = (directory / "data.mdb").read_bytes()
    assert before[8192:] == after[8192:]  # all but the two meta pages


def test_it_is_killed_at_each_commit_and_goes_on(old: tuple[Path, str]) -> None:
    directory, name = old
    program = (
        "import sys; from pathlib import Path; from fastmta.store import upgrade; upgrade.SLICE_BYTES = 20_000; "
        "upgrade.upgrade(Path(sys.argv[1]))"
    )
    killed = 0
    for nth in range(1, 400):
        done = subprocess.run(
            [sys.executable, "-c", program, str(directory)],
            env={**os.environ, "FASTMTA_CRASH_AT": f"commit:{nth}"},
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            break
        assert done.returncode < 0, done.stderr
        killed += 1
        try:  # killed right behind its last commit, it is done
            Store(str(directory), create=False).close()
            break
        except StoreUnreadable as error:
            assert "store upgrade" in str(error)
    assert killed > 10
    require_equal(directory, name)


def test_salvage_reads_the_old_format_too(old: tuple[Path, str], tmp_path: Path) -> None:
    directory, name = old
    outcome = salvage(directory, tmp_path / "new")
    assert outcome.lost == []
    mail = MailStore.open(tmp_path / "new", create=False, sync=False)
    wanted = json.loads((OLD_STORES / f"{name}.json").read_text())
    assert [each[1] for each in shown(mail)["accounts"]] == [each[1] for each in wanted["accounts"]]
    for mine, theirs in zip(shown(mail)["accounts"], wanted["accounts"], strict=True):
        for box, other in zip(mine[4], theirs[4], strict=True):
            assert json.loads(json.dumps(box[8])) == other[8]
    mail.close()


def test_bytes_that_were_damaged_are_so_afterwards() -> None:
    chunks: list[bytes | None] = [b"a" * 61_424, b"b" * 61_424, b"c" * 30_000]
    digest = 0
    for chunk in chunks:
        digest = digest_of(chunk or b"", digest)
    value = struct.pack("<BBHIIIQQ", 1, 0, 0, 0, 1, 3, 152_848, digest)
    record, pieces = body_from_one(value, chunks)
    meta = blob_meta(record)
    assert (meta.chunks, meta.stored_size, len(pieces)) == (38, 152_848, 38)
    assert b"".join(pieces.values()) == b"".join(each or b"" for each in chunks)
    lost = body_from_one(value, [chunks[0], None, chunks[2]])
    assert blob_meta(lost[0])._replace(digest=0) == meta._replace(digest=0)
    assert set(range(38)) - set(lost[1]) == set(range(15, 31))
    wrong = body_from_one(value, [chunks[0], b"x" * 61_424, chunks[2]])[0]
    computed = 0
    for number in range(38):
        computed = digest_of((b"a" * 61_424 + b"x" * 61_424 + b"c" * 30_000)[number * 4064 :][:4064], computed)
    assert blob_meta(wrong).digest != computed


def test_a_full_disk_is_told_and_it_goes_on_later(old: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    directory, name = old
    monkeypatch.setenv("FASTMTA_STORE_FAIL", "put:30")
    with pytest.raises(StorageFailure, match="make room and run fastmta store upgrade again"):
        upgrade(directory)
    monkeypatch.delenv("FASTMTA_STORE_FAIL")
    with pytest.raises(StoreUnreadable, match="has not ended"):
        MailStore.open(directory)
    upgrade(directory)
    require_equal(directory, name)


def test_a_store_that_is_open_is_not_upgraded(old: tuple[Path, str]) -> None:
    directory, _ = old
    upgrade(directory)
    mail = MailStore.open(directory, create=False)
    with pytest.raises(StorageFailure, match="open elsewhere"):
        upgrade(directory)
    mail.close()


@pytest.mark.parametrize(
    ("level", "text"),
    [(b"%d" % (STORE_LEVEL + 1), "later FastMTA"), (b"what", "does not know"), (b"1>2", "has not ended")],
)
def test_what_this_program_cannot_read_it_refuses_in_plain_words(tmp_path: Path, level: bytes, text: str) -> None:
    store = Store(str(tmp_path / "store"), sync=False)
    unit = store.new_unit()
    unit.put(TABLE_META, b"schema", level)
    store.commit_sync(unit)
    store.close()
    with pytest.raises(StoreUnreadable, match=text):
        Store(str(tmp_path / "store"))
    if text != "has not ended":
        with pytest.raises(StoreUnreadable, match=text):
            upgrade(tmp_path / "store")


@pytest.mark.parametrize("table", [TABLE_BLOB, TABLE_MESSAGE])
def test_an_unknown_format_of_a_record_is_damage_and_named(tmp_path: Path, table: int) -> None:
    store = Store(str(tmp_path / "store"), sync=False)
    unit = store.new_unit()
    key = bytes(8) if table == TABLE_BLOB else bytes(12)
    unit.put(table, key, b"\x63" + bytes(80))
    store.commit_sync(unit)
    with pytest.raises(StoreDamaged, match="format that this program does not know"):
        store.get(table, key)
    store.close()
