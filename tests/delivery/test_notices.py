"""What postmaster gets, by notify_classes; and that nothing goes round and round."""

import email
import email.policy

import pytest

from fastmta.model.envelope import NOTIFY_NEVER, RecipientTail
from fastmta.runtime.metrics import METRICS

NO = b"error:5.1.1 no"
LATER = b"retry:4.3.0 later"
BODY = b"Subject: x\r\nX-Mark: yes\r\n\r\nsecret body\r\n"


def notices(rig):
    """(recipient, sender, message) of each report in the queue."""
    found = []
    for message, row in rig.everything():
        raw = rig.store.queue.read(message.blob_id, 0, 100_000)
        if b"Auto-Submitted" in raw:
            parsed = email.message_from_bytes(raw, policy=email.policy.default)
            found.append((row.tail.forward_path, message.envelope.reverse_path, parsed))
    return sorted(found, key=lambda each: each[0])


def keys(*classes, **others):
    """Postmaster's mail stays in the queue of the rig, where it can be read."""
    mine = {"bounce_notice_recipient": "pm@a.test", "delay_notice_recipient": "pm@a.test"}
    return {"notify_classes": classes, "_2bounce_notice_recipient": "pm2@a.test", **mine, **others}


async def bounced(rig, hop=NO, **options):
    queue_id = await rig.queue(hop, options.pop("recipient", b"r@b.test"), body=BODY, **options)
    await rig.gone(queue_id)
    await rig.settled()


def dropped(rig, reason):
    return rig.services.cells[METRICS.bounces_dropped_total[reason]]


async def test_by_default_postmaster_gets_nothing(rig):
    await bounced(rig)
    await bounced(rig, sender=b"")
    assert [each[0] for each in notices(rig)] == [b"s@a.test"]
    assert dropped(rig, "double_bounce") == 1


@pytest.mark.parametrize("classes", [("bounce",), ("bounce", "2bounce")])
async def test_bounce_copies_the_header_to_postmaster(make_rig, classes):
    rig = make_rig(top=keys(*classes))
    await bounced(rig)
    (to, sender, copy), (other, null, report) = notices(rig)
    assert (to, sender, other, null) == (b"pm@a.test", b"double-bounce@mx.test", b"s@a.test", b"")
    assert copy["Subject"] == "Postmaster Copy: Undelivered Mail" and copy["To"] == "pm@a.test"
    assert b"X-Mark: yes" in copy.as_bytes() and b"secret body" not in copy.as_bytes()
    assert report["Subject"] == "Undelivered Mail Returned to Sender" and b"secret body" in report.as_bytes()


@pytest.mark.parametrize("classes", [("2bounce",), ("bounce",)])
async def test_what_nobody_can_be_told_goes_to_postmaster_whole(make_rig, classes):
    rig = make_rig(top=keys(*classes))
    await bounced(rig, sender=b"")
    ((to, sender, copy),) = notices(rig)
    assert (to, sender) == (b"pm2@a.test", b"double-bounce@mx.test")
    assert b"secret body" in copy.as_bytes() and dropped(rig, "double_bounce") == 0


async def test_a_sender_who_is_nobody_is_a_double_bounce_too(make_rig):
    rig = make_rig(top=keys("2bounce"))
    await bounced(rig, sender=b"nobody@else.test")
    ((to, _, _),) = notices(rig)
    assert to == b"pm2@a.test" and dropped(rig, "sender_refused") == 0


async def test_2bounce_alone_copies_no_single_bounce(make_rig):
    rig = make_rig(top=keys("2bounce"))
    await bounced(rig)
    assert [each[0] for each in notices(rig)] == [b"s@a.test"]


@pytest.mark.parametrize("classes", [("2bounce",), ("bounce",)])
async def test_mail_to_postmaster_that_bounces_ends_there(make_rig, classes):
    rig = make_rig(top=keys(*classes))
    await bounced(rig, sender=b"double-bounce@mx.test")
    assert notices(rig) == [] and dropped(rig, "double_bounce") == 1
    assert [line["level"] for line in rig.log() if line["event"] == "delivery.bounce_dropped"] == ["warning"]


async def test_a_postmaster_who_is_nobody_is_told_of_in_the_log(make_rig):
    rig = make_rig(top=keys("2bounce", _2bounce_notice_recipient="nobody@else.test"))
    await bounced(rig, sender=b"")
    assert notices(rig) == [] and dropped(rig, "sender_refused") == 1


async def test_delay_warns_postmaster_beside_the_sender(make_rig):
    rig = make_rig(top=keys("delay"), delay_warning_time=3600.0)
    await rig.queue(LATER, b"r@b.test", body=BODY, received_at_ms=int((rig.clock.now() - 3601) * 1000))
    await rig.until(lambda: len(notices(rig)) == 2)
    (to, _, copy), (other, _, _) = notices(rig)
    assert (to, other) == (b"pm@a.test", b"s@a.test")
    assert copy["Subject"] == "Postmaster Warning: Delayed Mail" and b"secret body" not in copy.as_bytes()


async def test_notify_never_holds_for_postmaster_as_well(make_rig):
    rig = make_rig(top=keys("bounce"))
    await bounced(rig, recipient=RecipientTail(b"r@b.test", notify=NOTIFY_NEVER))
    assert notices(rig) == []


async def test_a_postmaster_without_a_domain_is_of_myorigin(make_rig):
    rig = make_rig(top=keys("bounce", bounce_notice_recipient="pm", myorigin="a.test"))
    await bounced(rig)
    assert [each[0] for each in notices(rig)] == [b"pm@a.test", b"s@a.test"]
