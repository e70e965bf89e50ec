"""The queue inside the transaction: legal moves, the schedule, indexes, delivery that falls back to the queue."""

from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from random import Random

import pytest

from fastmta._store import (
    TABLE_BLOB,
    TABLE_QUEUE,
    TABLE_QUEUE_BY_AGE,
    TABLE_QUEUE_BY_DOMAIN,
    TABLE_QUEUE_BY_SENDER,
    TABLE_SCHEDULE,
    TABLE_TRASH,
    Store,
    partition_of,
)
from fastmta._unit import Unit
from fastmta.model.envelope import Envelope, RecipientState, RecipientTail
from fastmta.model.errors import Refused
from fastmta.queue.moves import LEGAL
from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore
from fastmta.store.check import check_store
from fastmta.store.queue import MOVED, WAITING_LOOKED, MoveName, Outcome, Selection
from tests.store.composing import HOP, NOW_MS, STRUCTURE, blob_of, enqueue, envelope, file, move, new_mailbox, run, tail

LIVE = (1, 2, 3)
EVERY = range(256)


@pytest.fixture
async def mail(tmp_path: Path) -> AsyncIterator[MailStore]:
    mail = MailStore.open(tmp_path / "store", sync=False, clock=ManualClock())
    yield mail
    assert check_store(mail.raw).problems == []
    mail.close()


@pytest.mark.parametrize(("before", "after"), list(product(LIVE, range(8))))
def test_only_the_legal_moves_are_made(store: Store, before: int, after: int) -> None:
    queue_id = enqueue(store, before, 1)
    legal = after in list(RecipientState) and (RecipientState(before), RecipientState(after)) in LEGAL
    assert move(store, queue_id, 0, before, after) == ("" if legal else "state")
    queue = MailStore(store).queue
    recipient = queue.recipient(queue_id, 0)
    if legal and after >= RecipientState.DELIVERED:
        assert recipient is None
    else:
        assert recipient is not None
        assert recipient.state == (after if legal else before)
    counts = queue.counts()
    assert sum(counts.values()) == len(queue.recipients(queue_id))


@pytest.mark.parametrize(("stated", "actual"), list(product(LIVE, LIVE)))
def test_a_move_begins_in_the_state_that_it_names(store: Store, stated: int, actual: int) -> None:
    queue_id = enqueue(store, actual)
    assert move(store, queue_id, 0, stated, 5) == ("" if stated == actual else "state")


def test_a_move_without_a_beginning_takes_any_live_state(store: Store) -> None:
    for state in LIVE:
        assert move(store, enqueue(store, state), 0, 0, 5) == ""


def test_what_has_left_is_missing(store: Store) -> None:
    queue_id = enqueue(store, 1)
    assert move(store, queue_id, 1, 1, 2) == "missing"
    assert move(store, queue_id, 0, 1, 4) == ""
    assert move(store, queue_id, 0, 1, 4) == "missing"
    assert MailStore(store).queue.message(queue_id) is None


def test_an_envelope_needs_a_recipient_and_an_unused_id(store: Store) -> None:
    blob = blob_of(store)
    unit = store.new_unit()
    unit.blob(blob)
    unit.enqueue(5, blob.blob_id, envelope())
    assert run(store, unit) == "missing"
    queue_id = enqueue(store, 1)
    blob = blob_of(store)
    unit = store.new_unit()
    unit.blob(blob)
    unit.enqueue(queue_id, blob.blob_id, envelope())
    unit.recipient(queue_id, 7, HOP, 0, 1, NOW_MS, tail())
    assert run(store, unit) == "exists"


@pytest.mark.parametrize(
    ("n", "hop", "lane", "state", "due_ms", "expected"),
    [
        (1, HOP, 0, 4, 0, "state"),
        (1, HOP, 0, 0, 0, "state"),
        (1, HOP, 3, 1, 0, "limit"),
        (1, b"h" * 201, 0, 1, 0, "limit"),
        (1, b"h" * 200, 2, 1, 0, ""),
        (1, HOP, 0, 1, -1, "limit"),
        (0, HOP, 0, 1, 0, "exists"),
    ],
)
def test_a_recipient_is_checked(
    store: Store, n: int, hop: bytes, lane: int, state: int, due_ms: int, expected: str
) -> None:
    queue_id = enqueue(store, 1)
    unit = store.new_unit()
    unit.recipient(queue_id, n, hop, lane, state, due_ms, tail())
    assert run(store, unit) == expected


def test_the_schedule_holds_who_is_to_be_tried(store: Store) -> None:
    queue = MailStore(store).queue
    queue_id = enqueue(store, 1, 2, 3)
    assert [row[3] for row in queue.due(HOP, NOW_MS, 10)] == [0, 1]
    assert queue.due(HOP, NOW_MS - 1, 10) == []
    assert queue.due(HOP[:-1], NOW_MS, 10) == []
    assert queue.hops(EVERY, NOW_MS) == [(NOW_MS, HOP)]
    assert queue.hops([partition_of(HOP)], NOW_MS) == [(NOW_MS, HOP)]
    assert queue.hops([partition_of(HOP) ^ 1], NOW_MS) == []
    move(store, queue_id, 0, 1, 2, NOW_MS + 1000)
    move(store, queue_id, 1, 2, 2, NOW_MS + 500)
    assert queue.next_due(EVERY) == NOW_MS + 500
    move(store, queue_id, 1, 2, 3)
    assert queue.next_due(EVERY) == NOW_MS + 1000
    move(store, queue_id, 0, 2, 4)
    assert queue.next_due(EVERY) is None
    assert [key[1 + len(HOP)] for key, _ in store.scan(TABLE_SCHEDULE, b"")] == [4, 4]  # two held ones: no owner's lane


def test_what_is_due_is_taken_with_its_messages(store: Store) -> None:
    queue = MailStore(store).queue
    first, second, third = enqueue(store, 1, 1, 2), enqueue(store, 2, due_ms=NOW_MS - 9), enqueue(store, 1)
    found, loaded, damaged = queue.take(HOP, NOW_MS, 10, {(first, 1)}, {(third, 0): 1.0})
    assert (found, damaged) == (5, [])
    assert [(message.queue_id, [row.n for row in rows]) for message, rows in loaded] == [(second, [0]), (first, [0, 2])]
    assert loaded == queue.load([(second, 0), (first, 0), (first, 2)])
    assert queue.take(HOP, NOW_MS, 2, {(second, 0)}, {})[:2] == (2, queue.load([(first, 0)]))
    assert queue.take(HOP, NOW_MS - 10, 10, set(), {}) == (0, [], [])


@pytest.mark.parametrize("name", ["message", "recipient"])
def test_what_is_due_and_damaged_is_named_and_keeps_nobody_back(store: Store, name: str) -> None:
    queue = MailStore(store).queue
    first, second = enqueue(store, 1), enqueue(store, 1, 1)
    key = second.to_bytes(8, "big") + (b"\0\0\0\1" if name == "recipient" else b"")
    record = store.get(TABLE_QUEUE, key) or b""
    unit = store.new_unit()
    unit.put(TABLE_QUEUE, key, record[:-1] + b"\xc1")  # what msgpack does not have
    assert run(store, unit) == ""
    found, loaded, damaged = queue.take(HOP, NOW_MS, 10, {(5, 5)}, {})
    assert found == 3
    assert damaged == ([(second, 1)] if name == "recipient" else [(second, 0), (second, 1)])
    assert [(message.queue_id, [row.n for row in rows]) for message, rows in loaded] == [
        (first, [0]),
        *([(second, [0])] if name == "recipient" else []),
    ]
    unit = store.new_unit()
    unit.put(TABLE_QUEUE, key, record)
    assert run(store, unit) == ""


def test_lanes_take_weighted_turns(store: Store) -> None:
    for lane in (0, 1, 2):
        for number in range(20):
            enqueue(store, 1, lane=lane, due_ms=NOW_MS - number)
    queue = MailStore(store).queue
    rows = queue.due(HOP, NOW_MS, 20)
    assert [sum(row[1] == lane for row in rows) for lane in (0, 1, 2)] == [12, 6, 2]
    assert [row[0] for row in rows if row[1] == 0] == sorted(row[0] for row in rows if row[1] == 0)
    everything = queue.due(HOP, NOW_MS, 1000)
    assert len(everything) == 60
    seen, token = list(rows), queue.position(rows)
    while more := queue.due(HOP, NOW_MS, 7, token):
        seen += more
        token = queue.position(more, token)
    assert sorted(seen) == sorted(everything)
    assert len(set(seen)) == 60


def test_indexes_are_written_at_the_first_deferral_only(store: Store) -> None:
    tables = (TABLE_QUEUE_BY_SENDER, TABLE_QUEUE_BY_DOMAIN, TABLE_QUEUE_BY_AGE)
    queue_id = enqueue(store, 1)
    assert [len(store.scan(table, b"")) for table in tables] == [0, 0, 0]
    for before, after in ((1, 2), (2, 1), (1, 3), (3, 2)):
        assert move(store, queue_id, 0, before, after) == ""
        assert [len(store.scan(table, b"")) for table in tables] == [1, 1, 1]
    assert store.scan(TABLE_QUEUE_BY_DOMAIN, b"example.net\0") != []
    assert move(store, queue_id, 0, 2, 5) == ""
    assert [len(store.scan(table, b"")) for table in tables] == [0, 0, 0]


def test_many_recipients_of_many_hops_in_one_unit(store: Store) -> None:
    blob, queue_id = blob_of(store), store.new_id()
    unit = store.new_unit()
    unit.blob(blob)
    unit.enqueue(queue_id, blob.blob_id, envelope())
    for n in range(1000):
        unit.recipient(queue_id, n, b"smtp:%d.example" % n, n % 3, 1, NOW_MS + n, tail())
    assert run(store, unit) == ""
    queue = MailStore(store).queue
    hops = queue.hops(EVERY, NOW_MS + 10_000)
    assert hops == [(NOW_MS + n, b"smtp:%d.example" % n) for n in range(1000)]
    unit = store.new_unit()
    for n in range(1000):
        unit.move_recipient(queue_id, n, 1, 4, 1, 0, b"")
    assert run(store, unit) == ""
    assert queue.hops(EVERY, NOW_MS * 2) == []
    assert queue.message(queue_id) is None


def test_reroute_takes_a_recipient_to_another_hop(store: Store) -> None:
    queue_id = enqueue(store, 1, 3)
    for n in (0, 1):
        unit = store.new_unit()
        unit.reroute(queue_id, n, b"smtp:other", 2)
        assert run(store, unit) == ""
    queue = MailStore(store).queue
    assert queue.due(HOP, NOW_MS, 9) == []
    assert queue.due(b"smtp:other", NOW_MS, 9) == [(NOW_MS, 2, queue_id, 0)]
    assert [each.hop for each in queue.recipients(queue_id)] == [b"smtp:other"] * 2


# --- delivery in the accepting unit ---


def deliver(store: Store, queue_id: int, *mailboxes: int, body: bytes = b"hello") -> list[object]:
    blob = blob_of(store, body)
    unit = store.new_unit()
    unit.blob(blob)
    for n, mailbox_id in enumerate(mailboxes):
        unit.deliver(
            mailbox_id, blob.blob_id, b"P\r\n", 0, b"", 1, 0, STRUCTURE, queue_id, n, b"local:", tail(), envelope()
        )
    assert run(store, unit) == ""
    return unit.results


def test_deliver_files_or_queues_each_recipient(store: Store) -> None:
    good, full = new_mailbox(store, 1, now_s=1000), new_mailbox(store, 2, now_s=2000)
    unit = store.new_unit()
    unit.quota(2, 7)
    run(store, unit)
    queue_id = store.new_id()
    assert deliver(store, queue_id, good, full, 999, good) == [(1000, 1, 2), "quota", "missing", (1000, 2, 3)]
    queue = MailStore(store).queue
    message = queue.message(queue_id)
    assert message is not None
    assert (message.live, message.envelope.reverse_path) == (2, b"sender@example.org")
    assert [(each.n, each.state, each.due_ms, each.last_reply[:9]) for each in queue.recipients(queue_id)] == [
        (1, 1, NOW_MS, b"452 4.2.2"),
        (2, 1, NOW_MS, b"550 5.1.1"),
    ]
    assert queue.read(message.blob_id, 0, 100) == b"hello"


def test_deliver_makes_no_queue_row_where_all_is_filed(store: Store) -> None:
    queue_id = store.new_id()
    deliver(store, queue_id, new_mailbox(store))
    assert MailStore(store).queue.message(queue_id) is None


def test_deliver_joins_a_row_that_the_unit_queued(store: Store) -> None:
    blob, queue_id = blob_of(store), store.new_id()
    unit = store.new_unit()
    unit.blob(blob)
    unit.enqueue(queue_id, blob.blob_id, envelope())
    unit.recipient(queue_id, 0, HOP, 0, 1, NOW_MS, tail())
    unit.deliver(999, blob.blob_id, b"", 0, b"", 1, 0, STRUCTURE, queue_id, 1, b"local:", tail(), envelope())
    assert run(store, unit) == ""
    assert [each.hop for each in MailStore(store).queue.recipients(queue_id)] == [HOP, b"local:"]


def test_a_blob_in_mailbox_and_queue_stays_for_the_mailbox(store: Store) -> None:
    box, queue_id = new_mailbox(store), store.new_id()
    deliver(store, queue_id, box, 999)
    assert move(store, queue_id, 1, 1, 5) == ""
    assert MailStore(store).mailboxes.read(box, 1, 0, 99) == b"P\r\nhello"


# --- the domain object ---


def recipient(address: bytes, state: int = 1) -> tuple[bytes, int, int, int, RecipientTail]:
    return (b"smtp:" + address.rpartition(b"@")[2], 0, state, NOW_MS, RecipientTail(address))


async def add(
    mail: MailStore, sender: bytes, *recipients: tuple[bytes, int, int, int, RecipientTail], at: int = NOW_MS
) -> int:
    return await mail.queue.add(Envelope(sender, at, 1, 0), recipients, blob_of(mail.raw))


async def test_hold_release_requeue_and_delete(mail: MailStore) -> None:
    queue_id = await add(mail, b"s@x", recipient(b"a@x"), recipient(b"b@y", 2), recipient(b"c@z", 3))
    queue = mail.queue
    assert await queue.hold(queue_id, 0) == 1
    assert queue.counts() == {"active": 0, "deferred": 1, "held": 2}
    assert await queue.flush(queue_id) == 1
    assert await queue.release(queue_id) == 2
    assert queue.counts() == {"active": 3, "deferred": 0, "held": 0}
    assert await queue.requeue(queue_id) == 0
    assert await queue.delete(queue_id, 1) == 1
    assert await queue.delete(queue_id) == 2
    assert queue.message(queue_id) is None
    assert await queue.delete(queue_id) == 0


async def test_moves_of_many_messages_share_a_unit(mail: MailStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand messages with a recipient each are some units, not a thousand."""
    numbers = [await add(mail, b"s@x", recipient(b"u%d@x" % n)) for n in range(MOVED + 1)]
    pairs = [(number, 0) for number in numbers]
    units = 0
    commit = mail.commit

    async def counted(unit: Unit) -> Unit:
        nonlocal units
        units += 1
        return await commit(unit)

    monkeypatch.setattr(mail, "commit", counted)
    assert await mail.queue.move("hold", pairs) == pairs
    assert units == 2
    txn_id = mail.raw.last_txn_id
    assert await mail.queue.move("hold", pairs) == []
    assert mail.raw.last_txn_id == txn_id  # nothing to do, nothing written
    assert await mail.queue.move("delete", [*pairs[:3], (10**9, 0)]) == pairs[:3]
    assert mail.queue.counts() == {"active": 0, "deferred": 0, "held": MOVED - 2}


async def test_one_that_moves_meanwhile_leaves_the_others_their_move(
    mail: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [await add(mail, b"s@x", recipient(b"a@x"), recipient(b"b@x")) for _ in range(3)]
    pairs = [(number, n) for number in numbers for n in (0, 1)]
    commit = mail.commit
    moves: list[tuple[int, int]] = [(numbers[1], 0)]

    async def after_another(unit: Unit) -> Unit:
        for number, n in list(moves):
            moves.clear()
            await mail.queue.delete(number, n)
        return await commit(unit)

    monkeypatch.setattr(mail, "commit", after_another)
    assert await mail.queue.move("hold", pairs) == [each for each in pairs if each != (numbers[1], 0)]
    assert mail.queue.counts() == {"active": 0, "deferred": 0, "held": 5}


async def test_finish_records_outcomes_and_queues_the_dsn_at_once(mail: MailStore) -> None:
    queue_id = await add(mail, b"s@x", recipient(b"a@x"), recipient(b"b@y"))
    outcomes = [Outcome(queue_id, 0, 0, 5, 1, 0), Outcome(queue_id, 1, 0, 2, 1, NOW_MS + 5, b"451 x")]
    dsn = (Envelope(b"", NOW_MS, 1, 0), [recipient(b"s@x")], blob_of(mail.raw))
    dsn_id = await mail.queue.finish(outcomes, dsn)
    assert dsn_id is not None
    assert [each.last_reply for each in mail.queue.recipients(queue_id)] == [b"451 x"]
    message = mail.queue.message(dsn_id)
    assert message is not None
    assert message.envelope.reverse_path == b""
    with pytest.raises(Refused, match="missing"):
        await mail.queue.finish(outcomes, (Envelope(b"", NOW_MS, 1, 0), [recipient(b"s@x")], blob_of(mail.raw)))
    assert mail.queue.counts()["active"] == 1


async def test_load_groups_recipients_by_message(mail: MailStore) -> None:
    first = await add(mail, b"1@x", recipient(b"a@x"), recipient(b"b@x"))
    second = await add(mail, b"2@x", recipient(b"c@x"))
    loaded = mail.queue.load([(second, 0), (first, 1), (first, 0), (999, 0), (first, 7)])
    assert [(message.queue_id, [each.n for each in group]) for message, group in loaded] == [
        (second, [0]),
        (first, [1, 0]),
    ]


async def test_walk_selects_by_every_index(mail: MailStore) -> None:
    await add(mail, b"Bulk@x", recipient(b"a@One.example", 2), recipient(b"b@two.example", 3), at=NOW_MS)
    await add(mail, b"bulk@x", recipient(b"c@one.example"), at=NOW_MS + 10)
    await add(mail, b"other@x", recipient(b"a@one.example", 2), at=NOW_MS + 20)

    def paths(**selection: object) -> list[bytes]:
        found, after = [], b""
        while True:
            page, after = mail.queue.walk(Selection(**selection), after, 1)  # type: ignore[arg-type]
            found += [each.tail.forward_path for _, each in page]
            if not after:
                return sorted(found)

    assert paths() == [b"a@One.example", b"a@one.example", b"b@two.example", b"c@one.example"]
    assert paths(sender=b"BULK@x") == [b"a@One.example", b"b@two.example", b"c@one.example"]
    assert paths(sender=b"bulk@x", state=2) == [b"a@One.example"]
    assert paths(domain=b"one.Example", state=2) == [b"a@One.example", b"a@one.example"]
    assert paths(recipient=b"A@one.example", state=2) == [b"a@One.example", b"a@one.example"]
    assert paths(recipient=b"c@one.example") == [b"c@one.example"]
    assert paths(state=2, received_before_ms=NOW_MS + 20) == [b"a@One.example"]
    assert paths(received_before_ms=NOW_MS + 11) == [b"a@One.example", b"b@two.example", b"c@one.example"]
    assert paths(state=3) == [b"b@two.example"]


async def test_walk_selects_by_hop_and_by_what_the_last_reply_has_in_it(mail: MailStore) -> None:
    first = await add(mail, b"s@x", recipient(b"a@x", 2), (b"smtp:[192.0.2.1]", 0, 1, NOW_MS, RecipientTail(b"b@x")))
    second = await add(mail, b"s@x", recipient(b"c@x", 3), recipient(b"d@x"))
    await mail.queue.finish(
        [
            Outcome(first, 0, 0, 2, 1, NOW_MS, b"452 4.2.2 Mailbox FULL"),
            Outcome(first, 1, 0, 2, 1, NOW_MS, b"connection refused"),
        ]
    )
    hop = recipient(b"a@x")[0]

    def paths(**selection: object) -> list[bytes]:
        found, after = [], b""
        while True:
            page, after = mail.queue.walk(Selection(**selection), after, 1)  # type: ignore[arg-type]
            found += [each.tail.forward_path for _, each in page]
            if not after:
                return sorted(found)

    assert paths(hop=hop) == [b"a@x", b"c@x", b"d@x"]
    assert paths(hop=b"smtp:[192.0.2.1]") == [b"b@x"]
    assert paths(hop=hop, state=3) == [b"c@x"]
    assert paths(hop=hop, state=1) == [b"d@x"]
    assert paths(hop=b"smtp:absent") == []
    assert paths(error=b"mailbox full") == paths(error=b"4.2.2") == [b"a@x"]
    assert paths(error=b"full", hop=b"smtp:[192.0.2.1]") == []
    assert paths(error=b"refused", sender=b"s@x") == [b"b@x"]
    assert paths(error=b"") == [b"a@x", b"b@x", b"c@x", b"d@x"]
    await mail.queue.delete(second)


@pytest.fixture
async def before(tmp_path: Path) -> AsyncIterator[MailStore]:
    """A store of the format before, which this program serves as it is."""
    raw = Store(str(tmp_path / "before"), sync=False, level=2)
    yield MailStore(raw, ManualClock())
    assert check_store(raw).problems == []
    raw.close()


@pytest.mark.parametrize(("seek_costs", "looked"), [(0, 2000), (0, 3), (1000, 20_000), (1000, 1), (1000, 5)])
async def test_walk_finds_everyone_in_a_store_of_the_format_before(
    before: MailStore, monkeypatch: pytest.MonkeyPatch, seek_costs: int, looked: int
) -> None:
    monkeypatch.setattr("fastmta.store.queue_walk.SEEK_COSTS", seek_costs)  # few or many of the queue are active
    monkeypatch.setattr("fastmta.store.queue_walk.ACTIVE_LOOKED", looked)
    monkeypatch.setattr("fastmta.store.queue_walk.ACTIVE_SCANNED", looked)
    await fill_and_walk(before, indexed=False)


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("looked", [1, 9, 12_000])
async def test_walk_finds_what_a_look_at_everything_finds_whatever_the_state_hop_and_lane(
    mail: MailStore, monkeypatch: pytest.MonkeyPatch, looked: int, indexed: bool
) -> None:
    monkeypatch.setattr("fastmta.store.queue_walk.LOOKED", looked)
    await fill_and_walk(mail, indexed=indexed)


async def fill_and_walk(mail: MailStore, *, indexed: bool) -> None:
    random = Random(7)
    names = [b"a@One.example", b"b@one.example", b"c@two.example", b"d", b"e@three.example"]
    for number in range(60):
        recipients = []
        for _ in range(random.randint(1, 4)):
            state = random.choice([1, 1, 2, 3])
            hop = random.choice([b"smtp:one.example", b"smtp:[192.0.2.1]", b"local:", b"h" * 200])
            due_ms = NOW_MS + 3_600_000 if state == 2 else NOW_MS + number
            tail = RecipientTail(random.choice(names))
            recipients.append((hop, random.randint(0, 2), state, due_ms, tail))
        await add(mail, random.choice([b"", b"Bulk@x", b"other@x"]), *recipients, at=NOW_MS + number)
    for number in range(1, 60, 3):  # those that were put off once are in the indexes, whatever they are now
        await mail.queue.flush(number)
        await mail.queue.hold(number, [0, 2])
    everything = [(m, r) for m, r in mail.queue.walk(limit=10_000)[0]]
    if indexed:
        await mail.queue.index([(m.queue_id, r.n) for m, r in everything if m.queue_id % 2])
    assert len({r.state for _, r in everything}) == 3
    for state in (None, 1, 2, 3):
        for sender in (None, b"", b"BULK@x"):
            for domain in (None, b"ONE.example", b"", b"gone.example"):
                for before, hop in ((None, None), (NOW_MS + 30, None), (None, b"local:"), (NOW_MS + 30, b"h" * 200)):
                    selection = Selection(state, sender, None, domain, before, hop)
                    expected = {
                        (m.queue_id, r.n)
                        for m, r in everything
                        if (state is None or r.state == state)
                        and (sender is None or m.envelope.reverse_path.lower() == sender.lower())
                        and (domain is None or r.tail.forward_path.lower().rpartition(b"@")[2] == domain.lower())
                        and (before is None or m.envelope.received_at_ms < before)
                        and (hop is None or r.hop == hop)
                    }
                    found, after = [], b""
                    while True:
                        page, after = mail.queue.walk(selection, after, 7)
                        assert len(page) <= 7
                        found += [(m.queue_id, r.n) for m, r in page]
                        if not after:
                            break
                    assert sorted(found) == sorted(expected), selection
                    assert set(movable(mail, "release", selection)) == {
                        (m.queue_id, r.n, r.tail.forward_path)
                        for m, r in everything
                        if r.state == 3 and (m.queue_id, r.n) in expected
                    }, selection


def movable(mail: MailStore, move: MoveName, selection: Selection) -> list[tuple[int, int, bytes]]:
    found, after = [], b""
    while True:
        page, after = mail.queue.movable(move, selection, after, 7)
        assert len(page) <= 7
        found += page
        if not after:
            return found


async def test_what_a_move_may_change_is_found_by_whatever_selects_it(mail: MailStore) -> None:
    long = b"x" * 450
    one = await add(mail, b"s@x", recipient(b"a@x"), recipient(b"b@x", 2), recipient(b"c@x", 3), recipient(b"d@y", 2))
    two = await add(mail, long + b"1@x", (HOP, 0, 2, NOW_MS, RecipientTail(b"a@" + long)))
    await add(mail, long + b"2@x", (HOP, 0, 2, NOW_MS, RecipientTail(b"a@" + long + b"y")))
    await mail.queue.finish([Outcome(one, 1, 0, 2, 1, NOW_MS, b"452 4.2.2 full")])

    def found(move: MoveName, **selection: object) -> list[tuple[int, int]]:
        return [each[:2] for each in sorted(movable(mail, move, Selection(**selection)))]  # type: ignore[arg-type]

    assert found("hold", domain=b"X") == [(one, 0), (one, 1)]
    assert found("release", domain=b"x") == [(one, 2)]
    assert found("requeue", sender=b"S@x") == [(one, 1), (one, 2), (one, 3)]
    assert found("delete", domain=b"x", state=2) == [(one, 1)]
    assert found("hold", recipient=b"B@x") == [(one, 1)]
    assert found("hold", error=b"FULL") == [(one, 1)]
    assert found("hold", error=b"full", domain=b"y") == []
    assert found("hold", sender=long + b"1@x") == found("hold", domain=long) == [(two, 0)]


async def test_each_of_a_unit_moves_by_itself_and_keeps_what_was_said_of_it(store: Store) -> None:
    queue_id = enqueue(store, 1, 2, 3, 1)
    assert move(store, queue_id, 1, 2, 2) == ""  # 451, tried once
    single = enqueue(store, 2)
    places = [(queue_id, 0), (queue_id, 1), (queue_id, 2), (single, 0), (single, 0), (queue_id, 9), (10**9, 0)]
    unit = store.new_unit()
    keys = b"".join(number.to_bytes(8, "big") + n.to_bytes(4, "big") for number, n in places)
    unit.move_each(keys, 1 << 1 | 1 << 2, NOW_MS + 5, 3)
    unit.move_each(keys[:12], 1 << 2, NOW_MS, 1)  # it is held by now
    unit.move_each(keys[36:48], 1 << 3, NOW_MS, 5)
    assert run(store, unit) == ""
    assert unit.results == [b"\1\1\0\1\0\0\0", b"\0", b"\1"]
    queue = MailStore(store).queue
    rows = queue.recipients(queue_id)
    assert [(row.state, row.attempts, row.last_reply) for row in rows] == [
        (3, 0, b""),
        (3, 1, b"451 later"),
        (3, 0, b""),
        (1, 0, b""),
    ]
    assert rows[0].due_ms == NOW_MS + 5
    assert queue.message(single) is None, "the message went with its last recipient"
    with pytest.raises(ValueError, match="12 octets"):
        store.new_unit().move_each(keys[:-1], 2, 0, 3)
    unit = store.new_unit()
    unit.move_each(keys[:12], 1 << 3, -1, 1)
    assert run(store, unit) == "limit"


def deleted(store: Store, *queue_ids: int) -> Unit:
    unit = store.new_unit()
    keys = b"".join(queue_id.to_bytes(8, "big") + bytes(4) for queue_id in queue_ids)
    unit.move_each(keys, 0b1110, NOW_MS, 5)
    return unit


def emptied(store: Store) -> None:
    """Reaps until nothing is left in the trash."""
    for _ in range(20):
        store.reap()
        assert check_store(store).problems == []
        if not store.scan(TABLE_TRASH, b""):
            return
    raise AssertionError(store.scan(TABLE_TRASH, b""))


@pytest.mark.parametrize("count", [1, 64, 65, 450])
def test_the_bodies_of_what_is_deleted_are_let_go_and_die_later(tmp_path: Path, count: int) -> None:
    store = Store(str(tmp_path / "store"), sync=False)
    queue_ids = [enqueue(store, 2, data=b"%d\r\n" % n) for n in range(count)]
    large = enqueue(store, 1, data=b"x" * 500_000)
    assert run(store, deleted(store, *queue_ids, large)) == ""
    assert len(store.scan(TABLE_BLOB, b"", b"", 1000)) > count, "they are all there"
    assert store.scan(TABLE_QUEUE, b"") == [] and check_store(store).problems == []
    store.close()
    store = Store(str(tmp_path / "store"), sync=False, trash_delay_ms=0)
    store.reap_soon()
    emptied(store)
    assert store.scan(TABLE_BLOB, b"") == []
    store.close()


def test_a_body_that_others_have_is_let_go_once_for_each_that_is_deleted(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False, trash_delay_ms=0)
    box, filed = new_mailbox(store), store.new_id()
    deliver(store, filed, box, 999)
    blob, twice = blob_of(store), (store.new_id(), store.new_id())
    unit = store.new_unit()
    unit.blob(blob)
    for queue_id in twice:
        unit.enqueue(queue_id, blob.blob_id, envelope())
        unit.recipient(queue_id, 0, HOP, 0, 2, NOW_MS, tail())
    assert run(store, unit) == ""
    unit = store.new_unit()
    unit.move_each(filed.to_bytes(8, "big") + (1).to_bytes(4, "big"), 0b1110, NOW_MS, 5)
    assert run(store, unit) == ""
    assert run(store, deleted(store, twice[0])) == ""
    emptied(store)
    queue = MailStore(store).queue
    assert queue.read(blob.blob_id, 0, 99) == b"Subject: x\r\n\r\nhello\r\n", "the other message has it"
    assert run(store, deleted(store, twice[1])) == ""
    emptied(store)
    assert len(store.scan(TABLE_BLOB, b"")) == 1
    assert MailStore(store).mailboxes.read(box, 1, 0, 99) == b"P\r\nhello"
    store.close()


def test_a_unit_that_is_refused_lets_nothing_go(store: Store) -> None:
    queue_id = enqueue(store, 2)
    unit = deleted(store, queue_id)
    unit.move_recipient(queue_id, 7, 0, 5, 1, NOW_MS, b"")
    assert run(store, unit) == "missing"
    assert store.scan(TABLE_TRASH, b"") == [] and MailStore(store).queue.message(queue_id) is not None
    assert check_store(store).problems == []


async def test_the_active_are_read_in_the_queues_order_only_where_they_are_many(before: MailStore) -> None:
    mail = before
    for number in range(4):
        await add(mail, b"s@x", *[recipient(b"d@x", 2)] * 40, at=NOW_MS + number)
    await add(mail, b"s@x", recipient(b"a@x"))
    assert mail.queue.walk(Selection(sender=b"s@x"), limit=1)[1][:1] == b"a"
    await add(mail, b"s@x", *[recipient(b"a@x")] * 10)
    page, after = mail.queue.walk(Selection(sender=b"s@x"), limit=1)
    assert (after[:1], [each.state for _, each in page]) == (b"s", [1])
    mail.queue.walk(Selection(sender=b"s@x"), after)
    with pytest.raises(ValueError, match="position"):
        mail.queue.walk(Selection(sender=b"s@x"), b"s" + bytes(13))


async def test_hop_counts_are_those_of_the_recipients(mail: MailStore) -> None:
    await add(mail, b"s@x", recipient(b"a@x"), recipient(b"b@x", 2), recipient(b"c@x", 3), recipient(b"d@x", 3))
    ((hop, *counts),) = mail.queue.hop_counts()
    assert (hop, counts) == (recipient(b"a@x")[0], [1, 1, 2])


async def test_the_oldest_is_found_in_every_state(mail: MailStore) -> None:
    assert mail.queue.oldest_ms() is None
    await add(mail, b"s@x", recipient(b"a@x"))
    assert mail.queue.oldest_ms() == NOW_MS
    await add(mail, b"s@x", recipient(b"a@x", 3), at=NOW_MS - 50)
    assert mail.queue.oldest_ms() == NOW_MS - 50


async def test_the_oldest_that_waits_is_not_one_that_is_held(mail: MailStore) -> None:
    assert mail.queue.oldest_waiting_ms() is None
    await add(mail, b"s@x", recipient(b"a@x", 3), at=NOW_MS - 50)
    assert mail.queue.oldest_waiting_ms() is None
    deferred = await add(mail, b"s@x", recipient(b"a@x", 2), at=NOW_MS - 40)
    assert mail.queue.oldest_waiting_ms() == NOW_MS - 40
    await mail.queue.hold(deferred)
    await add(mail, b"s@x", recipient(b"a@x"), at=NOW_MS)
    assert mail.queue.oldest_waiting_ms() == NOW_MS
    await mail.queue.release(deferred)
    assert mail.queue.oldest_waiting_ms() == NOW_MS - 40


@pytest.mark.parametrize("held", [WAITING_LOOKED - 1, WAITING_LOOKED + 1])
async def test_the_oldest_that_waits_is_sought_behind_a_bounded_number_of_held_ones(mail: MailStore, held: int) -> None:
    tails = [recipient(b"a@x", 3) for _ in range(held)]
    await add(mail, b"s@x", *tails, at=NOW_MS - 100)
    await mail.queue.index(mail.queue.fresh(limit=2000)[0])
    hop, lane, _, _, tail = recipient(b"a@x", 2)
    await add(mail, b"s@x", (hop, lane, 2, NOW_MS + 1000, tail), at=NOW_MS - 50)
    assert mail.queue.oldest_waiting_ms() == NOW_MS - (50 if held < WAITING_LOOKED else 100)


def test_a_queue_read_ends_where_the_blob_does(store: Store) -> None:
    queue_id = enqueue(store, 1, data=b"12345")
    queue = MailStore(store).queue
    message = queue.message(queue_id)
    assert message is not None
    assert queue.read(message.blob_id, 3, 100) == b"45"
    assert queue.read(message.blob_id, 5, 100) == b""
    assert queue.read(1, 0, 100) is None
    assert file(store, new_mailbox(store)) == 1


@pytest.mark.parametrize("octets", [b"", b"\xc1", b"\x9a", b"\x91" * 2000, b"text"])
def test_a_record_that_cannot_be_decoded_is_damage_in_every_way_of_reading(tmp_path: Path, octets: bytes) -> None:
    """Never an unexpected error: a damaged envelope, one whose text is no UTF-8, and a recipient cut short."""
    from fastmta._store import TABLE_QUEUE
    from fastmta.model.errors import StoreDamaged
    from fastmta.store.mailstore import MailStore

    store = MailStore.open(tmp_path / "store", sync=False)
    raw = store.raw
    queue_id = enqueue(raw, 1)
    key = queue_id.to_bytes(8, "big")
    row = raw.get(TABLE_QUEUE, key)
    whole = raw.get(TABLE_QUEUE, key + bytes(4))
    assert row is not None and whole is not None
    unit = raw.new_unit()
    unit.put(TABLE_QUEUE, key, row[:16] + octets)
    unit.put(TABLE_QUEUE, key + bytes(4), octets[:20])
    raw.commit_sync(unit)
    for read in (
        lambda: store.queue.message(queue_id),
        lambda: store.queue.recipient(queue_id, 0),
        lambda: store.queue.recipients(queue_id),
        lambda: store.queue.load([(queue_id, 0)]),
        store.queue.walk,
    ):
        with pytest.raises(StoreDamaged):
            read()
    store.close()
