"""A store of format 2: served as it is, brought to all indexes and counts, killed at any point and resumed."""

import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastmta._store import STORE_LEVEL, TABLE_META, TABLE_QUEUE, TABLE_QUEUE_BY_ERROR, Store
from fastmta.store import MailStore
from fastmta.store.check import check_store
from fastmta.store.queue import Outcome, Selection
from fastmta.store.queue_records import INDEXED_BY_TENANT, RECORD_INDEXED
from fastmta.store.salvage import salvage
from fastmta.store.upgrade import finish, plan, plan_finish, upgrade
from tests.store.showing import shown

OLD_STORES = Path(__file__).parent / "old_stores"
REPLY = b"451 4.3.0 <r1@example.net>: try again"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The directory of a store of format 2: 10 recipients of 4 messages, 2 deferred, 2 held."""
    directory = tmp_path / "old"
    directory.mkdir()
    (directory / "data.mdb").write_bytes(lzma.decompress((OLD_STORES / "format_2.mdb.xz").read_bytes()))
    return directory


def require_equal(directory: Path, *, is_finished: bool) -> None:
    mail = MailStore.open(directory, create=False, sync=False)
    try:
        assert check_store(mail.raw).problems == []
        assert json.loads(json.dumps(shown(mail))) == json.loads((OLD_STORES / "format_2.json").read_text())
        assert mail.queue.has_counts is is_finished
        found = [pair for pair, _ in (mail.queue.walk(Selection(error=b"TRY again"), after) for after in (b"", b"e"))]
        assert {each.last_reply for rows in found for _, each in rows} <= {REPLY}
        assert sum(len(rows) for rows in found) >= 2
    finally:
        mail.close()


def test_it_is_served_as_it_is(old: Path) -> None:
    require_equal(old, is_finished=False)
    assert not plan(old).is_needed
    assert not upgrade(old).is_needed
    require_equal(old, is_finished=False)


async def test_what_is_changed_in_it_stays_in_its_format(old: Path) -> None:
    mail = MailStore.open(old, create=False, sync=False)
    for message, recipients in [(m, mail.queue.recipients(m.queue_id)) for m, _ in mail.queue.walk()[0]]:
        outcomes = [Outcome(message.queue_id, each.n, 0, 2, 1, 5, b"later") for each in recipients]
        await mail.queue.finish(outcomes)
        await mail.queue.hold(message.queue_id)
    assert check_store(mail.raw).problems == []
    assert mail.raw.scan(TABLE_QUEUE_BY_ERROR, b"") == []
    assert mail.queue.totals()[3:] == (None, None)
    mail.close()


def test_finish_brings_everyone_into_the_indexes_and_counts(old: Path) -> None:
    planned = plan_finish(old)
    assert (planned.level, planned.target, planned.records) == (2, STORE_LEVEL, {"recipients": 10, "accounts": 2})
    require_equal(old, is_finished=False)
    told: list[tuple[str, int, int]] = []
    assert finish(old, lambda *words: told.append(words)).records == {"recipients": 10, "accounts": 2}
    assert ("recipients", 10, 10) in told
    assert told[-1] == ("accounts", 2, 2)
    require_equal(old, is_finished=True)
    assert finish(old).records == plan_finish(old).records == {}
    store = Store(str(old), create=False)
    assert {value[RECORD_INDEXED] for key, value in store.scan(TABLE_QUEUE, b"") if len(key) == 12} == {
        INDEXED_BY_TENANT
    }
    totals = MailStore(store).queue.totals()
    assert (totals.messages, totals.size_bytes) == (4, 765_626)
    store.close()


def test_finish_killed_at_any_commit_goes_on(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import sys; from pathlib import Path; from fastmta.store import upgrade; upgrade.INDEXED_AT_ONCE = 1; "
        "upgrade.finish(Path(sys.argv[1]))"
    )
    killed = 0
    for nth in range(2, 60, 2):
        environment = {**os.environ, "FASTMTA_CRASH_AT": f"commit:{nth % 6 + 1}"}
        done = subprocess.run(
            [sys.executable, "-c", program, str(old)], env=environment, capture_output=True, check=False
        )
        if done.returncode == 0:
            break
        assert done.returncode < 0, done.stderr
        killed += 1
        store = Store(str(old), create=False)
        assert check_store(store).problems == []
        store.close()
    assert killed > 2
    require_equal(old, is_finished=True)


async def test_recipients_move_while_it_is_under_way(old: Path) -> None:
    mail = MailStore.open(old, create=False, sync=False)
    assert mail.raw.raise_level()
    queued = mail.queue.walk()[0]
    first = [(m.queue_id, r.n) for m, r in queued]
    await mail.queue.hold(first[0][0])
    await mail.queue.delete(*first[1])
    await mail.queue.index(first[2:5])
    await mail.queue.release(first[0][0])
    await mail.queue.delete(first[-1][0])
    assert check_store(mail.raw).problems == []
    assert not mail.queue.has_counts
    mail.close()
    finish(old)
    mail = MailStore.open(old, create=False, sync=False)
    assert mail.queue.has_counts
    assert check_store(mail.raw).problems == []
    assert mail.raw.get(TABLE_META, b"finished") == b"%d" % STORE_LEVEL
    mail.close()


def test_salvage_makes_the_indexes_and_counts(old: Path, tmp_path: Path) -> None:
    assert salvage(old, tmp_path / "new").lost == []
    store = Store(str(tmp_path / "new"), create=False)
    assert check_store(store).problems == []
    assert MailStore(store).queue.totals().messages == 4
    store.close()
