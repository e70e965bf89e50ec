"""`store check` names what cannot be read and goes on; `store salvage` saves the rest into a sound store."""

import shutil
import struct
from array import array
from pathlib import Path

import pytest

from fastmta._store import TABLE_MESSAGE, TABLE_META, TABLE_QUEUE, Store
from fastmta.model.errors import StorageFailure, StoreUnreadable
from fastmta.store.check import check_pages, check_path
from fastmta.store.days import PREFIX as DAYS
from fastmta.store.dkim_keys import DkimKey
from fastmta.store.dmarc_rows import PREFIX as DMARC_ROWS
from fastmta.store.mailstore import MailStore
from fastmta.store.salvage import salvage
from fastmta.store.tls_rows import PREFIX as TLS_ROWS
from tests.store.composing import HOP, blob_of, envelope, tail

PAGE = 4096
MESSAGES = 400
DKIM_KEY = DkimKey("example.test", "s1", "ed25519", "active", b"a key", 1_700_000_000, 1_700_000_000)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an account, mail in two mailboxes, an alias and a queue in every state."""
    path = tmp_path_factory.mktemp("sound") / "store"
    mail = MailStore.open(path, sync=False)
    run = _until_done
    account = run(mail.accounts.add("user@example.test", "hash", quota_bytes=10**9))
    run(mail.aliases.add("alias@example.test", ("user@example.test",)))
    run(mail.dkim_keys.add(DKIM_KEY))
    run(mail.suspensions.add([HOP], "example.net", "root"))
    run(mail.bans.add("192.0.2.0/24", 0, "by hand", "root"))
    run(mail.credentials.keep_scram_keys(account.id, "hash", {}))
    run(mail.credentials.add_app_password(account.id, "phone", ()))
    mine = mail.raw.new_unit()
    mine.put(TABLE_META, DAYS + b"a job", b"2026-11-27")
    mine.put(TABLE_META, DMARC_ROWS + b"a row", b"counted")
    mine.put(TABLE_META, TLS_ROWS + b"a row", b"counted")
    mail.raw.commit_sync(mine)
    inbox, archive = (mail.mailboxes.get(account.id, name) for name in ("INBOX", "Archive"))
    assert inbox is not None and archive is not None
    for number in range(MESSAGES):
        data = b"Subject: %d\r\n\r\n" % number + b"x" * (number % 9 * 900)
        run(
            mail.mailboxes.append(
                (inbox, archive)[number % 2].id,
                blob_of(mail.raw, data),
                flags=number % 4,
                keywords=b"k" if number % 3 else b"",
                prefix=b"Delivered-To: user@example.test\r\n",
                internal_date_s=1_700_000_000 + number,
                structure=bytes(16),
            )
        )
    mail.retained_bytes = 1 << 30
    for number in range(3):
        blob = blob_of(mail.raw, b"Subject: gone %d\r\n\r\n" % number)
        _, uid = run(mail.mailboxes.append(archive.id, blob, internal_date_s=1, structure=bytes(16)))
        run(mail.mailboxes.expunge(archive.id, array("I", [uid]), only_deleted=False))
    for number in range(60):
        blob = blob_of(mail.raw, b"queued %d\r\n" % number)
        unit = mail.raw.new_unit()
        unit.blob(blob)
        queue_id = mail.raw.new_id()
        unit.enqueue(queue_id, blob.blob_id, envelope())
        for n, state in enumerate((1, 2, 3)):
            unit.recipient(queue_id, n, HOP, 0, state, 10**12, tail(b"r%d@example.net" % n))
        mail.commit_sync(unit)
    mail.close()
    return path


def _until_done(work):  # type: ignore[no-untyped-def]
    """A store without a loop commits at once: its coroutines never wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


def copy_of(sound: Path, target: Path) -> Path:
    shutil.copytree(sound, target)
    return target / "data.mdb"


def leaf_with(path: Path, table: int, nth: int) -> int:
    """The page that holds the nth row of a table."""
    store = Store(str(path), sync=False)
    key, value = store.scan(table, b"", b"", 10_000)[nth]
    store.close()
    return (path / "data.mdb").read_bytes().rindex(bytes((table,)) + key + value) // PAGE


def parents_of(data: bytes, child: int) -> list[int]:
    """Branch pages with a node for this page."""
    found = []
    for number in range(2, len(data) // PAGE):
        page = data[number * PAGE : (number + 1) * PAGE]
        said, _, kind, lower, _ = struct.unpack_from("<QHHHH", page)
        if said == number and kind == 1:
            for (place,) in struct.iter_unpack("<H", page[16:lower]):
                low, high, _, _ = struct.unpack_from("<HHHH", page, place)
                if low | high << 16 == child:
                    found.append(number)
    return found


def flip(file: Path, page: int, offset: int = 8) -> None:
    with file.open("r+b") as opened:
        opened.seek(page * PAGE + offset)
        opened.write(b"\xff" * 8)


def everything(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """What a user sees: by mailbox, all that is kept of each message, and its bytes."""
    mail = MailStore.open(path, sync=False)
    account = mail.accounts.lookup("user@example.test")
    assert account is not None
    assert account.password_hash == "hash"
    out = {}
    for box in mail.mailboxes.list(account.id):
        rows = mail.mailboxes.rows(box.id)
        out[f"{box.name} {box.uid_validity}"] = [
            (row.uid, row.flags, row.keywords, row.modseq, mail.mailboxes.read(box.id, row.uid, 0, row.size))
            for row in rows
        ]
    mail.close()
    return out


def test_a_sound_store_is_saved_whole(sound: Path, tmp_path: Path) -> None:
    assert check_pages(sound, lambda line: pytest.fail(line)) == 0
    outcome = salvage(sound, tmp_path / "saved")
    assert outcome.lost == []
    assert outcome.kept["messages"] == MESSAGES
    assert outcome.kept["queue entries"] == 60
    assert check_path(tmp_path / "saved").problems == []
    assert everything(tmp_path / "saved") == everything(sound)
    mail = MailStore.open(tmp_path / "saved", sync=False)
    assert outcome.kept["expunged messages"] == mail.retained.totals(mail.retained.accounts())[0] == 3
    assert mail.queue.counts() == {"active": 60, "deferred": 60, "held": 60}
    assert mail.aliases.lookup("alias@example.test") == ("user@example.test",)
    assert list(mail.dkim_keys.list("example.test")) == [DKIM_KEY]
    assert [each.hop for each in mail.suspensions.all()] == [HOP]
    assert [each.network for each in mail.bans.all()] == ["192.0.2.0/24"]
    found = mail.accounts.lookup("user@example.test")
    assert found is not None
    assert [each.name for each in mail.credentials.app_passwords(found.id)] == ["phone"]
    assert len(mail.credentials.login_secret()) == 32
    assert mail.raw.get(TABLE_META, DAYS + b"a job") == b"2026-11-27"
    assert mail.raw.get(TABLE_META, DMARC_ROWS + b"a row") == b"counted"
    assert mail.raw.get(TABLE_META, TLS_ROWS + b"a row") == b"counted"
    mail.close()


def test_what_a_damaged_leaf_held_is_named_and_the_rest_is_saved(sound: Path, tmp_path: Path) -> None:
    file = copy_of(sound, tmp_path / "damaged")
    flip(file, leaf_with(tmp_path / "damaged", TABLE_MESSAGE, 150))
    lines: list[str] = []
    assert check_pages(tmp_path / "damaged", lines.append) == len(lines) > 0
    assert "table=message key=" in lines[0]
    outcome = salvage(tmp_path / "damaged", tmp_path / "saved")
    assert outcome.lost
    assert 0 < MESSAGES - outcome.kept["messages"] < 80
    assert check_path(tmp_path / "saved").problems == []
    whole, saved = everything(sound), everything(tmp_path / "saved")
    assert whole.keys() == saved.keys()
    for name, rows in saved.items():
        assert set(rows) <= set(whole[name])


def test_what_stands_below_a_damaged_branch_page_is_saved(sound: Path, tmp_path: Path) -> None:
    file = copy_of(sound, tmp_path / "damaged")
    leaf = leaf_with(tmp_path / "damaged", TABLE_MESSAGE, 150)
    flip(file, parents_of(file.read_bytes(), leaf)[-1])
    lines: list[str] = []
    assert check_pages(tmp_path / "damaged", lines.append) > 0
    outcome = salvage(tmp_path / "damaged", tmp_path / "saved")
    assert outcome.kept["messages"] == MESSAGES
    assert check_path(tmp_path / "saved").problems == []
    assert everything(tmp_path / "saved") == everything(sound)


def test_a_file_that_was_cut_is_named_and_what_is_left_is_saved(sound: Path, tmp_path: Path) -> None:
    file = copy_of(sound, tmp_path / "cut")
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size * 2 // 3)
    lines: list[str] = []
    assert check_pages(tmp_path / "cut", lines.append) > 0
    assert any("behind the end of the file" in line for line in lines)
    outcome = salvage(tmp_path / "cut", tmp_path / "saved")
    assert outcome.lost
    assert check_path(tmp_path / "saved").problems == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_meta_page_is_one_line_and_salvage_takes_the_other(sound: Path, tmp_path: Path, number: int) -> None:
    file = copy_of(sound, tmp_path / "damaged")
    flip(file, number, 16)
    with pytest.raises(StoreUnreadable, match="fastmta store salvage"):
        Store(str(tmp_path / "damaged"), sync=False, create=False)
    lines: list[str] = []
    assert check_pages(tmp_path / "damaged", lines.append) > 0
    assert f"meta page {number} is damaged" in lines[0]
    outcome = salvage(tmp_path / "damaged", tmp_path / "saved")
    assert outcome.kept["messages"] >= MESSAGES - 1
    assert check_path(tmp_path / "saved").problems == []


def test_what_was_deleted_is_no_loss(sound: Path, tmp_path: Path) -> None:
    """Bytes wait in the trash for a minute: of expunged mail, of deleted mailboxes, and of what left the queue."""
    copy_of(sound, tmp_path / "deleted")
    mail = MailStore.open(tmp_path / "deleted", sync=False)
    account = mail.accounts.lookup("user@example.test")
    assert account is not None
    inbox, archive = (mail.mailboxes.get(account.id, name) for name in ("INBOX", "Archive"))
    assert inbox is not None and archive is not None
    _until_done(mail.mailboxes.expunge(inbox.id, array("I", range(1, 20)), only_deleted=False))
    _until_done(mail.mailboxes.delete(archive.id))
    queued = [key for key, _ in mail.raw.scan(TABLE_QUEUE, b"", b"", 40) if len(key) == 12]
    unit = mail.raw.new_unit()
    unit.move_each(b"".join(queued), 0b1110, 0, 5)
    assert mail.raw.commit_sync(unit).failure is None
    mail.close()
    outcome = salvage(tmp_path / "deleted", tmp_path / "saved")
    assert outcome.lost == []
    assert outcome.kept["messages"] == MESSAGES // 2 - 19
    assert outcome.kept["queue entries"] < 60
    assert check_path(tmp_path / "saved").problems == []


def test_a_store_that_is_open_is_not_salvaged(sound: Path, tmp_path: Path) -> None:
    copy_of(sound, tmp_path / "open")
    mail = MailStore.open(tmp_path / "open", sync=False)
    with pytest.raises(StorageFailure, match="is open elsewhere"):
        salvage(tmp_path / "open", tmp_path / "saved")
    mail.close()
