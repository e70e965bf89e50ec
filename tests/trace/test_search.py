"""Messages are found in the trace, newest first, by all that is known of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastmta.trace import search as module
from fastmta.trace.files import FOLDER
from fastmta.trace.search import newest, search
from fastmta.trace.story import Story, Wanted, client_is, escaped


def received(at: str, queue_id: str, sender: str, *to: str, **more: Any) -> dict[str, Any]:
    return {
        "at": at, "event": "smtp.received", "queue_id": queue_id, "client": "mail.a.test[192.0.2.7]", "from": sender,
        "to": list(to), "recipients": len(to), "size": 5, **more,
    }  # fmt: skip


def event(at: str, happened: str, queue_id: str, recipient: str, **more: Any) -> dict[str, Any]:
    return {"at": at, "event": f"delivery.{happened}", "queue_id": queue_id, "recipient": recipient, **more}


LINES = [
    received("2027-01-15T08:00:00.000Z", "0A", "Ann@a.test", "bob@b.test", "sales@c.test", message_id="<M1@a.test>"),
    event("2027-01-15T08:00:01.000Z", "deferred", "0A", "bob@b.test", reply="450 later"),
    event("2027-01-15T08:00:01.100Z", "delivered", "0A", "carl@c.test", original_recipient="sales@c.test"),
    {
        "at": "2027-01-15T08:00:02.000Z", "event": "smtp.rejected", "client": "unknown[203.0.113.9]",
        "sender": "x@spam.test", "to": ["nobody@c.test"], "verb": "RCPT", "reply": "550 5.1.1 User unknown",
    },
    received("2027-01-16T08:00:00.000Z", "0B", "", "ann@a.test", message_id='<o"d\\\\d@a.test>'),
    {"at": "2027-01-16T08:00:01.000Z", "event": "admin.queue.hold", "queue_id": "0B", "recipient": "ann@a.test"},
    event("2027-01-16T08:05:00.000Z", "delivered", "0A", "bob@b.test", relay="mx.b.test[192.0.2.1]:25", took=0.2),
    received("2027-01-16T09:00:00.000Z", "0C", "ann@a.test", "dora@b.test"),
]  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for day in ("2027-01-15", "2027-01-16"):
        lines = [json.dumps(line, separators=(",", ":")) for line in LINES if line["at"].startswith(day)]
        (folder / f"{day}.000.jsonl").write_text("\n".join(lines) + '\n{"half":"wri\n')
    return tmp_path


def found(directory: Path, **wanted: Any) -> list[str]:
    return [story.queue_id or "refused" for story in search(directory, Wanted(**wanted))]


@pytest.mark.parametrize("window", [40, 300, 1 << 20])
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["0C", "0A", "0B", "refused"]),
        ({"queue_id": "0A"}, ["0A"]),
        ({"sender": "ann@A.test"}, ["0C", "0A"]),
        ({"sender": "a.test"}, ["0C", "0A"]),
        ({"sender": ""}, ["0B"]),
        ({"recipient": "Bob@b.test"}, ["0A"]),
        ({"recipient": "b.test"}, ["0C", "0A"]),
        ({"recipient": "sales@c.test"}, ["0A"]),
        ({"recipient": "nobody@c.test"}, ["refused"]),
        ({"recipient": "ob@b.test"}, []),
        ({"message_id": "<m1@a.test>"}, ["0A"]),
        ({"message_id": "m1@a.test"}, ["0A"]),
        ({"client": "203.0.113.0/24"}, ["refused"]),
        ({"client": "192.0.2.7", "recipient": "dora@b.test"}, ["0C"]),
        ({"client": "mail.a.test", "sender": "ann@a.test", "recipient": "carl@c.test"}, ["0A"]),
        ({"status": "rejected"}, ["refused"]),
        ({"status": "deferred"}, []),
        ({"status": "delivered"}, ["0A"]),
        ({"status": "expanded"}, ["0A"]),
        ({"status": "held"}, ["0B"]),
        ({"status": "accepted"}, ["0C"]),
        ({"since": "2027-01-16T08:30:00.000Z", "since_at": 1_800_088_200.0}, ["0C"]),
        ({"until": "2027-01-15T09:00:00.000Z"}, ["refused", "0A"]),
    ],
)  # fmt: skip
def test_search(
    directory: Path, monkeypatch: pytest.MonkeyPatch, window: int, wanted: dict[str, Any], expected: list[str]
) -> None:
    monkeypatch.setattr(module, "TRACE_WINDOW_BYTES", window)
    got = found(directory, **wanted)
    assert sorted(got) == sorted(expected)
    if window > 1000:
        assert got == expected


def test_a_message_has_all_its_lines_in_order(directory: Path) -> None:
    (story,) = search(directory, Wanted(queue_id="0A"))
    known = story.as_json()
    assert (known["sender"], known["message_id"], known["at"]) == ("Ann@a.test", "<M1@a.test>", LINES[0]["at"])
    assert [(each["recipient"], each["status"], each["attempts"]) for each in known["recipients"]] == [
        ("bob@b.test", "delivered", 2),
        ("sales@c.test", "expanded", 0),
        ("carl@c.test", "delivered", 1),
    ]
    assert [line["event"] for line in known["recipients"][0]["events"]] == ["delivery.deferred", "delivery.delivered"]


def test_the_newest_come_last_and_more_is_said(directory: Path) -> None:
    stories, more = newest(search(directory, Wanted()), 2)
    assert [story.queue_id for story in stories] == ["0A", "0C"] and more
    assert newest(search(directory, Wanted()), 4)[1] is False


def test_many_messages_are_put_together_in_batches(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRACE_MESSAGES", 2)
    assert found(directory) == ["0C", "0A", "0B", "refused"]


def test_the_events_of_a_message_are_bounded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRACE_EVENTS", 2)
    (story,) = search(directory, Wanted(queue_id="0A"))
    assert len(story.lines) == 2


def test_no_trace_is_no_message(tmp_path: Path) -> None:
    assert found(tmp_path) == []


def test_an_end_is_not_undone_by_a_line_that_came_later() -> None:
    story = Story("0A")
    story.add(event("2027-01-15T08:00:01.000Z", "delivered", "0A", "a@b.test"))
    story.add(event("2027-01-15T08:00:02.000Z", "deferred", "0A", "a@b.test"))
    story.finish()
    assert story.recipients["a@b.test"].status == "delivered"


def test_clients_match_by_name_address_and_network() -> None:
    assert client_is("mail.a.test[2001:db8::1]", "2001:db8::/32")
    assert client_is("mail.a.test[2001:db8::1]", "Mail.A.test")
    assert client_is("bill@localhost", "bill@localhost")
    assert not client_is("mail.a.test[192.0.2.1]", "192.0.2.10")


def test_texts_are_escaped_as_the_lines_have_them() -> None:
    assert escaped('a"\\é') == b'a\\"\\\\\\\\xc3\\\\xa9'
