"""MAIL to end of data: parameters, what is stored, BDAT, LMTP, loops, failures of the store."""

from collections.abc import Callable

import pytest

from fastmta.model.envelope import HAS_DOT_LINE, NO_FINAL_CRLF, NOTIFY_SUCCESS, Envelope, Lane, RecipientTail
from fastmta.model.ids import parse_queue_id
from fastmta.model.limits import LANE_BULK_BYTES
from fastmta.queue.scheduler import lane_for
from fastmta.runtime.metrics import METRICS
from tests.support.feed import pieces_of
from tests.support.smtp_rig import Client, SmtpRig

OPEN = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@relay.test>\r\n"


def queue(rig: SmtpRig) -> list[tuple[Envelope, list[RecipientTail], list[tuple[bytes, int]]]]:
    """(envelope, tails, (hop, state)) of every queued message."""
    return [
        (message.envelope, [each.tail for each in recipients], [(each.hop, each.state) for each in recipients])
        for message, recipients in rig.queue()
    ]


def messages(rig: SmtpRig, mailbox_id: int) -> list[bytes]:
    """The prefixes of a mailbox's messages."""
    return [row.prefix for row in rig.store.mailboxes.rows(mailbox_id)]


def send(client: Client, message: bytes = b"Subject: x\r\n\r\nbody\r\n", opening: bytes = OPEN) -> bytes:
    client.say(opening + b"DATA\r\n")
    return client.say(message + b".\r\n")


def test_an_accepted_message_is_queued_under_its_hop(rig: SmtpRig) -> None:
    client = rig.connect().start()
    answer = send(client, b"A: b\r\n\r\n..x\r\n", OPEN + b"RCPT TO:<y@held.test>\r\n")
    ((envelope, tails, places),) = queue(rig)
    assert envelope.reverse_path == b"a@b.test" and envelope.client == "unknown[127.0.0.1]"
    assert envelope.bits == HAS_DOT_LINE and envelope.received_at_ms == 1_800_000_000_000
    assert [tail.forward_path for tail in tails] == [b"x@relay.test", b"y@held.test"]
    assert places == [(b"smtp:relay.test", 1), (b"hold:held.test", 3)]
    assert envelope.size_bytes == len(rig.blobs()[0])
    assert parse_queue_id(answer.split()[-1].decode()) == rig.queue()[0][0].queue_id
    assert rig.counter(METRICS.messages_received_total) == 1
    assert rig.counter(METRICS.received_bytes_total) == len(b"A: b\r\n\r\n.x\r\n")


def rcpts(count: int) -> bytes:
    return b"".join(b"RCPT TO:<r%d@relay.test>\r\n" % n for n in range(count))


@pytest.mark.parametrize(
    ("recipients", "size", "lane"),
    [
        (5, 100, Lane.SMALL),
        (6, 100, Lane.NORMAL),
        (50, 100, Lane.NORMAL),
        (51, 100, Lane.BULK),
        (1, 70_000, Lane.NORMAL),
        (1, LANE_BULK_BYTES, Lane.BULK),
    ],
)
def test_the_lane_comes_from_recipients_and_size_as_everywhere(
    make_rig: Callable[..., SmtpRig], recipients: int, size: int, lane: Lane
) -> None:
    rig = make_rig(message_size_limit=0)
    client = rig.connect().start()
    client.say(b"MAIL FROM:<a@b.test>\r\n" + rcpts(recipients) + b"DATA\r\n")
    client.say((b"x" * 70 + b"\r\n") * (size // 72 + 1) + b".\r\n")
    ((message, queued),) = rig.queue()
    assert {each.lane for each in queued} == {lane} == {lane_for(message.envelope.size_bytes, len(queued))}


def test_the_received_field_names_client_protocol_id_and_the_one_recipient(rig: SmtpRig) -> None:
    answer = send(rig.connect().start(b"EHLO client.test"))
    blob = rig.blobs()[0]
    queue_id = answer.split()[-1]
    head, _, _ = blob.partition(b"Subject:")
    date = rig.server._hosts["smtp"].service.teller.date_text().encode()
    assert head == (
        b"Received: from client.test (unknown [127.0.0.1])\r\n\tby mx.example.test (FastMTA) with ESMTP id "
        + queue_id + b"\r\n\tfor <x@relay.test>; " + date + b"\r\n"
    )  # fmt: skip


def test_a_name_with_its_final_dot_is_taken_and_written_without(rig: SmtpRig) -> None:
    send(rig.connect().start(b"EHLO client.test."))
    assert rig.blobs()[0].startswith(b"Received: from client.test (unknown [127.0.0.1])\r\n")


def test_the_received_field_has_no_for_where_there_are_two_recipients(rig: SmtpRig) -> None:
    send(rig.connect().start(), opening=OPEN + b"RCPT TO:<y@relay.test>\r\n")
    assert b"for <" not in rig.blobs()[0]


@pytest.mark.parametrize(
    ("service", "helo", "tls", "auth", "protocol"),
    [
        ("smtp", b"HELO", False, False, b"SMTP"),
        ("smtp", b"EHLO", False, False, b"ESMTP"),
        ("smtp", b"EHLO", True, False, b"ESMTPS"),
        ("smtp", b"EHLO", False, True, b"ESMTPA"),
        ("submissions", b"EHLO", True, True, b"ESMTPSA"),
        ("lmtp", b"LHLO", False, False, b"LMTP"),
    ],
)
def test_with_tells_protocol_tls_and_login(
    rig: SmtpRig, service: str, helo: bytes, tls: bool, auth: bool, protocol: bytes
) -> None:
    client = rig.connect(service, tls=tls).start(helo + b" c.test")
    if auth:
        assert client.codes(b"AUTH PLAIN AGJpbGxAZXhhbXBsZS50ZXN0AHNlY3JldA==\r\n") == [235]
    assert send(client, opening=b"MAIL FROM:<bill@example.test>\r\nRCPT TO:<x@relay.test>\r\n").startswith(b"250 ")
    assert b" with " + protocol + b" id " in rig.blobs()[0]
    assert (b"(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))" in rig.blobs()[0]) is tls


def test_ipv6_is_written_as_an_address_literal(rig: SmtpRig) -> None:
    client = rig.connect(ip="2001:db8::1").start()
    send(client)
    assert b"(unknown [IPv6:2001:db8::1])" in rig.blobs()[0]
    assert client.session.client == "unknown[2001:db8::1]"


def test_dsn_parameters_are_kept(rig: SmtpRig) -> None:
    client = rig.connect().start()
    opening = (
        b"MAIL FROM:<a@b.test> RET=hdrs ENVID=QQ+2B1\r\n"
        b"RCPT TO:<x@relay.test> NOTIFY=SUCCESS,delay ORCPT=rfc822;Old+2BName@b.test\r\n"
        b"RCPT TO:<y@relay.test> NOTIFY=NEVER\r\n"
    )
    assert send(client, opening=opening).startswith(b"250 ")
    ((envelope, tails, _),) = queue(rig)
    assert (envelope.ret, envelope.envid) == ("HDRS", b"QQ+1")
    assert [(tail.notify, tail.orcpt) for tail in tails] == [(10, b"rfc822;Old+Name@b.test"), (1, b"")]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"MAIL FROM:<a@b> RET=X", 501),
        (b"MAIL FROM:<a@b> ENVID=a+0", 501),
        (b"MAIL FROM:<a@b> ENVID=" + b"x" * 101, 501),
        (b"MAIL FROM:<a@b> ENVID=a+0A", 501),
        (b"MAIL FROM:<a@b> BODY=BINARYMIME", 501),
        (b"MAIL FROM:<a@b> SIZE=x", 501),
        (b"MAIL FROM:<a@b> SIZE=1 SIZE=1", 501),
        (b"MAIL FROM:<a@b> SIZE=99999999999999999999", 552),
        (b"MAIL FROM:<a@b> SIZE=", 501),
        (b"MAIL FROM:<a@b> BOGUS=1", 555),
        (b"MAIL FROM:<a@b>SIZE=1", 501),
        (b"MAIL FROM:a@b", 250),
        (b"MAIL FROM:", 501),
        (b"MAIL FROM <a@b>", 501),
        (b"MAIL TO:<a@b>", 501),
        (b"MAIL FROM: <a@b>", 250),
        (b"mail from:<>  size=10", 250),
        (b"MAIL FROM:<a@b> AUTH=<>", 250),
    ],
)
def test_mail_parameters(rig: SmtpRig, line: bytes, code: int) -> None:
    assert rig.connect().start().codes(line + b"\r\n") == [code]


@pytest.mark.parametrize(
    ("parameter", "code"),
    [
        (b" NOTIFY=NEVER,DELAY", 501),
        (b" NOTIFY=DELAY,DELAY", 501),
        (b" NOTIFY=", 501),
        (b" ORCPT=rfc822", 501),
        (b" ORCPT=rfc822;a+0Ab@c", 501),
        (b" ORCPT=rfc822;" + b"x" * 500, 501),
        (b" SIZE=1", 555),
        (b" ORCPT=rfc822;a@b NOTIFY=FAILURE", 250),
    ],
)
def test_rcpt_parameters(rig: SmtpRig, parameter: bytes, code: int) -> None:
    client = rig.connect().start()
    client.say(b"MAIL FROM:<a@b>\r\n")
    assert client.codes(b"RCPT TO:<x@relay.test>" + parameter + b"\r\n") == [code]


# --- local mailboxes ---


def test_a_local_recipient_gets_the_message_in_the_accepting_unit(rig: SmtpRig) -> None:
    mailbox_id = rig.add_mailbox(b"bill@example.test")
    opening = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<Bill@example.test>\r\n"
    assert send(rig.connect().start(), opening=opening).startswith(b"250 ")
    assert messages(rig, mailbox_id) == [b"Return-Path: <a@b.test>\r\nDelivered-To: bill@example.test\r\n"]
    assert queue(rig) == []
    assert rig.counter(METRICS.deliveries_total["local", "delivered"]) == 1


def test_an_alias_to_a_mailbox_and_away_goes_to_both(rig: SmtpRig) -> None:
    mailbox_id = rig.add_mailbox(b"bill@example.test")
    opening = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<both@example.test>\r\nRCPT TO:<bill@example.test>\r\n"
    assert send(rig.connect().start(), opening=opening).startswith(b"250 ")
    assert len(messages(rig, mailbox_id)) == 1, "two names of one mailbox"
    ((_, tails, _),) = queue(rig)
    assert [(tail.forward_path, tail.original) for tail in tails] == [(b"x@relay.test", b"both@example.test")]


def test_a_mailbox_that_is_full_at_the_commit_makes_a_queued_recipient(rig: SmtpRig) -> None:
    rig.add_mailbox(b"bill@example.test", quota_bytes=10)
    opening = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<bill@example.test>\r\n"
    assert send(rig.connect().start(), opening=opening).startswith(b"250 ")
    ((_, _, places),) = queue(rig)
    assert places == [(b"local:", 1)]


def test_local_resolutions_are_remembered_for_a_second_and_refusals_never(rig: SmtpRig) -> None:
    rig.add_mailbox(b"bill@example.test")
    client = rig.connect().start()
    line = b"RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<bill@example.test>\r\n"
    client.say(line * 3)
    assert rig.directory.calls == 1
    rig.pass_seconds(1)
    client.say(line)
    assert rig.directory.calls == 2
    assert client.codes(b"RCPT TO:<ted@example.test>\r\n") == [550]
    rig.add_mailbox(b"ted@example.test")
    assert client.codes(b"RCPT TO:<ted@example.test>\r\n") == [250]


def test_a_change_of_the_directory_clears_what_is_remembered(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(OPEN * 1 + b"RSET\r\n" + OPEN + b"RSET\r\n")
    assert rig.directory.calls == 1
    rig.directory.version += 1
    client.say(OPEN)
    assert rig.directory.calls == 2


# --- loops ---


@pytest.mark.parametrize(("count", "code"), [(49, 250), (50, 250), (51, 554)])
def test_more_than_50_received_fields_are_a_loop(rig: SmtpRig, count: int, code: int) -> None:
    answer = send(rig.connect().start(), b"Received: x\r\n" * count + b"\r\nbody\r\n")
    assert int(answer[:3]) == code
    assert code == 250 or answer.startswith(b"554 5.4.6 ")


def test_delivered_to_of_the_only_recipient_is_a_loop(rig: SmtpRig) -> None:
    rig.add_mailbox(b"bill@example.test")
    opening = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<bill@example.test>\r\n"
    answer = send(rig.connect().start(), b"Delivered-To: Bill@example.test\r\n\r\nx\r\n", opening)
    assert answer.startswith(b"554 5.4.6 ")
    assert rig.blobs() == [] and rig.rejected("loop") == 1


def test_delivered_to_of_one_of_two_recipients_bounces_that_one(rig: SmtpRig) -> None:
    bill, ted = rig.add_mailbox(b"bill@example.test"), rig.add_mailbox(b"ted@example.test")
    opening = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<bill@example.test>\r\nRCPT TO:<ted@example.test>\r\n"
    answer = send(rig.connect().start(), b"Delivered-To: bill@example.test\r\n\r\nx\r\n", opening)
    assert answer.startswith(b"250 ")
    assert (len(messages(rig, bill)), len(messages(rig, ted))) == (0, 1)
    ((_, _, places),) = queue(rig)
    assert places == [(b"error:5.4.6 mail forwarding loop", 1)]


# --- BDAT ---


def test_chunks_make_one_message(rig: SmtpRig) -> None:
    client = rig.connect().start()
    script = OPEN + b"BDAT 9\r\nA: b\r\n\r\n.BDAT 5\r\n.\r\nx\rBDAT 1 LAST\r\n\nNOOP\r\n"
    answers = set()
    for pieces in list(pieces_of(script))[1::7]:
        client.say(b"RSET\r\n")
        said = b"".join(client.say(piece) for piece in pieces)
        answers.add(b"\n".join(line for line in said.split(b"\r\n") if b"queued as" not in line))
    assert len(answers) == 1
    assert {blob.partition(b"\r\nA: b")[2] for blob in rig.blobs()} == {b"\r\n\r\n..\r\nx\r\n"}


def test_a_body_without_final_crlf_is_marked(rig: SmtpRig) -> None:
    client = rig.connect().start()
    assert client.codes(OPEN + b"BDAT 4 LAST\r\nA: b") == [250, 250, 250]
    assert queue(rig)[0][0].bits == NO_FINAL_CRLF


@pytest.mark.parametrize("body", [b"a\nb\r\n", b"a\rb\r\n", b"ab\r"])
def test_chunks_with_bare_newlines_are_refused(rig: SmtpRig, body: bytes) -> None:
    client = rig.connect().start()
    assert client.codes(OPEN + b"BDAT %d LAST\r\n" % len(body) + body + b"NOOP\r\n") == [250, 250, 550]
    assert client.ended


def test_a_bare_newline_in_a_chunk_that_is_not_the_last_ends_the_session(rig: SmtpRig) -> None:
    client = rig.connect().start()
    assert client.codes(OPEN + b"BDAT 3\r\na\nbBDAT 0 LAST\r\n") == [250, 250, 550]
    assert client.ended


@pytest.mark.parametrize("argument", [b"x", b"", b"-1", b"9223372036854775808", b"1 last x", b"1 LASTLY", b"0x10"])
def test_bad_chunk_sizes_are_501(rig: SmtpRig, argument: bytes) -> None:
    client = rig.connect().start()
    assert client.codes(OPEN + b"BDAT " + argument + b"\r\nNOOP\r\n") == [250, 250, 501, 250]


def test_a_chunk_out_of_order_is_consumed_all_the_same(rig: SmtpRig) -> None:
    client = rig.connect().start()
    assert client.codes(b"BDAT 6\r\nQUIT\r\nNOOP\r\n") == [503, 250]
    assert client.codes(OPEN + b"BDAT 6\r\nQUIT\r\nDATA\r\n") == [250, 250, 250, 503]
    assert client.codes(b"RSET\r\n") == [250]


def test_chunks_over_the_limit_are_552_before_they_come(make_rig: object) -> None:
    rig = make_rig(message_size_limit=100)  # type: ignore[operator]
    client = rig.connect().start()
    assert client.codes(OPEN + b"BDAT 60\r\n" + b"x" * 60 + b"BDAT 41\r\n") == [250, 250, 250, 552]
    assert client.codes(b"y" * 41 + b"BDAT 1 LAST\r\nzNOOP\r\n") == [503, 250]


# --- LMTP ---


def test_lmtp_answers_each_recipient(rig: SmtpRig) -> None:
    bill = rig.add_mailbox(b"bill@example.test")
    rig.add_mailbox(b"ted@example.test", quota_bytes=10)
    client = rig.connect("lmtp").start(b"LHLO c.test")
    opening = b"MAIL FROM:<a@b>\r\n" + b"".join(
        b"RCPT TO:<%s@example.test>\r\n" % name for name in (b"bill", b"no", b"ted", b"bill")
    )
    assert client.codes(opening + b"DATA\r\n") == [250, 250, 550, 250, 250, 354]
    answer = client.say(b"A: b\r\n\r\nx\r\n.\r\nNOOP\r\n").split(b"\r\n")
    assert [line[:3] for line in answer[:-1]] == [b"250", b"452", b"250", b"250"]
    assert answer[1] == b"452 4.2.2 Mailbox is full"
    assert len(messages(rig, bill)) == 1
    assert queue(rig) == [], "LMTP does not queue what a mailbox refused"


def test_lmtp_refusals_by_mailboxes_do_not_end_the_session(rig: SmtpRig) -> None:
    names = [b"user%d@example.test" % i for i in range(40)]
    for name in names:
        rig.add_mailbox(name, quota_bytes=10)
    client = rig.connect("lmtp").start(b"LHLO c.test")
    client.say(b"MAIL FROM:<a@b>\r\n" + b"".join(b"RCPT TO:<%s>\r\n" % name for name in names))
    assert client.codes(b"DATA\r\nx\r\n.\r\nNOOP\r\n") == [354] + [452] * 40 + [250]
    assert queue(rig) == []


def test_lmtp_wants_lhlo(rig: SmtpRig) -> None:
    assert rig.connect("lmtp").codes(b"EHLO x\r\nHELO x\r\nLHLO x\r\n") == [500, 500, 250]
    assert rig.connect("smtp").codes(b"LHLO x\r\n") == [500]


def test_lmtp_refuses_the_message_for_each_recipient(rig: SmtpRig) -> None:
    client = rig.connect("lmtp").start(b"LHLO c.test")
    client.say(OPEN + b"RCPT TO:<y@relay.test>\r\nDATA\r\n")
    assert client.codes(b"a\nb\r\n.\r\n") == [550, 550]


def test_lmtp_refuses_the_last_chunk_for_each_recipient(make_rig: object) -> None:
    rig = make_rig(message_size_limit=100)  # type: ignore[operator]
    client = rig.connect("lmtp").start(b"LHLO c.test")
    client.say(OPEN + b"RCPT TO:<y@relay.test>\r\n")
    assert client.codes(b"BDAT 101\r\n" + b"x" * 101) == [552]
    client.say(OPEN + b"RCPT TO:<y@relay.test>\r\n")
    assert client.codes(b"BDAT 101 LAST\r\n" + b"x" * 101 + b"NOOP\r\n") == [552, 552, 250]


# --- the store ---


def test_want_of_room_is_452_at_mail(rig: SmtpRig) -> None:
    client = rig.connect().start()
    rig.full = True
    assert client.codes(b"MAIL FROM:<a@b>\r\nMAIL FROM:<a@b> SMTPUTF8\r\n") == [452, 452]
    rig.full = False
    assert client.codes(b"MAIL FROM:<a@b>\r\n") == [250]


def test_want_of_room_is_452_at_data_where_it_came_after_the_second_of_mail(rig: SmtpRig) -> None:
    client = rig.connect().start()
    assert client.codes(b"MAIL FROM:<a@b>\r\nRCPT TO:<x@held.test>\r\n") == [250, 250]
    rig.full = True
    rig.pass_seconds(1)
    assert client.codes(b"DATA\r\n") == [452]


def test_the_directory_is_asked_for_its_version_when_that_may_have_changed(rig: SmtpRig) -> None:
    client = rig.connect().start()
    transaction = b"MAIL FROM:<a@b>\r\nRCPT TO:<x@relay.test>\r\nRSET\r\n"
    rig.directory.version_until = rig.clock.monotonic() + 1.0
    client.say(transaction)
    rig.directory.version += 1
    rig.directory.calls = 0
    client.say(transaction)
    assert rig.directory.calls == 0  # the answer of before counts for this second
    rig.clock.advance(1.0)
    client.say(transaction)
    assert rig.directory.calls == 1


def test_a_failed_commit_is_452_and_the_session_goes_on(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    rig.raw.inject_failure("commit", 1)
    assert client.say(b"x\r\n.\r\n") == b"452 4.3.1 Insufficient system storage\r\n"
    assert rig.counter(METRICS.messages_received_total) == 0


def test_a_client_that_leaves_in_the_message_leaves_nothing(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    client.feed(b"x" * 1000)
    client.lose()
    assert rig.blobs() == [] and rig.server.sessions == 0


def test_a_client_that_leaves_behind_the_dot_has_its_message_kept(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    client.feed(b"x\r\n.\r\n")
    client.lose()
    rig.dispatch_once()
    assert len(rig.blobs()) == 1 and client.take() == b""


def test_a_client_that_closes_its_half_behind_the_dot_is_answered(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    client.feed(b"x\r\n.\r\nQUIT\r\n")
    assert client.session.eof_received() is True
    rig.settle()
    assert client.take().startswith(b"250 ") and client.transport.closed


def test_success_that_is_wanted_is_the_queues_to_deliver_and_tell(rig: SmtpRig) -> None:
    """RFC 3461 §5.2.1: the report is owed once the mailbox has the message, which the accepting unit may not know."""
    bill = rig.add_mailbox(b"bill@example.test")
    anna = rig.add_mailbox(b"anna@example.test")
    client = rig.connect().start()
    opening = (
        b"MAIL FROM:<a@b.test>\r\nRCPT TO:<bill@example.test>\r\nRCPT TO:<bill@example.test> NOTIFY=SUCCESS\r\n"
        b"RCPT TO:<anna@example.test> NOTIFY=FAILURE\r\nRCPT TO:<bill@example.test> NOTIFY=SUCCESS\r\n"
    )
    assert b"250 2.0.0" in send(client, opening=opening)
    ((_, tails, places),) = queue(rig)
    assert places == [(b"local:", 1)] and tails[0].notify == NOTIFY_SUCCESS
    assert messages(rig, bill) == [] and len(messages(rig, anna)) == 1
