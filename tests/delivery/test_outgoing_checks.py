"""smtp_header_checks and its kin: what leaves is changed, and what is stored is not."""

import random
from pathlib import Path

import pytest

from fastmta.delivery.outgoing_checks import Changed
from fastmta.model.envelope import HAS_DOT_LINE, HAS_LONG_LINE, NO_FINAL_CRLF
from fastmta.model.limits import CONTENT_LINE_BYTES, OUTGOING_CHANGED_BYTES, OUTGOING_TOLD
from fastmta.policy.contents import Kind, parse_outgoing
from tests.support.smtp_sink import SmtpSink

LETTER = (
    b"Received: from inside [10.0.0.7]\r\n\tby mx.test; today\r\nSubject: one\r\n two\r\nX-Secret: 1\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\nbye\r\n'
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\n.dot\r\n--b--\r\n"
)


@pytest.fixture
async def sink():
    async with SmtpSink() as running:
        yield running


@pytest.fixture
def sent(make_rig, sink, tmp_path: Path):
    """What arrives of a message under these tables; the rig too."""

    async def send(message=LETTER, bits=HAS_DOT_LINE, more=None, **tables):
        settings: dict[str, object] = dict(more or {})
        for key, text in tables.items():
            path = tmp_path / key
            path.write_text(text)
            settings[key] = (f"pcre:{path}",)
        rig = make_rig(**settings)
        queue_id = await rig.queue(f"smtp:[127.0.0.1]:{sink.port}".encode(), body=message, bits=bits)
        await rig.settled()
        return (sink.messages[-1].data if sink.messages else None), rig, queue_id

    return send


async def test_each_kind_has_its_tables_and_all_can_change(sent, sink) -> None:
    data, rig, _ = await sent(
        smtp_header_checks="/^Received:/ IGNORE\n/^X-Secret: (.)/ REPLACE X-Pub: $1\n/^Subject:/ PREPEND X-Before: y\n",
        smtp_mime_header_checks="/^Content-Type: text/ STRIP\n",
        smtp_nested_header_checks="/^Subject: (.*)/ REPLACE Subject: [$1]\n",
        smtp_body_checks="/^hello$/ REPLACE .good day\n/^bye$/ PREPEND so\n/^inner/ IGNORE\n",
    )
    assert data == (
        b'X-Before: y\r\nSubject: one\r\n two\r\nX-Pub: 1\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
        b"--b\r\n\r\n.good day\r\nso\r\nbye\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
        b"Subject: [inner]\r\n\r\n.dot\r\n--b--\r\n"
    )
    assert sink.messages[-1].parameters == b"SIZE=%d" % len(data)
    told = [line for line in rig.log() if line["event"] == "delivery.content"]
    assert [line["action"] for line in told] == ["prepend", "replace", "strip", "replace", "prepend", "replace"]
    assert [line["breaks"] for line in rig.log() if line["event"] == "delivery.changed"] == ["none"]


async def test_a_folded_field_is_replaced_with_its_folds(sent) -> None:
    data, _, _ = await sent(smtp_header_checks="/^Subject: (.*)/ REPLACE Subject: ($1)\n")
    assert b"\r\nSubject: (one\r\n two)\r\nX-Secret" in data


async def test_nothing_to_change_leaves_the_message_as_it_is(sent) -> None:
    data, rig, _ = await sent(smtp_header_checks="/^X-Other:/ IGNORE\n/^Subject/ WARN seen\n")
    assert data == LETTER
    assert "delivery.changed" not in {line["event"] for line in rig.log()}


async def test_a_broken_signature_is_named(sent) -> None:
    _, rig, _ = await sent(
        b"DKIM-Signature: v=1\r\nSubject: x\r\n\r\nbody\r\n", smtp_header_checks="/^Subject/ REPLACE Subject: y\n"
    )
    (told,) = [line for line in rig.log() if line["event"] == "delivery.changed"]
    assert told["breaks"] == "DKIM"


@pytest.mark.parametrize(
    ("table", "reply"),
    [
        ("/x/ REJECT no\n", "451 4.3.5"),
        ("/Subject/ DISCARD\n", "451 4.3.5"),
        ("/a(?=b)/ IGNORE\n", "451 4.3.0"),
        ("/Subject/ REPLACE no field\n", "451 4.3.5"),
    ],
)
async def test_a_table_that_cannot_be_obeyed_defers(sent, sink, table: str, reply: str) -> None:
    data, rig, queue_id = await sent(b"Subject: x\r\n\r\nx\r\n", smtp_header_checks=table)
    assert data is None
    assert rig.store.queue.recipient(queue_id, 0).last_reply.decode().startswith(reply)
    assert not any(command.startswith(b"MAIL") for command in sink.commands)


async def test_a_dot_that_is_left_of_a_long_line_is_no_end_of_data(sent) -> None:
    """What remains of a line may be a dot alone."""
    long = b"a" * CONTENT_LINE_BYTES
    message = b"Subject: x\r\n\r\n" + long + b".\r\nMAIL FROM:<smuggled@x.test>\r\n"
    data, _, _ = await sent(
        message, HAS_LONG_LINE, more={"smtp_line_length_limit": 0}, smtp_body_checks="/^a+$/ IGNORE\n"
    )
    assert data == b"Subject: x\r\n\r\n.\r\nMAIL FROM:<smuggled@x.test>\r\n"


async def test_a_last_line_without_an_end(sent) -> None:
    data, _, _ = await sent(b"Subject: x\r\n\r\nlast", NO_FINAL_CRLF, smtp_body_checks="/^last$/ REPLACE end\n")
    assert data == b"Subject: x\r\n\r\nend\r\n"


async def test_8bit_text_of_a_table_is_announced(sent, sink) -> None:
    data, _, _ = await sent(smtp_body_checks="/^hello$/ REPLACE gr\xfc\xdf\n")
    assert "grüß".encode() in data
    assert b"BODY=8BITMIME" in sink.messages[-1].parameters


async def test_all_of_a_large_body_is_shown_and_its_changes_are_bounded(sent) -> None:
    body = b"Subject: x\r\n\r\n" + b"keep this line\r\ndrop\r\n" * 9_000
    data, rig, _ = await sent(body, smtp_body_checks="/^drop$/ STRIP\n")
    assert data == body.replace(b"drop\r\n", b"")
    assert sum(line["event"] == "delivery.content" for line in rig.log()) == OUTGOING_TOLD


@pytest.mark.parametrize("table", ["/^drop$/ IGNORE\n", f"/^drop$/ REPLACE {'x' * (OUTGOING_CHANGED_BYTES // 1000)}\n"])
async def test_too_many_changes_defer(sent, table: str) -> None:
    body = b"Subject: x\r\n\r\n" + b"k\r\ndrop\r\n" * 20_001
    data, rig, queue_id = await sent(body, smtp_body_checks=table)
    assert data is None
    assert b"change too much" in rig.store.queue.recipient(queue_id, 0).last_reply


def test_a_changed_message_reads_the_same_in_any_pieces() -> None:
    rng = random.Random(5)
    stored = bytes(rng.randrange(256) for _ in range(3_000))
    for _ in range(50):
        changed, expected, at = Changed(), b"", 0
        while at < len(stored):
            kept, cut = rng.randrange(80), rng.randrange(20)
            new = bytes(rng.randrange(30))
            place = min(len(stored), at + kept)
            cut = min(cut, len(stored) - place)
            expected += stored[at:place] + new
            changed.change(place, cut, new)
            at = place + cut
        changed.close(len(stored))
        assert changed.size_bytes == len(expected)
        for step in (1, 7, 100, 10_000):
            read = [changed.read(o, step, lambda a, n: stored[a : a + n]) for o in range(0, len(expected), step)]
            assert b"".join(read) == expected
        assert changed.read(0, 10, lambda a, n: None) in (None, expected[:10])


_DECIDES = ("BCC a@b.test", "DISCARD", "FILTER x:y", "HOLD", "PASS", "REDIRECT a@b.test", "REJECT")


@pytest.mark.parametrize("word", _DECIDES)
def test_what_decides_about_mail_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="mail that leaves is changed"):
        parse_outgoing(Kind.HEADER, word)
