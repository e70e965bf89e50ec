"""The tenant of queued recipients: what finds and counts them by it, and how a store of the level before gets there."""

import lzma
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from fastmta._store import (
    STORE_LEVEL,
    TABLE_QUEUE,
    TABLE_QUEUE_BY_TENANT,
    Store,
)
from fastmta.model.envelope import Envelope, RecipientTail, Terms
from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore
from fastmta.store.check import check_store
from fastmta.store.queue import Outcome, Selection
from fastmta.store.queue_records import FRESH, INDEXED, INDEXED_BY_TENANT, RECORD_INDEXED
from fastmta.store.upgrade import finish, plan_finish
from tests.store.composing import HOP, NOW_MS, blob_of

OLD_STORES = Path(__file__).parent / "old_stores"


@pytest.fixture
async def mail(tmp_path: Path) -> AsyncIterator[MailStore]:
    mail = MailStore.open(tmp_path / "store", sync=False, clock=ManualClock())
    yield mail
    assert check_store(mail.raw).problems == []
    mail.close()


async def add(mail: MailStore, tenant: str, *recipients: str, state: int = 1, envelope: Envelope | None = None) -> int:
    """Queues a message of a tenant ("": of whoever gets it) to recipients of the tenants that are named."""
    envelope = envelope or Envelope(b"s@example.org", NOW_MS, 1, 0, tenant=tenant)
    rows = [
        (HOP, 0, state, NOW_MS, RecipientTail(b"r%d@example.net" % n, tenant=each)) for n, each in enumerate(recipients)
    ]
    return await mail.queue.add(envelope, rows, blob_of(mail.raw))


def found(mail: MailStore, tenant: str, **more: object) -> set[tuple[int, int]]:
    out: set[tuple[int, int]] = set()
    after = b""
    while True:
        page, after = mail.queue.walk(Selection(tenant=tenant.encode(), **more), after, 2)  # type: ignore[arg-type]
        keys = {(message.queue_id, each.n) for message, each in page}
        assert not keys & out
        out |= keys
        if not after:
            return out


def marks(store: Store) -> set[int]:
    return {value[RECORD_INDEXED] for key, value in store.scan(TABLE_QUEUE, b"") if len(key) == 12}


def counts(mail: MailStore) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for page in mail.queue.domain_counts(by="tenant"):
        for name, row in page.items():
            out[name.decode()] = [a + b for a, b in zip(out.get(name.decode(), [0, 0, 0]), row, strict=True)]
    return {name: row for name, row in out.items() if any(row)}


async def test_who_sends_comes_before_who_gets(mail: MailStore) -> None:
    sent = await add(mail, "Acme", "getter", "getter")
    got = await add(mail, "", "getter", "Other", "")
    for _ in range(2):  # fresh, then in the indexes
        assert found(mail, "acme") == {(sent, 0), (sent, 1)}
        assert found(mail, "GETTER") == {(got, 0)}
        assert found(mail, "other") == {(got, 1)}
        assert found(mail, "acm") == found(mail, "acme.example") == set()
        assert counts(mail) == {"acme": [2, 0, 0], "getter": [1, 0, 0], "other": [1, 0, 0]}
        await mail.queue.index([(sent, 0), (sent, 1), (got, 0), (got, 1), (got, 2)])
    assert marks(mail.raw) == {INDEXED_BY_TENANT}
    assert len(mail.raw.scan(TABLE_QUEUE_BY_TENANT, b"")) == 4


async def test_counts_and_rows_follow_each_move(mail: MailStore) -> None:
    first = await add(mail, "acme", "", "")
    assert marks(mail.raw) == {FRESH}
    await mail.queue.finish([Outcome(first, 0, 0, 2, 1, NOW_MS + 5, b"451 later")])
    await mail.queue.hold(first, 1)
    assert counts(mail) == {"acme": [0, 1, 1]}
    assert found(mail, "acme", state=3) == {(first, 1)}
    await mail.queue.finish([Outcome(first, 0, 0, 2, 2, NOW_MS + 9, b"451 later still")])
    await mail.queue.release(first)
    assert counts(mail) == {"acme": [1, 1, 0]}
    assert check_store(mail.raw).problems == []
    await mail.queue.delete(first, 0)
    assert found(mail, "acme") == {(first, 1)}
    await mail.queue.delete(first)
    assert counts(mail) == {}
    assert mail.raw.scan(TABLE_QUEUE_BY_TENANT, b"") == []


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope(b"", 2**40, 2**33, 200, "x" * 40, "y" * 300, b"z" * 300, "FULL", True, "ESMTP", tenant="acme"),
        Envelope(b"a" * 300, 0, 127, 128, "x" * 31, "y" * 32, b"", "", False, "SMTP", Terms(), "acme"),
        Envelope(b"", 65_535, 65_536, 255, terms=Terms(True, 2**41, "RT", 2**41), tenant="acme"),
        Envelope(b"", 1, 1, 0, tenant="acme"),
    ],
)
async def test_it_is_found_behind_fields_of_all_sizes(mail: MailStore, envelope: Envelope) -> None:
    queue_id = await add(mail, "", "", envelope=envelope, state=2)
    (key, _), *others = mail.raw.scan(TABLE_QUEUE_BY_TENANT, b"")
    assert (key, others) == (b"acme\0" + queue_id.to_bytes(8, "big") + bytes(4), [])


@pytest.mark.parametrize("size", [1, 31, 32, 255, 256, 400, 401, 1000])
async def test_names_of_all_lengths(mail: MailStore, size: int) -> None:
    name = "Ä" + "n" * (size - 1)
    sent = await add(mail, name, "", state=2)
    other = await add(mail, name + "x", "", state=2)
    assert found(mail, name) == {(sent, 0)}
    assert found(mail, name + "x") == {(other, 0)}


async def test_records_of_programs_without_the_field_are_nobodys(mail: MailStore) -> None:
    unit = mail.raw.new_unit()
    blob = blob_of(mail.raw)
    unit.blob(blob)
    queue_id = mail.raw.new_id()
    short = msgspec.msgpack.encode([b"s@x", NOW_MS, 1, 0, "", "", b"", "", False, "ESMTP", None])
    unit.enqueue(queue_id, blob.blob_id, short)
    unit.recipient(queue_id, 0, HOP, 0, 2, NOW_MS, msgspec.msgpack.encode([b"r@x", b"", 0, b""]))
    mail.raw.commit_sync(unit)
    assert unit.failure is None
    assert mail.raw.scan(TABLE_QUEUE_BY_TENANT, b"") == []
    assert counts(mail) == {}


# --- the level before ---


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The directory of a store of level 3: 10 recipients of 4 messages, 2 deferred, 2 held."""
    directory = tmp_path / "old"
    directory.mkdir()
    (directory / "data.mdb").write_bytes(lzma.decompress((OLD_STORES / "format_3.mdb.xz").read_bytes()))
    return directory


async def test_a_store_of_the_level_before_is_served_and_finished(old: Path) -> None:
    mail = MailStore.open(old, create=False, sync=False)
    assert mail.queue.has_counts
    assert not mail.queue.has_tenants
    sent = await add(mail, "acme", "", "", state=2)
    await mail.queue.finish([Outcome(sent, 0, 0, 2, 1, NOW_MS, b"451 later")])
    assert INDEXED in marks(mail.raw)
    assert mail.raw.scan(TABLE_QUEUE_BY_TENANT, b"") == []  # the program before would leave it behind
    assert found(mail, "acme") == found(mail, "acme", state=2) == found(mail, "acme", error=b"later") | {(sent, 1)}
    assert check_store(mail.raw).problems == []
    mail.close()
    left = plan_finish(old)
    assert (left.level, left.target) == (3, STORE_LEVEL)
    assert left.records["recipients"] > 2
    finish(old)
    mail = MailStore.open(old, create=False, sync=False)
    assert mail.queue.has_tenants
    assert found(mail, "acme") == {(sent, 0), (sent, 1)}
    assert counts(mail) == {"acme": [0, 2, 0]}
    assert INDEXED not in marks(mail.raw)
    assert check_store(mail.raw).problems == []
    mail.close()


async def test_recipients_move_while_it_is_under_way(old: Path) -> None:
    mail = MailStore.open(old, create=False, sync=False)
    first = await add(mail, "acme", "", "", "", state=2)
    assert mail.raw.raise_level()
    await mail.queue.hold(first, 0)
    await mail.queue.delete(first, 1)
    assert counts(mail) == {"acme": [0, 0, 1]}  # the third is not there yet
    await mail.queue.index([(first, 2)])
    assert counts(mail) == {"acme": [0, 1, 1]}
    assert check_store(mail.raw).problems == []
    mail.close()
    finish(old)
    mail = MailStore.open(old, create=False, sync=False)
    assert counts(mail) == {"acme": [0, 1, 1]}
    assert check_store(mail.raw).problems == []
    mail.close()
