"""Programs N and N-1 on one store: a trial step from this program's level to the next one's.

What a later program changes is tried with usage records: at the next level they have the format 3. `level=` makes a
store of this program behave as one of the next program.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmta._store import STORE_LEVEL, TABLE_META, TABLE_USAGE, Store
from fastmta.model.errors import StorageFailure, StoreDamaged, StoreUnreadable
from fastmta.store import MailStore, upgrade
from fastmta.store.check import check_store
from tests.store.composing import append, blob_of, new_mailbox, run, uids

NEXT = STORE_LEVEL + 1


class UsageStep(upgrade.SharedStep):
    """The trial: another format byte."""

    table = TABLE_USAGE
    name = "accounts"

    def rewritten(self, key: bytes, value: bytes) -> bytes | None:
        return b"\3" + value[1:] if value[0] == 2 else None


@pytest.fixture(autouse=True)
def _trial_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(upgrade.SHARED_STEPS, STORE_LEVEL, (UsageStep,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store as this program makes it, with accounts 1 to 40."""
    store = Store(str(tmp_path / "store"), sync=False, engine="lmdb")
    for account in range(1, 41):
        new_mailbox(store, account, b"INBOX")
    store.close()
    return tmp_path / "store"


def formats(store: Store) -> set[int]:
    return {value[0] for _, value in store.scan(TABLE_USAGE, b"")}


def level(store: Store) -> bytes | None:
    return store.get(TABLE_META, b"schema")


def set_quota(store: Store, account: int, quota: int) -> str:
    unit = store.new_unit()
    unit.quota(account, quota)
    return run(store, unit)


def test_the_next_program_writes_what_this_one_reads(path: Path) -> None:
    later = Store(str(path), sync=False, level=NEXT)
    assert set_quota(later, 1, 1000) == ""
    new_mailbox(later, 77, b"INBOX")
    assert formats(later) == {2}
    later.close()
    now = Store(str(path), sync=False)
    assert MailStore(now).accounts.usage(77) == (0, 0)
    assert check_store(now).problems == []
    now.close()


def test_a_new_store_of_the_next_program_has_its_level(tmp_path: Path) -> None:
    later = Store(str(tmp_path), sync=False, level=NEXT, engine="lmdb")
    new_mailbox(later, 1, b"INBOX")
    assert (level(later), formats(later)) == (b"%d" % NEXT, {3})
    later.close()


def test_finish_rewrites_everything_and_this_program_is_refused_in_words(path: Path) -> None:
    done = upgrade.finish(path, level=NEXT)
    assert (done.level, done.target, done.records) == (STORE_LEVEL, NEXT, {"accounts": 40})
    with pytest.raises(
        StoreUnreadable, match=f"written by a later FastMTA: its format is {NEXT}, this program knows {STORE_LEVEL}"
    ):
        Store(str(path), create=False)
    with pytest.raises(StoreUnreadable, match=f"a later FastMTA: its format is {NEXT}"):
        upgrade.upgrade(path)
    later = Store(str(path), sync=False, level=NEXT)
    assert (level(later), formats(later)) == (b"%d" % NEXT, {3})
    later.close()


def test_finish_again_has_nothing_to_do(path: Path) -> None:
    upgrade.finish(path, level=NEXT)
    again = upgrade.finish(path, level=NEXT)
    assert not again.is_needed
    assert again.records == {}


def test_finish_goes_on_where_it_was_killed(path: Path) -> None:
    later = Store(str(path), sync=False, level=NEXT)
    assert later.raise_level()
    assert set_quota(later, 3, 5) == ""
    assert formats(later) == {2, 3}
    later.close()
    assert upgrade.finish(path, level=NEXT).records == {"accounts": 39}


def test_without_a_next_level_there_is_nothing_to_finish(path: Path) -> None:
    done = upgrade.finish(path)
    assert not done.is_needed
    assert done.records == {}


def test_a_format_of_the_next_level_is_damage_before_it(path: Path) -> None:
    store = Store(str(path), sync=False)
    key, value = store.scan(TABLE_USAGE, b"", limit=1)[0]
    unit = store.new_unit()
    unit.put(TABLE_USAGE, key, b"\3" + value[1:])
    assert run(store, unit) == ""
    with pytest.raises(StoreDamaged, match="a format that this program does not know"):
        store.get(TABLE_USAGE, key)
    store.close()


EARLIER_PROGRAM = """
import sys
from fastmta._store import Store
from tests.store.composing import append, blob_of, uids
store = Store(sys.argv[1], sync=False, create=False)
box = int(sys.argv[2])
print("open", flush=True)
for line in sys.stdin:
    if line == "end\\n":
        break
    unit = store.new_unit()
    blob = blob_of(store, b"e" * 3000)
    unit.blob(blob)
    append(unit, box, blob.blob_id)
    store.commit_sync(unit)
    print(unit.failure or "filed", flush=True)
store.close()
print("closed", flush=True)
"""


class Earlier:
    """This program in another process, which knows no later level."""

    def __init__(self, path: Path, mailbox_id: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", EARLIER_PROGRAM, str(path), str(mailbox_id)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert self.said() == "open"

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, word: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.said()


@pytest.fixture
def earlier(path: Path) -> Iterator[tuple[Earlier, int]]:
    store = Store(str(path), sync=False)
    mailbox_id = new_mailbox(store, 50, b"INBOX")
    store.close()
    other = Earlier(path, mailbox_id)
    yield other, mailbox_id
    other.process.kill()
    other.process.communicate()


def test_both_write_under_load_until_one_finishes(path: Path, earlier: tuple[Earlier, int]) -> None:
    """The earlier program files and the next one files and removes, in one account; then the earlier one goes."""
    other, mailbox_id = earlier
    later = Store(str(path), sync=False, level=NEXT)
    for n in range(1, 41):
        assert other.ask("file") == "filed"
        blob = blob_of(later, b"l" * 2000)
        unit = later.new_unit()
        unit.blob(blob)
        append(unit, mailbox_id, blob.blob_id)
        assert run(later, unit) == ""
        if n % 4 == 0:
            unit = later.new_unit()
            unit.expunge(mailbox_id, uids(2 * n - 1), False)
            assert run(later, unit) == ""
    assert formats(later) == {2}
    assert MailStore(later).accounts.usage(50) == (30 * 3000 + 40 * 2000, 70)

    with pytest.raises(StorageFailure, match=rf"does not know the format {NEXT} has the store .* open: stop it first"):
        later.raise_level()
    assert other.ask("file") == "filed"  # and it goes on
    assert other.ask("end") == "closed"

    stop = threading.Event()
    failures: list[str] = []

    def load() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            failures.append(set_quota(later, 1 + n % 40, 10**6 + n))

    writer = threading.Thread(target=load)
    writer.start()
    try:
        done = subprocess.run(
            [sys.executable, "-c", FINISHER, str(path)],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            timeout=60,
        )
    finally:
        stop.set()
        writer.join()
    assert (done.stdout, done.stderr) == ("finished\n", "")
    assert failures
    assert set(failures) == {""}
    assert set_quota(later, 1, 7) == ""
    assert (level(later), formats(later)) == (b"%d" % NEXT, {3})
    assert MailStore(later).accounts.usage(50) == (31 * 3000 + 40 * 2000, 71)
    assert check_store(later).problems == []
    later.close()


FINISHER = """
import sys
from pathlib import Path
from fastmta.store import upgrade
from tests.store.test_store_sharing import NEXT, UsageStep
upgrade.SHARED_STEPS[NEXT - 1] = (UsageStep,)
upgrade.finish(Path(sys.argv[1]), level=NEXT)
print("finished")
"""


def test_who_writes_sees_a_level_that_another_process_has_raised(path: Path) -> None:
    """Nobody asks him: he reads it in the transaction that follows a stranger's."""
    later = Store(str(path), sync=False, level=NEXT)
    assert set_quota(later, 1, 5) == ""
    assert formats(later) == {2}
    program = "import sys; from fastmta._store import Store; Store(sys.argv[1], level=%d, create=False).raise_level()"
    subprocess.run([sys.executable, "-c", program % NEXT, str(path)], check=True, timeout=60)
    assert set_quota(later, 1, 6) == ""
    assert {value[0] for key, value in later.scan(TABLE_USAGE, b"") if int.from_bytes(key, "big") == 1} == {3}
    later.close()
