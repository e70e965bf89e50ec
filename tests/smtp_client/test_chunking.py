"""Messages that go by BDAT (RFC 3030): what leaves beside the envelope, and what each answer means."""

import asyncio

import pytest

from fastmta.model.envelope import (
    HAS_8BIT,
    HAS_BARE_NEWLINE,
    HAS_DOT_LINE,
    HAS_LONG_LINE,
    HAS_NUL,
    NO_FINAL_CRLF,
)
from fastmta.smtp.client_connection import AHEAD_BYTES, SLICE_BYTES
from fastmta.smtp.client_states import Event, State
from fastmta.smtp.conversion import plan
from tests.smtp_client.test_client_rules import EHLO, Peer, codes, transaction
from tests.smtp_client.test_connection import Owner, connect
from tests.smtp_client.test_connection import transaction as message
from tests.support.smtp_sink import CLOSE, HANG, SmtpSink

CHUNKING = EHLO.replace("250-8BITMIME", "250-CHUNKING\r\n250-8BITMIME")
OFFER = ("SIZE 50000000", "8BITMIME", "CHUNKING", "BINARYMIME", "SMTPUTF8")


def ready(**options):
    peer = Peer(**options)
    assert peer.hello(CHUNKING) == Event.READY
    return peer


def ahead(peer, tx, text=b"text\r\n"):
    """Starts a transaction with its message behind the envelope."""
    peer.start(tx)
    line = peer.client.chunk(len(text), last=True)
    return peer.take() + line + text


@pytest.mark.parametrize("trickle", [False, True])
def test_a_message_leaves_with_its_envelope(trickle):
    peer = ready(trickle=trickle)
    tx = transaction(b"a@b.test", b"c@b.test")
    assert ahead(peer, tx) == (
        b"MAIL FROM:<s@a.test> SIZE=100\r\nRCPT TO:<a@b.test>\r\nRCPT TO:<c@b.test>\r\nBDAT 6 LAST\r\ntext\r\n"
    )
    assert peer.say("250 ok\r\n250 ok") == Event.NOTHING
    assert peer.client.stage == "sending RCPT TO"
    assert peer.say("550 5.1.1 no") == Event.NOTHING
    assert peer.client.stage.startswith("sending end of data -- message may be sent more than once")
    assert peer.say("250 6 octets") == Event.DONE
    assert codes(tx) == [250, 550] and peer.client.is_usable and peer.take() == b""
    peer.start(transaction())
    assert peer.take().startswith(b"MAIL FROM")


def test_where_nobody_was_accepted_the_answer_to_the_message_counts_for_nobody():
    for answers in ("250 ok\r\n550 5.1.1 no\r\n550 5.1.1 no", "450 later\r\n503 what\r\n503 what"):
        peer = ready()
        tx = transaction(b"a@b.test", b"c@b.test")
        ahead(peer, tx)
        assert peer.say(answers) == Event.NOTHING
        assert peer.client.stage == "sending end of data"
        assert peer.say("250 taken, oddly") == Event.DONE
        assert codes(tx) == [int(answers[:3]) if answers[0] != "2" else 550] * 2
        peer.start(transaction())
        assert peer.take() == b"RSET\r\n"  # RFC 3030 §2


@pytest.mark.parametrize("code", [452, 554])
def test_a_refused_message_is_refused_for_all_who_were_accepted(code):
    peer = ready()
    tx = transaction(b"a@b.test", b"b@b.test")
    ahead(peer, tx)
    assert peer.say(f"250 ok\r\n250 ok\r\n550 no\r\n{code} no") == Event.DONE
    assert codes(tx) == [code, 550] and peer.client.is_usable


def test_lmtp_answers_a_message_for_each_recipient():
    peer = Peer(lmtp=True)
    peer.hello(CHUNKING)
    tx = transaction(b"a@b.test", b"b@b.test", b"c@b.test")
    ahead(peer, tx)
    assert peer.say("250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n250 done\r\n452 full") == Event.DONE
    assert codes(tx) == [250, 550, 452]


def chunks(peer, count, last):
    for _ in range(count):
        assert peer.client.chunk(10, last=False) == b"BDAT 10\r\n"
    if last:
        assert peer.client.chunk(0, last=True) == b"BDAT 0 LAST\r\n"


def started(recipients=(b"a@b.test",), **options):
    peer = ready(**options)
    tx = transaction(*recipients)
    peer.start(tx)
    assert peer.take().endswith(b"RCPT TO:<%b>\r\n" % recipients[-1])
    assert peer.client.receive(b"250 ok\r\n" + b"250 ok\r\n" * len(recipients)) == Event.BODY
    return peer, tx


def test_chunks_are_answered_one_by_one_while_others_leave():
    peer, tx = started()
    chunks(peer, 2, last=False)
    assert peer.say("250 10 octets") == Event.NOTHING and peer.client.state is State.BODY
    chunks(peer, 1, last=True)
    assert peer.say("250 ok\r\n250 ok") == Event.NOTHING and codes(tx) == [None]
    assert peer.say("250 2.0.0 queued") == Event.DONE and codes(tx) == [250]


@pytest.mark.parametrize("code", [421, 452, 552])
@pytest.mark.parametrize("last", [False, True])
def test_a_refused_chunk_ends_the_message_and_those_behind_it_are_waited_for(code, last):
    peer, tx = started()
    chunks(peer, 3, last=last)
    event = peer.say(f"250 ok\r\n{code} 4.3.1 no more")
    if code == 421:
        assert event == Event.CLOSED and codes(tx) == [None] and not peer.client.unanswered
        return
    assert event == Event.NOTHING and peer.client.state is State.DISCARDED and codes(tx) == [code]
    if last:
        assert peer.say("503 5.5.1 what") == Event.NOTHING
    assert peer.say("250 whatever") == Event.DONE
    assert codes(tx) == [code] and peer.client.is_usable
    peer.start(transaction())
    assert peer.take() == b"RSET\r\n"


def test_a_refused_chunk_of_lmtp_ends_the_session():
    peer = Peer(lmtp=True)
    peer.hello(CHUNKING)
    tx = transaction(b"a@b.test", b"b@b.test")
    peer.start(tx)
    peer.client.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n")
    chunks(peer, 2, last=True)
    assert peer.say("552 5.3.4 no") == Event.DONE
    assert codes(tx) == [552, 552] and not peer.client.is_usable


@pytest.mark.parametrize("answer", ["354 go", "250 ok\r\n354 go", "250 ok\r\n250 ok\r\n354 go"])
def test_354_is_no_answer_to_a_chunk(answer):
    peer, tx = started()
    chunks(peer, 2, last=True)
    assert peer.say(answer) == Event.CLOSED and codes(tx) == [None]


def test_without_pipelining_or_where_it_is_to_be_ignored_chunks_are_not_used():
    peer = Peer()
    peer.hello(CHUNKING.replace("250-PIPELINING\r\n", ""))
    peer.start(transaction())
    assert not peer.client.chunked
    peer = Peer(ignores=frozenset(("CHUNKING", "DSN")))
    peer.hello(CHUNKING)
    peer.start(transaction())
    assert peer.take().endswith(b"DATA\r\n") and not peer.client.offered.dsn and peer.client.offered.eight_bit


def test_a_question_about_an_address_ends_behind_rcpt():
    peer = ready()
    tx = transaction()
    tx.only_asks = True
    peer.start(tx)
    assert peer.say("250 ok\r\n250 ok") == Event.DONE
    assert peer.take().endswith(b"RCPT TO:<r@b.test>\r\n")


# --- the socket ---


async def send(body, bits=0, **options):
    async with SmtpSink(capabilities=options.pop("offer", OFFER)) as sink:
        owner = Owner(body)
        owner.cold = options.pop("cold", None)
        connection = await connect(sink, owner, **options)
        await owner.ready.wait()
        tx = message(body, bits)
        connection.start(tx)
        await owner.done.wait()
        connection.close()
        await owner.over.wait()
        return tx, sink


def verbs(sink):
    return [command.split(b" ")[0] for command in sink.commands]


@pytest.mark.parametrize(
    ("body", "bits", "arrives"),
    [
        (b"plain\r\n", 0, b"plain\r\n"),
        (b".\r\n..\r\nx\r\n.y\r\n", HAS_DOT_LINE, b".\r\n..\r\nx\r\n.y\r\n"),
        (b"no end", NO_FINAL_CRLF, b"no end\r\n"),
        (b"", 0, b""),
        (b"a\nb\r\n", HAS_BARE_NEWLINE, b"a\r\nb\r\n"),
        (b"a\n.\nb", HAS_BARE_NEWLINE | HAS_DOT_LINE | NO_FINAL_CRLF, b"a\r\n.\r\nb\r\n"),
        (b"end in cr\r", HAS_BARE_NEWLINE | NO_FINAL_CRLF, b"end in cr \r\n"),
        (b"x" * 1000 + b"\r\n", HAS_LONG_LINE, b"x" * 998 + b"\r\n xx\r\n"),
        (b"nul \0 and \xe4\r\n", HAS_NUL | HAS_8BIT, b"nul \0 and \xe4\r\n"),
    ],
)
async def test_what_arrives_is_what_was_stored_with_whole_lines(body, bits, arrives):
    tx, sink = await send(body, bits)
    assert tx.results[0].code == 250
    assert sink.messages[0].data == arrives
    assert (b"BODY=8BITMIME" in sink.messages[0].parameters) == bool(bits & HAS_8BIT)
    assert b"BINARYMIME" not in sink.messages[0].parameters
    assert verbs(sink)[1:4] == [b"MAIL", b"RCPT", b"BDAT"] and b"DATA" not in verbs(sink)


@pytest.mark.parametrize("size", [AHEAD_BYTES, AHEAD_BYTES + 1, SLICE_BYTES, SLICE_BYTES + 1, 3_000_000])
@pytest.mark.parametrize("bits", [HAS_DOT_LINE, HAS_DOT_LINE | HAS_BARE_NEWLINE | HAS_LONG_LINE | NO_FINAL_CRLF])
async def test_a_big_message_goes_in_chunks_and_arrives_whole(size, bits):
    line = b".dots and text that is long enough to matter\r\n"
    body = (line * (size // len(line) + 1))[: size - 2] + b"\r\n"
    tx, sink = await send(body, bits)
    assert tx.results[0].code == 250
    expected = body[:-3] + b" \r\n" if body.endswith(b"\r\r\n") and bits & HAS_BARE_NEWLINE else body
    assert sink.messages[0].data == expected
    assert verbs(sink).count(b"BDAT") == -(-size // SLICE_BYTES)


async def test_a_cold_message_follows_when_it_is_there():
    asked = []

    def cold(offset):
        asked.append(offset)
        return asyncio.sleep(0) if len(asked) % 2 else None

    body = b"line\r\n" * 50_000
    tx, sink = await send(body, cold=cold)
    assert tx.results[0].code == 250 and sink.messages[0].data == body
    assert asked == [0, SLICE_BYTES, 2 * SLICE_BYTES]
    body = b"line\r\n"
    asked.clear()
    tx, sink = await send(body, cold=cold)
    assert tx.results[0].code == 250 and sink.messages[0].data == body and asked == [0]


@pytest.mark.parametrize("converts", [True, False])
async def test_a_server_without_8bitmime_gets_7_bits_by_data_or_octets_as_they_lie(converts):
    async with SmtpSink(capabilities=("CHUNKING",)) as sink:
        body = b"Subject: x\r\n\r\n\xe4\r\n"
        owner = Owner(body)
        connection = await connect(sink, owner)
        await owner.ready.wait()
        tx = message(body, HAS_8BIT)
        if converts:
            for tx.conversion in plan(lambda offset, length: body[offset : offset + length], len(body)):
                pass
        else:
            tx.unconverted = True  # disable_mime_output_conversion
        connection.start(tx)
        await owner.done.wait()
        assert sink.messages[0].data.isascii() == converts and sink.messages[0].parameters == b""
        assert (b"BDAT" in verbs(sink)) != converts
        connection.close()
        await owner.over.wait()


@pytest.mark.parametrize(("replies", "stage"), [([CLOSE], "end of data -- message may be"), ([None, CLOSE], "message")])
async def test_a_connection_that_is_lost_without_an_answer_leaves_the_message_undecided(replies, stage):
    body = b"line\r\n" * (10 if len(replies) == 1 else 50_000)
    async with SmtpSink(capabilities=OFFER, replies={"BDAT": replies}) as sink:
        owner = Owner(body)
        connection = await connect(sink, owner)
        await owner.ready.wait()
        tx = message(body)
        connection.start(tx)
        await owner.over.wait()
        assert tx.results == [None] and tx.undecided() == [0]
        assert stage in connection.client.failure.text and not connection.client.unanswered


async def test_silence_behind_the_last_chunk_has_the_time_of_the_end_of_data():
    async with SmtpSink(capabilities=OFFER, replies={"BDAT": [HANG]}) as sink:
        owner = Owner(b"x\r\n")
        connection = await connect(sink, owner)
        await owner.ready.wait()
        now = asyncio.get_running_loop().time()
        connection.start(message(owner.body))
        await sink.until(lambda: b"BDAT" in verbs(sink))
        while connection.client.state is not State.FINAL:  # noqa: ASYNC110 - the answers are in the socket
            await asyncio.sleep(0)
        assert connection.deadline >= now + 600
        connection.deadline_passed(connection.deadline)
        await owner.over.wait()
        assert "conversation timed out" in connection.client.failure.text
        assert "may be sent more than once" in connection.client.failure.text


@pytest.mark.parametrize("code", [452, 552])
async def test_no_chunk_follows_one_that_was_refused_and_the_session_goes_on(code):
    body = b"line\r\n" * 2_000_000
    async with SmtpSink(capabilities=OFFER, replies={"BDAT": [None, f"{code} 5.3.4 too much"]}) as sink:
        owner = Owner(body)
        connection = await connect(sink, owner)
        await owner.ready.wait()
        tx = message(body)
        connection.start(tx)
        await owner.done.wait()
        assert tx.results[0].code == code and not sink.messages
        assert verbs(sink).count(b"BDAT") < len(body) // SLICE_BYTES
        owner.done.clear()
        owner.body = b"small\r\n"
        connection.start(message(owner.body))
        await owner.done.wait()
        assert b"RSET" in verbs(sink) and sink.messages[0].data == b"small\r\n"
        connection.close()
        await owner.over.wait()
