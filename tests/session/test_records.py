"""What the fast path writes by itself: dates, queue ids, and the log's record of a message."""

import email.utils
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastmta.model.envelope import LocalTarget
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import LOG_RECIPIENTS
from fastmta.runtime.metrics import METRICS, local_cells
from tests.support.smtp_rig import SmtpRig


@pytest.mark.parametrize("now", [0.0, 951_782_400.0, 1_709_164_799.999, 1_800_000_000.5, 4_102_444_800.0])
def test_the_date_is_rfc_5322s(tmp_path: Path, now: float) -> None:
    rig = SmtpRig(tmp_path)
    rig.clock._now = now
    rig.connect()
    text = rig.server._hosts["smtp"].service.teller.date_text()
    assert email.utils.parsedate_to_datetime(text) == datetime.fromtimestamp(int(now), UTC)
    assert text[5:7].strip() == str(datetime.fromtimestamp(int(now)).day), "no leading zero is asked for"
    rig.close()


def test_a_new_second_is_a_new_date(tmp_path: Path) -> None:
    rig = SmtpRig(tmp_path)
    rig.connect()
    service = rig.server._hosts["smtp"].service.teller
    first = service.date_text()
    rig.clock.advance(0.5)
    assert service.date_text() == first
    rig.clock.advance(0.5)
    assert service.date_text() != first
    rig.close()


def test_the_record_of_a_message_is_json_with_its_fields(tmp_path: Path) -> None:
    rig = SmtpRig(tmp_path)
    client = rig.connect().start()
    rig.clock.advance(0.25)
    client.say(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@relay.test>\r\nRCPT TO:<y@relay.test>\r\nDATA\r\nA: b\r\n.\r\n")
    record = json.loads(rig.log.lines[0])
    message = rig.queue()[0][0]
    assert record == {
        "at": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "event": "smtp.received",
        "slot": 3,
        "session": client.session.number,
        "queue_id": queue_id_text(message.queue_id),
        "client": "unknown[127.0.0.1]",
        "from": "a@b.test",
        "to": ["x@relay.test", "y@relay.test"],
        "recipients": 2,
        "size": 6,
    }
    rig.close()


def test_the_record_names_recipients_up_to_a_bound_and_counts_them_all(tmp_path: Path) -> None:
    rig = SmtpRig(tmp_path)
    client = rig.connect().start()
    for count in (LOG_RECIPIENTS - 1, LOG_RECIPIENTS, LOG_RECIPIENTS + 1):
        rig.log.lines.clear()
        names = [f"u{n}@relay.test" for n in range(count)]
        client.say(
            b"MAIL FROM:<>\r\n" + "".join(f"RCPT TO:<{n}>\r\n" for n in names).encode() + b"DATA\r\nA: b\r\n.\r\n"
        )
        record = json.loads(rig.log.lines[0])
        assert (record["to"], record["recipients"]) == (names[:LOG_RECIPIENTS], count)
    rig.close()


def test_a_delivery_into_a_mailbox_is_a_line_with_both_recipients_and_the_delay(tmp_path: Path) -> None:
    rig = SmtpRig(tmp_path)
    rig.add_mailbox(b"bill@example.test")
    known = rig.directory.accounts[b"bill@example.test"]
    rig.directory.accounts[b"sales@example.test"] = LocalTarget(
        known.account_id, known.mailbox_id, known.address, b"bill.b@example.test"
    )
    client = rig.connect().start()
    client.say(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<sales@example.test>\r\nDATA\r\nA: b\r\n.\r\n")
    received, delivered = (json.loads(line) for line in b"".join(rig.log.lines).splitlines())
    assert received["event"] == "smtp.received"
    assert delivered == {
        "at": delivered["at"],
        "level": "info",
        "event": "delivery.delivered",
        "slot": 3,
        "queue_id": received["queue_id"],
        "recipient": "bill@example.test",
        "original_recipient": "sales@example.test",
        "mailbox": "bill.b@example.test",
        "next_hop": "local:",
        "relay": "local",
        "delay": 0.0,
        "dsn": "2.0.0",
        "reply": "250 2.0.0 delivered to mailbox",
    }
    buckets = METRICS.delivery_seconds.index + 1
    assert sum(rig.cells[buckets : buckets + len(METRICS.delivery_seconds.bounds) + 1]) == 1
    rig.close()


@pytest.mark.parametrize(
    ("recipients", "told"), [(["bill", "gone"], ["bill"]), (["gone", "relayed"], ["relayed"]), (["gone"], [])]
)
@pytest.mark.parametrize("is_json", [True, False])
def test_whom_lmtp_refused_is_no_recipient_of_what_was_received(
    tmp_path: Path, recipients: list[str], told: list[str], is_json: bool
) -> None:
    rig = SmtpRig(tmp_path)
    rig.log.is_json = is_json
    addresses = {"bill": "bill@example.test", "gone": "gone@example.test", "relayed": "x@relay.test"}
    rig.add_mailbox(b"bill@example.test")
    known = rig.directory.accounts[b"bill@example.test"]
    rig.directory.accounts[b"gone@example.test"] = LocalTarget(known.account_id, 10**6, b"gone@example.test")
    client = rig.connect("lmtp").start()
    to = b"".join(b"RCPT TO:<%s>\r\n" % addresses[name].encode() for name in recipients)
    client.say(b"LHLO c\r\nMAIL FROM:<a@b.test>\r\n" + to + b"DATA\r\nA: b\r\n.\r\n")
    found = [json.loads(line) for line in b"".join(rig.log.lines).splitlines()] if is_json else []
    found += [{"event": event, **fields} for event, fields in rig.log.events]
    received = [each for each in found if each["event"] == "smtp.received"]
    if not told:
        assert received == []
    else:
        names = [name.decode() if isinstance(name, bytes) else name for name in received[0]["to"]]
        assert (names, received[0]["recipients"]) == ([addresses[name] for name in told], len(told))
    assert sum(each["event"] == "local.refused" for each in found) == 1
    rig.close()


def test_the_fast_path_finds_the_buckets_that_python_finds(tmp_path: Path) -> None:
    rig = SmtpRig(tmp_path)
    rig.add_mailbox(b"bill@example.test")
    client = rig.connect().start()
    expected = local_cells()
    place = METRICS.delivery_seconds.index
    for seconds in (0.0, 0.005, 0.006, 0.02, 1.0, 2.0, 2.5, 43200.0, 432000.0, 432001.0):
        client.feed(b"MAIL FROM:<>\r\nRCPT TO:<bill@example.test>\r\nDATA\r\nA: b\r\n.\r\n")
        rig.clock.advance(seconds)
        rig.settle()
        METRICS.delivery_seconds.observe(expected, seconds)
    end = place + 2 + len(METRICS.delivery_seconds.bounds)
    assert [*rig.cells[place + 1 : end]] == [*expected[place + 1 : end]]
    assert abs(rig.cells[place] - expected[place]) < 100
    rig.close()


def test_where_the_log_is_not_json_the_record_goes_through_it(tmp_path: Path) -> None:
    rig = SmtpRig(tmp_path)
    rig.log.is_json = False
    client = rig.connect().start()
    client.say(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@relay.test>\r\nDATA\r\nA: b\r\n.\r\n")
    ((event, fields),) = rig.log.events
    assert event == "smtp.received" and fields["size"] == 6 and rig.log.lines == []
    rig.close()


def test_a_reload_reaches_open_sessions(tmp_path: Path) -> None:
    import msgspec

    rig = SmtpRig(tmp_path)
    client = rig.connect().start()
    rig.config = msgspec.structs.replace(rig.config, message_size_limit=100)
    rig.server.reload(rig)  # type: ignore[arg-type]
    assert client.codes(b"MAIL FROM:<a@b> SIZE=101\r\n") == [552]
    assert not client.ended
    rig.close()
