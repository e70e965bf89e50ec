"""The service over a real store and a real socket: each reply's consequence for the queue."""

import asyncio
import email
import email.policy

import pytest

from fastmta.delivery.redating import Redating
from fastmta.delivery.service import WITHHELD, WITHHELD_S
from fastmta.model.envelope import (
    HAS_8BIT,
    HAS_DOT_LINE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    QueuedTarget,
    RecipientState,
    RecipientTail,
)
from fastmta.model.limits import RESULTS_A_PASS
from fastmta.runtime.metrics import METRICS
from tests.support.ports import free_port
from tests.support.smtp_sink import CLOSE, HANG, SmtpSink


def hop(sink):
    return b"smtp:[127.0.0.1]:%d" % sink.port


async def test_a_delivered_message_leaves_the_queue(rig):
    async with SmtpSink() as sink:
        queue_id = await rig.queue(hop(sink), b"r@b.test")
        await rig.gone(queue_id)
        assert [(m.sender, m.recipients, m.data) for m in sink.messages] == [
            (b"s@a.test", [b"r@b.test"], b"Subject: x\r\n\r\nbody\r\n")
        ]
        await rig.settled()
        assert rig.count("smtp", "delivered") == 1
        (line,) = [line for line in rig.log() if line["event"] == "delivery.delivered"]
        assert line["recipient"] == "r@b.test" and line["relay"] == f"127.0.0.1[127.0.0.1]:{sink.port}"
        assert line["dsn"] == "2.0.0" and line["next_hop"] == hop(sink).decode()


async def test_many_messages_share_connections_up_to_the_window(rig):
    async with SmtpSink() as sink:
        ids = [await rig.queue(hop(sink)) for _ in range(300)]
        await rig.until(lambda: all(rig.store.queue.message(queue_id) is None for queue_id in ids))
        assert len(sink.messages) == 300
        assert sink.connections <= 25 and sink.most_open <= 20


async def test_a_connection_is_left_after_a_hundred_messages(make_rig):
    rig = make_rig(initial_destination_concurrency=1, default_destination_concurrency_limit=1)
    async with SmtpSink() as sink:
        for _ in range(150):
            await rig.queue(hop(sink))
        await rig.until(lambda: len(sink.messages) == 150)
        assert sink.connections == 2


async def test_recipients_of_one_message_go_fifty_at_a_time(rig):
    async with SmtpSink() as sink:
        await rig.queue(hop(sink), *[b"r%d@b.test" % n for n in range(120)])
        await rig.until(lambda: sum(len(m.recipients) for m in sink.messages) == 120)
        assert max(len(m.recipients) for m in sink.messages) == 50


async def test_each_recipient_goes_its_own_way(rig):
    replies = {b"bad@b.test": "550 5.1.1 unknown", b"later@b.test": "451 4.3.0 later"}
    async with SmtpSink(reply_for=replies.get) as sink:
        queue_id = await rig.queue(hop(sink), b"ok@b.test", b"bad@b.test", b"later@b.test")
        await rig.until(lambda: len(rig.rows(queue_id)) == 1)
        (row,) = rig.rows(queue_id)
        assert (row.tail.forward_path, row.state, row.attempts) == (b"later@b.test", RecipientState.DEFERRED, 1)
        assert b"451 4.3.0 later" in row.last_reply
        delay_s = row.due_ms / 1000 - rig.clock.now()
        assert 299 < delay_s <= 331
        dsn = [m for m, r in rig.everything() if m.queue_id != queue_id]
        assert len(dsn) == 1 and dsn[0].envelope.reverse_path == b""
        raw = rig.store.queue.read(dsn[0].blob_id, 0, 100_000)
        assert b"Final-Recipient: rfc822; bad@b.test" in raw and b"later@b.test" not in raw


async def test_a_deferred_recipient_is_tried_again_when_it_is_due(rig):
    async with SmtpSink(replies={"RCPT": ["450 4.7.1 Greylisted, try again in 60 seconds"]}) as sink:
        queue_id = await rig.queue(hop(sink))
        await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
        assert 59 < rig.rows(queue_id)[0].due_ms / 1000 - rig.clock.now() <= 66
        rig.tick(30)
        await rig.settled()
        assert sink.messages == []
        rig.tick(40)
        await rig.gone(queue_id)
        assert len(sink.messages) == 1


async def test_too_many_recipients_are_sent_again_at_once(rig):
    async with SmtpSink(replies={"RCPT": [None, "452 4.5.3 too many", "452 4.5.3 too many"]}) as sink:
        queue_id = await rig.queue(hop(sink), b"1@b.test", b"2@b.test", b"3@b.test")
        await rig.gone(queue_id)
        assert [m.recipients for m in sink.messages] == [[b"1@b.test"], [b"2@b.test", b"3@b.test"]]


@pytest.mark.parametrize("verb", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
async def test_a_lost_connection_defers_where_there_is_no_other_address(rig, verb):
    async with SmtpSink(replies={verb: [CLOSE]}) as sink:
        queue_id = await rig.queue(hop(sink))
        await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
        assert b"lost connection" in rig.rows(queue_id)[0].last_reply


@pytest.mark.parametrize("verb", ["MAIL", "DATA", "DOT"])
async def test_a_5xx_bounces_all_that_remain(rig, verb):
    async with SmtpSink(replies={verb: ["554 5.7.1 no"]}) as sink:
        queue_id = await rig.queue(hop(sink), b"1@b.test", b"2@b.test")
        await rig.gone(queue_id)
        ((message, _),) = rig.everything()
        raw = rig.store.queue.read(message.blob_id, 0, 100_000)
        assert raw.count(b"Action: failed") == 2


async def test_a_connection_that_the_server_closed_meanwhile_costs_no_attempt(rig):
    async with SmtpSink() as sink:
        await rig.queue(hop(sink))
        await rig.until(lambda: len(sink.messages) == 1)
        await rig.settled()
        sink.replies["MAIL"] = [CLOSE]
        queue_id = await rig.queue(hop(sink))
        await rig.gone(queue_id)
        assert len(sink.messages) == 2 and sink.connections == 2


async def test_the_next_host_is_tried_after_421_and_after_a_refused_connection(rig):
    async with SmtpSink(replies={"GREETING": ["421 busy"]}) as first, SmtpSink() as second:
        route = b"smtp:[127.0.0.1]:1,[127.0.0.1]:%d,[127.0.0.1]:%d" % (first.port, second.port)
        queue_id = await rig.queue(route)
        await rig.gone(queue_id)
        assert len(second.messages) == 1 and first.connections == 1


async def test_a_dead_destination_defers_what_is_due_and_comes_back(rig):
    port = free_port()
    ids = [await rig.queue(b"smtp:[127.0.0.1]:%d" % port) for _ in range(20)]
    await rig.until(lambda: all(rig.rows(queue_id)[0].state == RecipientState.DEFERRED for queue_id in ids))
    assert any(b"delivery temporarily suspended: connect to" in rig.rows(queue_id)[0].last_reply for queue_id in ids)
    suspended = [row for queue_id in ids for row in rig.rows(queue_id) if b"suspended" in row.last_reply]
    assert all(row.attempts == 0 and row.due_ms / 1000 >= rig.clock.now() + 299 for row in suspended)
    events = [line["event"] for line in rig.log()]
    assert events.count("destination.dead") == 1
    rig.tick(301)
    assert "destination.revived" in [line["event"] for line in rig.log()]


async def test_a_flush_tries_a_dead_destination_at_once(rig):
    port = free_port()
    queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % port)
    others = [await rig.queue(b"smtp:[127.0.0.1]:%d" % port) for _ in range(20)]
    await rig.until(lambda: all(rig.rows(n)[0].state == RecipientState.DEFERRED for n in [queue_id, *others]))
    attempts = rig.rows(queue_id)[0].attempts
    await rig.store.queue.flush(queue_id)
    await rig.until(lambda: rig.rows(queue_id)[0].attempts == attempts + 1)
    assert "destination.revived" in [line["event"] for line in rig.log()]


async def test_a_flush_of_many_revives_a_dead_destination_once_and_then_all_wait(rig):
    port = free_port()
    ids = [await rig.queue(b"smtp:[127.0.0.1]:%d" % port) for _ in range(300)]
    await rig.until(lambda: all(rig.rows(n)[0].state == RecipientState.DEFERRED for n in ids))
    for wish in (1, 2):
        rig.clock.advance(30)
        for n in ids:
            await rig.store.queue.flush(n)
            rig.clock.advance(0.001)
        await rig.settled()
        await rig.until(lambda: all(rig.rows(n)[0].state == RecipientState.DEFERRED for n in ids))
        events = [line["event"] for line in rig.log()]
        assert events.count("destination.revived") == wish and events.count("destination.dead") == wish + 1


async def test_a_long_flush_is_one_wish(rig):
    """A million recipients take a command minutes; the destination is tried once all the same."""
    port = free_port()
    ids = [await rig.queue(b"smtp:[127.0.0.1]:%d" % port) for _ in range(60)]
    await rig.until(lambda: all(rig.rows(n)[0].state == RecipientState.DEFERRED for n in ids))
    rig.clock.advance(30)
    wished_ms = int(rig.clock.now() * 1000)
    for n in ids:
        await rig.store.queue.flush(n, due_ms=wished_ms)
        await rig.until(lambda n=n: rig.rows(n)[0].state == RecipientState.DEFERRED)
        rig.clock.advance(3)
    assert [line["event"] for line in rig.log()].count("destination.revived") == 1


async def test_a_release_to_a_dead_destination_waits_with_all_the_rest(rig):
    port = free_port()
    ids = [await rig.queue(b"smtp:[127.0.0.1]:%d" % port) for _ in range(50)]
    await rig.until(lambda: all(rig.rows(n)[0].state == RecipientState.DEFERRED for n in ids))
    for n in ids:
        await rig.store.queue.hold(n)
    rig.clock.advance(30)
    for n in ids:
        await rig.store.queue.release(n)
    await rig.until(lambda: all(rig.rows(n)[0].state == RecipientState.DEFERRED for n in ids))
    assert [line["event"] for line in rig.log()].count("destination.revived") <= 1


async def test_a_clock_that_goes_back_leaves_nothing_due_later_than_the_rule_says(rig):
    async with SmtpSink(replies={"RCPT": ["451 4.3.0 later"] * 3}) as sink:
        await rig.queue(hop(sink))
        await rig.until(lambda: len(rig.everything()) == 1 and rig.everything()[0][1].attempts == 1)
        rig.clock.step(3600)
        rig.service._tick()
        late = await rig.queue(hop(sink))
        await rig.until(lambda: rig.rows(late)[0].state == RecipientState.DEFERRED)
        # Accepted while the clock was wrong, and not tried yet: nobody owns this hop's partition for the moment.
        rig.service._running = False
        fresh = await rig.queue(b"smtp:[127.0.0.1]:%d,[127.0.0.1]:1" % sink.port)
        rig.clock.step(-3600)
        assert rig.rows(late)[0].due_ms / 1000 > rig.clock.now() + 3800
        rig.service._running = True
        rig.tick()
        await rig.until(lambda: rig.rows(late)[0].due_ms / 1000 <= rig.clock.now() + 331)
        rig.tick(1)
        await rig.until(lambda: all(row.attempts == 1 for row in rig.rows(fresh)))  # none: it has gone
        events = [line["event"] for line in rig.log()]
        assert events.count("clock.set_forward") == 1 and events.count("clock.set_back") == 1
        assert "queue.redated" in events


async def test_a_clock_that_goes_forth_and_back_between_two_looks_is_found_out(rig):
    async with SmtpSink(replies={"RCPT": ["451 4.3.0 later"]}) as sink:
        rig.tick()
        rig.clock.step(3600)
        late = await rig.queue(hop(sink))
        await rig.until(lambda: rig.rows(late)[0].state == RecipientState.DEFERRED)
        rig.clock.step(-3600)
        rig.tick()
        await rig.until(lambda: rig.rows(late)[0].due_ms / 1000 <= rig.clock.now() + 331)


async def test_times_of_a_wrong_clock_are_found_at_start(make_rig):
    rig = make_rig()
    async with SmtpSink(replies={"RCPT": ["451 4.3.0 later"]}) as sink:
        rig.clock.step(7200)
        queue_id = await rig.queue(hop(sink))
        await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
        rig.clock.step(-7200)
        rig.service._redating = Redating(rig.service)  # as another process, which has never seen the wrong time
        rig.service._redating.begin(rig.service._partitions)
        rig.tick()
        await rig.until(lambda: rig.rows(queue_id)[0].due_ms / 1000 <= rig.clock.now() + 331)


async def test_a_dead_destination_is_tried_by_a_flush_after_the_clock_went_back(rig):
    port = free_port()
    queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % port)
    others = [await rig.queue(b"smtp:[127.0.0.1]:%d" % port) for _ in range(20)]
    await rig.until(lambda: all(rig.rows(n)[0].state == RecipientState.DEFERRED for n in [queue_id, *others]))
    rig.clock.step(-3600)
    rig.tick(10)
    await rig.store.queue.flush(queue_id)
    await rig.until(lambda: "destination.revived" in [line["event"] for line in rig.log()])


SEVEN_BIT = ("SIZE 50000000", "DSN", "ENHANCEDSTATUSCODES")
EIGHT_BIT_MAIL = b"Received: x\r\nDKIM-Signature: v=1\r\nSubject: x\r\n\r\n" + b"gr\xc3\xbcn = .\r\n.\r\n" * 20_000


@pytest.mark.parametrize("body", [EIGHT_BIT_MAIL, EIGHT_BIT_MAIL[:188]])
async def test_8bit_mail_is_made_7bit_where_the_server_takes_no_more(rig, body):
    async with SmtpSink(capabilities=SEVEN_BIT) as sink:
        ids = [await rig.queue(hop(sink), body=body, bits=HAS_8BIT | HAS_DOT_LINE) for _ in range(3)]
        await rig.until(lambda: all(rig.store.queue.message(queue_id) is None for queue_id in ids))
        await rig.settled()
        for taken in sink.messages:
            assert b"8BITMIME" not in taken.parameters
            message = email.message_from_bytes(taken.data, policy=email.policy.default)
            assert taken.data.isascii() and message.get_payload(decode=True) == body.partition(b"\r\n\r\n")[2]
        assert len(sink.messages) == 3
        lines = [line for line in rig.log() if line["event"] == "delivery.converted"]
        assert [line["breaks"] for line in lines] == ["DKIM"] * 3
    async with SmtpSink() as sink:
        queue_id = await rig.queue(hop(sink), body=body, bits=HAS_8BIT | HAS_DOT_LINE)
        await rig.gone(queue_id)
        assert sink.messages[0].data == body


async def test_8bit_mail_leaves_as_it_is_where_conversion_is_off(make_rig):
    rig = make_rig(disable_mime_output_conversion=True)
    async with SmtpSink(capabilities=SEVEN_BIT) as sink:
        queue_id = await rig.queue(hop(sink), body=b"A: b\r\n\r\n\xe9\r\n", bits=HAS_8BIT)
        await rig.gone(queue_id)
        assert sink.messages[0].data.endswith(b"\xe9\r\n") and b"BODY" not in sink.messages[0].parameters


async def test_a_report_about_8bit_mail_is_taken_by_any_server(rig):
    """The next hop refuses the mail, and the sender's own server takes 7-bit only: he hears of it all the same."""
    async with (
        SmtpSink(replies={"RCPT": ["550 5.1.1 nein, gr\u00fc\u00dfe"]}) as far,
        SmtpSink(capabilities=SEVEN_BIT) as near,
    ):
        rig.directory.mailboxes[b"s@a.test"] = QueuedTarget(b"s@a.test", hop(near))
        queue_id = await rig.queue(hop(far), "r\u00fc@b.test".encode(), body=EIGHT_BIT_MAIL[:200], bits=HAS_8BIT)
        await rig.until(lambda: rig.store.queue.message(queue_id) is None and near.messages)
        (taken,) = near.messages
        assert taken.data.isascii() and taken.sender == b""
        text, status, original = email.message_from_bytes(taken.data, policy=email.policy.default).iter_parts()
        assert "nein, gr\u00fc\u00dfe" in text.get_content()
        assert status.get_payload()[1]["Final-Recipient"] == r"utf-8; r\x{FC}@b.test"
        assert "gr\u00fcn" in original.get_payload()[0].get_content()


async def test_a_double_bounce_is_a_warning_and_counted(rig):
    async with SmtpSink(replies={"RCPT": ["550 5.1.1 no"]}) as sink:
        queue_id = await rig.queue(hop(sink), sender=b"")
        await rig.gone(queue_id)
        await rig.queue(b"error:5.1.1 no", sender=b"nobody@else.test")
        await rig.until(lambda: not rig.everything())
        dropped = [line for line in rig.log() if line["event"] == "delivery.bounce_dropped"]
        assert [line["level"] for line in dropped] == ["warning"] * 2
        for reason in ("double_bounce", "sender_refused"):
            assert rig.services.cells[METRICS.bounces_dropped_total[reason]] == 1


async def test_an_expired_message_bounces_with_its_last_reason(rig):
    async with SmtpSink(replies={"RCPT": ["451 4.3.0 later"]}) as sink:
        queue_id = await rig.queue(hop(sink), received_at_ms=int((rig.clock.now() - 5 * 86400 - 1) * 1000))
        await rig.gone(queue_id)
        ((message, _),) = rig.everything()
        raw = rig.store.queue.read(message.blob_id, 0, 100_000)
        assert b"Status: 4.3.0" in raw and b"Action: failed" in raw


async def test_the_null_sender_and_notify_never_get_no_report(rig):
    async with SmtpSink(reply_for=lambda address: "550 5.1.1 no") as sink:
        one = await rig.queue(hop(sink), sender=b"")
        two = await rig.queue(hop(sink), RecipientTail(b"r@b.test", notify=NOTIFY_NEVER))
        await rig.until(lambda: rig.store.queue.message(one) is None and rig.store.queue.message(two) is None)
        await rig.settled()
        assert rig.everything() == []
        assert "delivery.bounce_dropped" in [line["event"] for line in rig.log()]


async def test_success_is_reported_as_relayed_where_the_server_does_not_know_dsn(rig):
    async with SmtpSink(capabilities=("SIZE",)) as sink:
        queue_id = await rig.queue(hop(sink), RecipientTail(b"r@b.test", notify=NOTIFY_SUCCESS))
        await rig.gone(queue_id)
        ((message, _),) = rig.everything()
        assert b"Action: relayed" in rig.store.queue.read(message.blob_id, 0, 100_000)
    async with SmtpSink() as sink:
        queue_id = await rig.queue(hop(sink), RecipientTail(b"r@b.test", notify=NOTIFY_SUCCESS))
        await rig.gone(queue_id)
        assert len(rig.everything()) == 1


async def test_a_delay_is_reported_once(make_rig):
    rig = make_rig(delay_warning_time=3600.0)
    async with SmtpSink(reply_for=lambda address: "451 4.3.0 later") as sink:
        queue_id = await rig.queue(hop(sink), received_at_ms=int((rig.clock.now() - 3601) * 1000))
        for _ in range(3):
            attempts = len([c for c in sink.commands if c.startswith(b"RCPT")])
            rig.tick(5000)
            await sink.until(lambda seen=attempts: len([c for c in sink.commands if c.startswith(b"RCPT")]) > seen)
            await rig.settled()
        reports = [m for m, _ in rig.everything() if m.queue_id != queue_id]
        assert len(reports) == 1
        assert b"Action: delayed" in rig.store.queue.read(reports[0].blob_id, 0, 100_000)


async def test_a_hold_during_a_delivery_is_told_as_too_late_and_not_repeated(rig):
    async with SmtpSink() as sink:
        held = asyncio.Event()

        async def hold(queue_id):
            await rig.store.queue.hold(queue_id)
            held.set()

        queue_id = 0
        tasks = []
        sink.on_message = lambda taken: tasks.append(asyncio.ensure_future(hold(queue_id)))
        sink.replies["DOT"] = [None]
        queue_id = await rig.queue(hop(sink))
        await held.wait()
        await rig.settled()
        rows = rig.rows(queue_id)
        assert rows == [] or rows[0].state == RecipientState.HELD
        assert len(sink.messages) == 1


async def test_a_message_that_is_deleted_on_its_way_is_no_fault_of_the_destination(rig):
    async with SmtpSink() as sink:
        queue_id = await rig.queue(hop(sink), body=b"x" * 78 + b"\r\n")
        read = rig.store.queue.read
        rig.service.queue.read = lambda *place: None
        await rig.until(lambda: "DATA" in str(sink.commands) and not sink.open_now)
        rig.service.queue.read = read
        assert rig.rows(queue_id)[0].state == RecipientState.ACTIVE and sink.messages == []
        assert "destination.dead" not in [line["event"] for line in rig.log()]


async def test_discard_error_and_retry(rig):
    one = await rig.queue(b"discard:")
    two = await rig.queue(b"error:5.1.2 no such domain")
    three = await rig.queue(b"retry:4.3.0 come back")
    await rig.until(lambda: rig.store.queue.message(one) is None and rig.store.queue.message(two) is None)
    await rig.until(lambda: rig.rows(three)[0].state == RecipientState.DEFERRED)
    assert rig.count("discard", "delivered") == 1 and rig.count("error", "bounced") == 1


async def test_lmtp_over_a_unix_socket(rig, tmp_path):
    path = str(tmp_path / "lmtp")
    replies = {"DOT": [None, "452 4.2.2 full"]}
    async with SmtpSink(lmtp=True, unix_path=path, replies=replies):
        queue_id = await rig.queue(b"lmtp:unix:" + path.encode(), b"1@b.test", b"2@b.test")
        await rig.until(lambda: [row.state for row in rig.rows(queue_id)] == [RecipientState.DEFERRED])
        assert rig.rows(queue_id)[0].tail.forward_path == b"2@b.test"
        assert rig.count("lmtp", "delivered") == 1


async def test_a_stopped_service_leaves_the_rest_in_the_queue(rig):
    async with SmtpSink() as sink:
        await rig.service.stop(1.0)
        queue_id = await rig.queue(hop(sink))
        assert rig.rows(queue_id)[0].state == RecipientState.ACTIVE
        rig.service.start()
        await rig.gone(queue_id)


async def test_what_is_withdrawn_is_told_if_it_is_on_its_way_and_not_begun_if_not(make_rig):
    rig = make_rig(initial_destination_concurrency=1, default_destination_concurrency_limit=1)
    async with SmtpSink() as sink:
        sink.replies["DATA"] = [HANG]
        first = await rig.queue(hop(sink), b"first@b.test")
        await sink.until(lambda: b"DATA" in sink.commands)
        second = await rig.queue(hop(sink), b"second@b.test")
        keys = [(first, 0), (second, 0), (second + 1, 0)]
        assert rig.service.withdraw(keys) == [(first, 0)]
        rig.service.hops_changed(None)
        assert rig.service.status()["in_flight"] == 1


async def test_what_is_withheld_is_bounded_and_the_oldest_goes_first(rig):
    rig.service.withdraw([(n, 0) for n in range(WITHHELD)])
    rig.service.withdraw([(WITHHELD, 0)])
    assert (0, 0) not in rig.service.withheld
    assert (1, 0) in rig.service.withheld and (WITHHELD, 0) in rig.service.withheld
    rig.tick(WITHHELD_S + 1)
    assert not rig.service.withheld


async def test_what_never_waits_decides_a_bounded_number_in_one_pass_of_the_loop(rig):
    decided = [0]

    def passing():
        decided.append(0)
        if not ended:
            asyncio.get_running_loop().call_soon(passing)

    submitted = rig.service.submitted

    def counting(results):
        decided[-1] += results
        submitted(results)

    rig.service.submitted = counting
    ended = False
    passing()
    ids = [await rig.queue(b"discard:", *(b"r%d@b.test" % n for n in range(400))) for _ in range(2)]
    for queue_id in ids:
        await rig.gone(queue_id)
    ended = True
    assert sum(decided) == 800
    job = rig.config.delivery.default_destination_recipient_limit
    assert max(decided) < RESULTS_A_PASS + job
