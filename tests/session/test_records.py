"""What the fast path writes by itself: dates, queue ids, and the log's record of a message."""

import email.utils
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastmta.model.ids import queue_id_text
from tests.support.smtp_rig import SmtpRig


@pytest.mark.parametrize("now", [0.0, 951_782_400.0, 1_709_164_799.999, 1_800_000_000.5, 4_102_444_800.0])
def test_the_date_is_rfc_5322s(tmp_path: Path, now: float) -> None:
    rig = SmtpRig(tmp_path)
    rig.clock._now = now
    rig.connect()
    text = rig.server._hosts["smtp"].service.date_text()
    assert email.utils.parsedate_to_datetime(text) == datetime.fromtimestamp(int(now), UTC)
    assert text[5:7].strip() == str(datetime.fromtimestamp(int(now)).day), "no leading zero is asked for"
    rig.close()


def test_a_new_second_is_a_new_date(tmp_path: Path) -> None:
    rig = SmtpRig(tmp_path)
    rig.connect()
    service = rig.server._hosts["smtp"].service
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
        "to": "x@relay.test",
        "recipients": 2,
        "size": 6,
    }
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
