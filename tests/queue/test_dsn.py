"""Notifications: their parts as the standard library parses them, and who gets one."""

import email
import email.policy

import msgspec
import pytest

from fastmta.model.envelope import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    Envelope,
    RecipientTail,
)
from fastmta.model.reply import Reply
from fastmta.queue.dsn import Outcome, Report, build, owes, status_of

ORIGINAL = b"Subject: hi\r\nFrom: a@a.test\r\n\r\nbody line\r\n"


def report(kind="failed", original=ORIGINAL, outcomes=None, **envelope):
    fields = {"reverse_path": b"s@a.test", "received_at_ms": 1_700_000_000_000, "size_bytes": len(original), "bits": 0}
    return Report(
        kind=kind,
        hostname="mx.test",
        queue_id="0000BCD",
        report_id="0000BCF",
        envelope=Envelope(**{**fields, **envelope}),
        outcomes=outcomes
        or [
            Outcome(
                RecipientTail(b"r@b.test", orcpt=b"rfc822;R@b.test"), Reply(550, "5.1.1", "no"), "mx.b.test[192.0.2.1]"
            )
        ],
        original=original,
        now_s=1_700_000_100.0,
        retry_until_s=1_700_432_000.0,
    )


def parts_of(raw):
    assert raw.replace(b"\r\n", b"").find(b"\n") < 0
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    message = email.message_from_bytes(raw, policy=email.policy.SMTP)
    return message, message.get_payload()


def test_a_failure_has_three_parts_and_the_fields_of_rfc_3464():
    message, (text, status, original) = parts_of(build(report()))
    assert message.get_content_type() == "multipart/report" and message.get_param("report-type") == "delivery-status"
    assert message["Auto-Submitted"] == "auto-replied" and message["To"] == "s@a.test"
    assert "<r@b.test>" in text.get_content()
    about_message, about_recipient = status.get_payload()
    assert about_message["Reporting-MTA"] == "dns; mx.test" and about_message["Arrival-Date"]
    assert about_recipient["Final-Recipient"] == "rfc822; r@b.test"
    assert about_recipient["Original-Recipient"] == "rfc822;R@b.test"
    assert (about_recipient["Action"], about_recipient["Status"]) == ("failed", "5.1.1")
    assert about_recipient["Remote-MTA"] == "dns; mx.b.test"
    assert about_recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no"
    assert "Will-Retry-Until" not in about_recipient
    assert original.get_content_type() == "message/rfc822"
    assert original.get_payload()[0]["Subject"] == "hi" and "body line" in original.as_string()


@pytest.mark.parametrize(
    "change", [{"ret": "HDRS"}, {"size_bytes": 50_001}, {"kind": "delayed"}, {"kind": "relayed"}, {"kind": "delivered"}]
)
def test_only_the_header_where_asked_or_too_big_or_no_failure(change):
    _, (_, _, original) = parts_of(build(report(**change)))
    assert original.get_content_type() == "text/rfc822-headers"
    assert "Subject: hi" in original.get_payload() and "body line" not in original.get_payload()


def test_a_delay_says_until_when():
    _, (_, status, _) = parts_of(build(report("delayed")))
    assert status.get_payload()[1]["Will-Retry-Until"] and status.get_payload()[1]["Action"] == "delayed"


def test_all_recipients_that_failed_together_are_in_one_report():
    outcomes = [Outcome(RecipientTail(b"r%d@b.test" % n), Reply(550, "", "no")) for n in range(1200)]
    _, (_, status, _) = parts_of(build(report(outcomes=outcomes)))
    assert len(status.get_payload()) == 1001
    assert status.get_payload()[1]["Status"] == "5.0.0"


def test_the_envelope_id_and_the_address_before_aliasing_are_told():
    outcome = Outcome(RecipientTail(b"r@b.test", original=b"old@a.test"), Reply(550, "5.1.1", "no"))
    _, (text, status, _) = parts_of(build(report(envid=b"QQ 1", outcomes=[outcome])))
    assert status.get_payload()[0]["Original-Envelope-Id"] == "QQ 1"
    assert status.get_payload()[1]["Original-Recipient"] == "rfc822;old@a.test"
    assert "Remote-MTA" not in status.get_payload()[1]
    assert "expanded from <old@a.test>" in text.get_content()


def test_utf8_addresses_make_a_global_report():
    outcome = Outcome(RecipientTail("ü@b.test".encode()), Reply(550, "5.1.1", "no"))
    raw = build(msgspec.structs.replace(report(outcomes=[outcome], smtputf8=True), eight_bit=True))
    message = email.message_from_bytes(raw)
    assert message.get_param("report-type") == "global-delivery-status"
    kinds = [part.get_content_type() for part in message.get_payload()]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global"]
    assert "Final-Recipient: utf-8; ü@b.test".encode() in raw


def test_long_replies_are_folded_and_cannot_end_a_line():
    outcome = Outcome(RecipientTail(b"r@b.test\r\nBcc: x"), Reply(550, "5.1.1", "word " * 400 + "x" * 5000 + "\nmore"))
    raw = build(report(outcomes=[outcome]))
    parts_of(raw)
    assert b"\r\nBcc" not in raw


def test_a_header_without_end_is_cut():
    raw = build(report(original=b"X: " + b"y" * 200_000, size_bytes=200_003))
    assert len(raw) < 60_000


@pytest.mark.parametrize(
    ("kind", "notify", "told"),
    [
        ("failed", 0, True),
        ("failed", NOTIFY_NEVER, False),
        ("failed", NOTIFY_SUCCESS, False),
        ("failed", NOTIFY_FAILURE, True),
        ("delayed", 0, True),
        ("delayed", NOTIFY_FAILURE, False),
        ("delayed", NOTIFY_DELAY, True),
        ("relayed", 0, False),
        ("relayed", NOTIFY_SUCCESS, True),
        ("delivered", NOTIFY_NEVER, False),
    ],
)
def test_notify_decides_and_the_null_sender_never_gets_one(kind, notify, told):
    tail = RecipientTail(b"r@b.test", notify=notify)
    assert owes(kind, report().envelope, tail) == told
    assert not owes(kind, report(reverse_path=b"").envelope, tail)


def test_the_status_is_made_from_the_code_where_there_is_none():
    assert status_of(Reply(452)) == "4.0.0"
    assert status_of(Reply(550, "5.7.1")) == "5.7.1"


def test_whatever_the_server_said_a_report_to_elsewhere_is_7bit_and_valid():
    said = "gr\u00fc\u00df " + "\u65e5\u672c " * 300 + "\u2028 \\x00" + "y" * 3000
    tails = [
        RecipientTail("\u00fc+=\\@b.test".encode(), orcpt="utf-8;\u00fc@b.test".encode(), original=b"o@a.test"),
        RecipientTail(b"\xff\xfe@b.test", orcpt=b"rfc822;" + b"\xe9" * 500),
        RecipientTail(b"r@b.test"),
    ]
    outcomes = [Outcome(tail, Reply(550, "5.1.1", said), "mx.b.test[192.0.2.1]") for tail in tails]
    original = "Subject: \u00fc\r\n\r\nb\u00f6dy\r\n".encode()
    for envelope in (
        {},
        {"smtputf8": True},
        {"ret": "HDRS"},
        {"ret": "HDRS", "smtputf8": True},
        {"envid": b"\xff" * 99},
    ):
        raw = build(report(outcomes=outcomes, original=original, **envelope))
        assert raw.isascii()
        message, (text, status, quoted) = parts_of(raw)
        assert message.get_param("report-type") == "delivery-status"
        assert status.get_content_type() == "message/delivery-status" and "gr\u00fc\u00df" in text.get_content()
        assert [str(part["Final-Recipient"]) for part in status.get_payload()[1:]] == [
            r"utf-8; \x{FC}\x{2B}\x{3D}\x{5C}@b.test",
            r"rfc822; \xff\xfe@b.test",
            "rfc822; r@b.test",
        ]
        assert str(status.get_payload()[1]["Original-Recipient"]) == r"utf-8;\x{FC}@b.test"
        if "smtputf8" in envelope:
            assert quoted["Content-Transfer-Encoding"] == "base64"


def test_a_boundary_is_never_longer_than_the_rfc_allows():
    raw = build(msgspec.structs.replace(report(), hostname="h" * 63 + "." + "h" * 63 + ".test"))
    message, _ = parts_of(raw)
    assert len(message.get_boundary()) <= 70
