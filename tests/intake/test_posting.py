"""What one posting writes, and what it says afterwards, over a store of its own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastmta._intake import QUEUE, REFUSE, REPORT, Body, Event, Posting, Recipient, Target
from fastmta.model.envelope import (
    NOTIFY_SUCCESS,
    Envelope,
    LocalTarget,
    QueuedTarget,
    RecipientState,
    RecipientTail,
    Resolution,
)
from fastmta.model.errors import Refused
from fastmta.model.ids import queue_id_text
from fastmta.runtime.clock import ManualClock
from fastmta.runtime.events import teller
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, local_cells
from fastmta.store import MailStore
from fastmta.store.accounts import Account

MESSAGE = b"Subject: x\r\n\r\nbody\r\n"
AT = 1_800_000_000.0


class ListLog(Log):
    def __init__(self) -> None:
        super().__init__(fd=-1)
        self.lines: list[dict[str, Any]] = []

    def flush(self) -> None:
        self.lines += [json.loads(each) for each in self.gathered.take().splitlines()]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.lines if each["event"] == event]


class World:
    def __init__(self, path: Path) -> None:
        self.store = MailStore.open(path, sync=False)
        self.log = ListLog()
        self.cells = local_cells()
        self.clock = ManualClock(AT)
        self.teller = teller(self.log, self.clock, self.cells)

    def body(self, loops: frozenset[bytes] | None = None) -> Body:
        blob = self.store.raw.new_blob()
        blob.feed(MESSAGE)
        return Body(blob, b"", loops)

    def posting(self, body: Body, *recipients: Recipient, refusal: int = QUEUE, sender: bytes = b"s@a.test") -> Posting:
        envelope = Envelope(sender, int(AT * 1000), body.size, 0)
        return Posting(self.teller, self.store.raw.new_id(), envelope, body, refusal).to(recipients)

    def commit(self, *postings: Posting) -> list[Any]:
        unit = self.store.raw.new_unit()
        for each in postings:
            each.write(unit)
        self.store.commit_sync(unit)
        return [each.committed(unit) for each in postings]

    def account(self, name: str, quota: int = 0) -> Account:
        import asyncio

        account = asyncio.run(self.store.accounts.add(f"{name}@mx.test", "x"))
        if quota:
            unit = self.store.raw.new_unit()
            unit.quota(account.id, quota)
            self.store.commit_sync(unit)
        return account

    def exists(self, account: Account) -> int:
        box = self.store.mailboxes.by_id(account.inbox_id)
        assert box is not None
        return box.exists

    def rows(self, posting: Posting) -> list[tuple[int, bytes, int]]:
        rows = (self.store.queue.recipient(posting.queue_id, n) for n in range(10))
        return [(row.n, row.hop, row.state) for row in rows if row is not None]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "store")
    yield world
    world.store.close()


def here(account: Account, address: bytes = b"") -> LocalTarget:
    return LocalTarget(account.id, account.inbox_id, address or account.address.encode())


def to(path: bytes, *targets: LocalTarget | QueuedTarget, notify: int = 0) -> Recipient:
    return Recipient(path, Resolution(targets=targets), notify)


def away(path: bytes, held: bool = False) -> QueuedTarget:
    return QueuedTarget(path, b"smtp:x.test", held)


def test_a_mailbox_gets_a_message_once_and_an_address_too(world: World) -> None:
    bill = world.account("bill")
    posting = world.posting(
        world.body(),
        to(b"list@mx.test", here(bill), away(b"x@x.test"), here(bill, b"b@mx.test"), away(b"x@x.test")),
        to(b"bill@mx.test", here(bill)),
        to(b"x@x.test", away(b"x@x.test")),
    )
    (answers,) = world.commit(posting)
    assert [n for n, _, _ in answers] == [0] and world.exists(bill) == 1
    assert world.rows(posting) == [(1, b"smtp:x.test", RecipientState.ACTIVE)]


def test_two_envelopes_over_one_body_share_its_octets_and_a_mailbox_gets_it_once(world: World) -> None:
    bill, body = world.account("bill"), world.body()
    first = world.posting(body, to(b"bill@mx.test", here(bill)), to(b"x@x.test", away(b"x@x.test")))
    second = world.posting(
        body, to(b"x@x.test", away(b"x@x.test")), to(b"b@mx.test", here(bill)), sender=b"verp@a.test"
    )
    world.commit(first, second)
    one, two = (world.store.queue.message(each.queue_id) for each in (first, second))
    assert one is not None and two is not None
    assert one.blob_id == two.blob_id == body.blob_id
    assert (one.envelope.reverse_path, two.envelope.reverse_path) == (b"s@a.test", b"verp@a.test")
    assert world.exists(bill) == 1
    assert world.store.queue.read(one.blob_id, 0, 100) == MESSAGE


def test_a_later_unit_posts_a_stored_body(world: World) -> None:
    bill, carl, body = world.account("bill"), world.account("carl"), world.body()
    world.commit(world.posting(body, to(b"bill@mx.test", here(bill))))
    stored = Body(None, blob_id=body.blob_id, size=body.size)
    world.commit(world.posting(stored, to(b"carl@mx.test", here(carl))))
    assert world.exists(bill) == world.exists(carl) == 1


def test_what_has_been_here_before_loops(world: World) -> None:
    bill = world.account("bill")
    posting = world.posting(
        world.body(frozenset({b"bill@mx.test"})),
        to(b"bill@mx.test", here(bill, b"Bill@mx.test")),
        to(b"x@x.test", away(b"x@x.test")),
    )
    assert not posting.is_loop
    world.commit(posting)
    assert [hop for _, hop, _ in world.rows(posting)] == [b"error:5.4.6 mail forwarding loop", b"smtp:x.test"]
    alone = world.posting(world.body(frozenset({b"bill@mx.test"})), to(b"bill@mx.test", here(bill)))
    assert alone.is_loop and world.exists(bill) == 0


def test_success_that_is_asked_for_goes_by_the_hop_local_whoever_else_names_the_mailbox(world: World) -> None:
    bill = world.account("bill")
    posting = world.posting(
        world.body(), to(b"b@mx.test", here(bill)), to(b"bill@mx.test", here(bill), notify=NOTIFY_SUCCESS)
    )
    world.commit(posting)
    assert world.exists(bill) == 0 and world.rows(posting) == [(1, b"local:", RecipientState.ACTIVE)]


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("refusal", [QUEUE, REPORT, REFUSE])
def test_what_a_refusal_means_is_the_callers_word(world: World, refusal: int, other: bool) -> None:
    full, carl = world.account("full", quota=5), world.account("carl")
    body = world.body()
    recipients = [to(b"full@mx.test", here(full)), *([to(b"carl@mx.test", here(carl))] if other else [])]
    posting = world.posting(body, *recipients, refusal=refusal)
    if refusal == REFUSE:
        with pytest.raises(Refused, match="quota"):
            world.commit(posting)
    else:
        (answers,) = world.commit(posting)
        assert answers[0][2] == "quota" and len(answers) == len(recipients)
    assert world.exists(carl) == (other and refusal != REFUSE)
    assert world.rows(posting) == ([(0, b"local:", RecipientState.ACTIVE)] if refusal == QUEUE else [])
    kept = refusal == QUEUE or (other and refusal == REPORT)
    assert (world.store.queue.read(body.blob_id, 0, 100) == MESSAGE) is kept, "nobody has it: it is gone"


def test_a_unit_that_was_refused_leaves_the_body_free_for_the_mailbox(world: World) -> None:
    full, body = world.account("full", quota=5), world.body()
    world.commit(world.posting(body, to(b"x@x.test", away(b"x@x.test"))))
    refused = world.posting(body, to(b"full@mx.test", here(full)), refusal=REFUSE)
    unit = world.store.raw.new_unit()
    refused.write(unit)
    world.store.raw.commit_sync(unit)
    assert refused.committed(unit) == []
    (answers,) = world.commit(world.posting(body, to(b"full@mx.test", here(full)), refusal=REPORT))
    assert answers[0][2] == "quota", "it was asked again"


def test_the_unit_may_be_somebody_elses(world: World) -> None:
    """Results of operations before and between are not mistaken for the posting's."""
    bill, carl, body = world.account("bill"), world.account("carl"), world.body()
    unit = world.store.raw.new_unit()
    unit.count(b"test", 1, -1)
    first = world.posting(body, to(b"bill@mx.test", here(bill)))
    first.write(unit)
    unit.count(b"test", 1, -1)
    second = world.posting(body, to(b"carl@mx.test", here(carl)))
    second.write(unit)
    world.store.commit_sync(unit)
    for posting in first, second:
        ((_, _, result),) = posting.committed(unit)
        assert isinstance(result, tuple) and result[1] == 1, "the first uid of its mailbox"


def test_a_filed_message_has_no_prefix_and_its_own_flags_and_date(world: World) -> None:
    bill, body = world.account("bill"), world.body()
    posting = Posting(None, 0, None, body, REFUSE).to([Recipient.of(b"", [Target.filed(bill.inbox_id, 1, b"one two")])])
    posting.date_s, posting.tz_minutes = 1_000, -90
    world.commit(posting)
    (row,) = world.store.mailboxes.rows(bill.inbox_id, world.store.mailboxes.uids(bill.inbox_id))
    assert (row.flags, row.keywords, row.internal_date_s, row.tz_minutes, row.prefix) == (
        1,
        b"one two",
        1_000,
        -90,
        b"",
    )


def test_recipients_of_a_following_unit_join_the_entry_or_make_it_again(world: World) -> None:
    body = world.body()
    first = world.posting(body, to(b"a@x.test", away(b"a@x.test")))
    world.commit(first)
    for number, gone in ((1, False), (2, True)):
        if gone:
            unit = world.store.raw.new_unit()
            unit.ref(body.blob_id, 1)
            for n in range(number):
                unit.move_recipient(first.queue_id, n, 0, RecipientState.DELIVERED, 1, 0, b"")
            world.store.commit_sync(unit)
            assert world.store.queue.message(first.queue_id) is None
        more = Posting(world.teller, first.queue_id, Envelope(b"s@a.test", int(AT * 1000), body.size, 0), body).to(
            [to(b"b@x.test", away(b"b@x.test"))]
        )
        more.number = number
        world.commit(more)
        assert world.rows(first)[-1][0] == number


def test_acceptance_and_every_fate_are_told_after_the_commit(world: World) -> None:
    bill = world.account("bill")
    posting = world.posting(
        world.body(),
        to(b"list@mx.test", here(bill), away(b"x@x.test")),
        to(b"h@x.test", away(b"h@x.test", held=True)),
    )
    posting.event, posting.session = "test.received", 7
    unit = world.store.raw.new_unit()
    posting.write(unit)
    world.store.commit_sync(unit)
    assert world.log.lines == []
    world.clock.advance(2.0)
    posting.committed(unit)
    received, delivered, expanded, held = world.log.lines
    name = queue_id_text(posting.queue_id)
    assert (received["event"], received["session"], received["to"]) == (
        "test.received", 7, ["list@mx.test", "h@x.test"],
    )  # fmt: skip
    assert {each["queue_id"] for each in world.log.lines} == {name}
    assert (delivered["event"], delivered["original_recipient"], delivered["delay"]) == (
        "delivery.delivered", "list@mx.test", 2.0,
    )  # fmt: skip
    assert (expanded["event"], expanded["recipient"]) == ("delivery.expanded", "list@mx.test")
    assert (held["event"], held["recipient"], held["next_hop"]) == ("delivery.held", "h@x.test", "smtp:x.test")
    assert world.cells[METRICS.messages_received_total] == 1
    assert world.cells[METRICS.received_bytes_total] == len(MESSAGE)
    assert world.cells[METRICS.deliveries_total["local", "delivered"]] == 1


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-1.0, 0.0), (0.0004, 0.0), (0.0126, 0.013), (61.0, 61.0), (61.9996, 62.0), (432000.5, 432000.5)],
)
def test_a_delay_is_told_in_thousandths(world: World, seconds: float, told: float) -> None:
    world.clock.advance(0.25)
    world.teller.tell(Event("delivered", "local", 7, b"a@mx.test", "local:", "local", seconds, "2.0.0", "250 2.0.0 ok"))
    (line,) = world.log.lines
    assert line["delay"] == told
    assert line["at"].endswith(".250Z")


def test_a_queued_recipient_that_goes_on_keeps_what_its_sender_asked_for(world: World) -> None:
    tail = RecipientTail(b"moved@mx.test", b"rfc822;first@mx.test", NOTIFY_SUCCESS, b"first@mx.test")
    onward = Recipient.onward(tail, Resolution(targets=(away(b"x@x.test"),)))
    posting = world.posting(world.body(), onward)
    world.commit(posting)
    row = world.store.queue.recipient(posting.queue_id, 0)
    assert row is not None and row.tail == RecipientTail(b"x@x.test", tail.orcpt, NOTIFY_SUCCESS, b"first@mx.test")


def test_what_may_be_queued_needs_an_envelope(world: World) -> None:
    with pytest.raises(ValueError, match="envelope"):
        Posting(None, 0, None, world.body(), REPORT)
    with pytest.raises(ValueError, match="QUEUE"):
        Posting(None, 0, None, world.body(), 3)
