"""Recipients of our own that wait in the queue: delivered once, or deferred and bounced by the mailbox's reason."""

import pytest

from fastmta.model.envelope import NOTIFY_SUCCESS, LocalTarget, QueuedTarget, RecipientState, RecipientTail, Resolution


@pytest.fixture
async def account(rig):
    return await rig.store.accounts.add("bob@mx.test", "x")


def inbox(rig, account):
    return rig.store.mailboxes.by_id(account.inbox_id)


async def test_a_waiting_message_goes_into_the_mailbox_with_its_prefix(rig, account):
    queue_id = await rig.queue(b"local:", b"bob@mx.test")
    await rig.gone(queue_id)
    await rig.settled()
    box = inbox(rig, account)
    assert box.exists == 1
    uids = rig.store.mailboxes.uids(box.id)
    raw = rig.store.mailboxes.read(box.id, uids[0], 0, 10_000)
    assert raw == (b"Return-Path: <s@a.test>\r\nDelivered-To: bob@mx.test\r\nSubject: x\r\n\r\nbody\r\n")
    assert rig.count("local", "delivered") == 1


async def test_over_quota_defers_and_a_greater_quota_mends_it(rig, account):
    await rig.store.accounts.set_quota("bob@mx.test", 10)
    queue_id = await rig.queue(b"local:", b"bob@mx.test")
    await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
    assert b"4.2.2" in rig.rows(queue_id)[0].last_reply
    await rig.store.accounts.set_quota("bob@mx.test", 0)
    rig.tick(400)
    await rig.gone(queue_id)
    assert inbox(rig, account).exists == 1


async def test_an_account_that_has_gone_bounces(rig, account):
    queue_id = await rig.queue(b"local:", b"nobody@mx.test")
    await rig.gone(queue_id)
    ((message, _),) = rig.everything()
    assert b"Status: 5.1.1" in rig.store.queue.read(message.blob_id, 0, 100_000)


async def test_success_is_reported_as_delivered_where_asked(rig, account):
    queue_id = await rig.queue(b"local:", RecipientTail(b"bob@mx.test", notify=NOTIFY_SUCCESS))
    await rig.until(lambda: rig.store.queue.message(queue_id) is None and rig.everything() != [])
    ((message, _),) = rig.everything()
    assert b"Action: delivered" in rig.store.queue.read(message.blob_id, 0, 100_000)


async def test_an_address_that_is_an_alias_now_goes_on_in_one_unit(rig, account):
    onward = QueuedTarget(b"bob@else.test", b"smtp:[127.0.0.1]:1", held=True)
    local = LocalTarget(account.id, account.inbox_id, b"bob@mx.test")
    rig.directory.resolve = lambda path, *, may_relay: Resolution(targets=(onward, local))
    queue_id = await rig.queue(b"local:", b"moved@mx.test")
    await rig.gone(queue_id)
    ((_, recipient),) = rig.everything()
    assert (recipient.tail.forward_path, recipient.state) == (b"bob@else.test", RecipientState.HELD)
    assert inbox(rig, account).exists == 1


async def test_a_report_to_a_sender_of_ours_goes_into_the_mailbox_at_once(rig, account):
    rig.directory.mailboxes[b"bob@mx.test"] = LocalTarget(account.id, account.inbox_id, b"bob@mx.test")
    queue_id = await rig.queue(b"error:5.1.2 no such domain", sender=b"bob@mx.test")
    await rig.gone(queue_id)
    assert inbox(rig, account).exists == 1 and rig.everything() == []


@pytest.mark.parametrize("way", ["bounce", "success"])
async def test_a_report_into_a_mailbox_is_a_line_and_a_count_as_other_mail_is(rig, account, way):
    carl = await rig.store.accounts.add("carl@mx.test", "x")
    rig.directory.mailboxes[b"carl@mx.test"] = LocalTarget(carl.id, carl.inbox_id, b"carl@mx.test")
    if way == "bounce":
        await rig.queue(b"error:5.1.2 no such domain", sender=b"carl@mx.test")
    else:
        await rig.queue(b"local:", RecipientTail(b"bob@mx.test", notify=NOTIFY_SUCCESS), sender=b"carl@mx.test")
    await rig.until(lambda: inbox(rig, carl).exists == 1)
    await rig.settled()
    report = next(line["report"] for line in rig.log() if line["event"] == "delivery.notified")
    (told,) = (x for x in rig.log() if x["event"] == "delivery.delivered" and x["queue_id"] == report)
    assert (told["recipient"], told["mailbox"], told["relay"]) == ("carl@mx.test", "carl@mx.test", "local")
    assert rig.count("local", "delivered") == (1 if way == "bounce" else 2)


async def test_a_delivery_by_the_hop_names_the_mailbox_and_the_original_recipient(rig, account):
    queue_id = await rig.queue(b"local:", RecipientTail(b"bob@mx.test", original=b"sales@mx.test"))
    await rig.gone(queue_id)
    await rig.settled()
    (line,) = (line for line in rig.log() if line["event"] == "delivery.delivered")
    assert (line["recipient"], line["original_recipient"]) == ("bob@mx.test", "sales@mx.test")
    assert (line["mailbox"], line["relay"]) == ("bob@mx.test", "local")


async def test_a_forwarding_loop_bounces_with_its_code(rig):
    queue_id = await rig.queue(b"error:5.4.6 mail forwarding loop")
    await rig.gone(queue_id)
    ((message, _),) = rig.everything()
    assert b"Status: 5.4.6" in rig.store.queue.read(message.blob_id, 0, 100_000)


async def test_success_is_reported_in_the_unit_that_delivers(rig, account):
    """What is delivered and what is told of it are kept or lost together, also where the report has a mailbox here."""
    carl = await rig.store.accounts.add("carl@mx.test", "x")
    rig.directory.mailboxes[b"carl@mx.test"] = LocalTarget(carl.id, carl.inbox_id, b"carl@mx.test")
    tails = [RecipientTail(b"bob@mx.test", notify=NOTIFY_SUCCESS, orcpt=b"rfc822;Bob@mx.test")]
    await rig.queue(b"local:", *tails, sender=b"carl@mx.test")
    await rig.until(lambda: inbox(rig, account).exists == 1)
    assert inbox(rig, carl).exists == 1
    await rig.settled()
    assert inbox(rig, carl).exists == 1 and rig.everything() == []
    (row,) = rig.store.mailboxes.uids(carl.inbox_id)
    raw = rig.store.mailboxes.read(carl.inbox_id, row, 0, 10_000)
    assert b"Action: delivered" in raw and b"Original-Recipient: rfc822;Bob@mx.test" in raw


async def test_forwarded_success_is_left_to_the_next_hop(rig, account):
    onward = QueuedTarget(b"bob@else.test", b"smtp:[127.0.0.1]:1", held=True)
    rig.directory.resolve = lambda path, *, may_relay: Resolution(targets=(onward, onward))
    queue_id = await rig.queue(b"local:", RecipientTail(b"moved@mx.test", notify=NOTIFY_SUCCESS))
    await rig.gone(queue_id)
    await rig.settled()
    ((_, recipient),) = rig.everything()
    assert recipient.tail.forward_path == b"bob@else.test" and recipient.tail.notify == NOTIFY_SUCCESS


async def test_a_mailbox_of_many_names_gets_a_message_once(rig, account):
    local = LocalTarget(account.id, account.inbox_id, b"bob@mx.test")
    other = LocalTarget(account.id, account.inbox_id, b"robert@mx.test")
    rig.directory.resolve = lambda path, *, may_relay: Resolution(targets=(local, other))
    queue_id = await rig.queue(b"local:", b"both@mx.test", b"bob@mx.test", b"again@mx.test")
    await rig.gone(queue_id)
    await rig.settled()
    assert inbox(rig, account).exists == 1


async def test_a_mailbox_of_many_names_gets_a_bounce_once(rig, account):
    local = LocalTarget(account.id, account.inbox_id, b"bob@mx.test")
    other = LocalTarget(account.id, account.inbox_id, b"robert@mx.test")
    rig.directory.resolve = lambda path, *, may_relay: Resolution(targets=(local, other))
    queue_id = await rig.queue(b"error:5.1.2 no such domain", b"x@b.test", sender=b"both@mx.test")
    await rig.gone(queue_id)
    assert inbox(rig, account).exists == 1 and rig.everything() == []
