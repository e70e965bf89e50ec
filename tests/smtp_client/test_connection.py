"""The client's socket: what leaves for each kind of body, deadlines, TLS, and reuse."""

import asyncio
from types import SimpleNamespace

import pytest

from fastmta.dns.mx import Address
from fastmta.model.envelope import (
    HAS_BARE_NEWLINE,
    HAS_DOT_LINE,
    HAS_LONG_LINE,
    NO_FINAL_CRLF,
    Envelope,
    RecipientTail,
)
from fastmta.smtp.client import Client
from fastmta.smtp.client_connection import SLICE_BYTES, Connection
from fastmta.smtp.client_states import State
from fastmta.smtp.folding import Folder
from fastmta.smtp.transaction import Transaction
from fastmta.tls.certificate import write_self_signed
from fastmta.tls.contexts import client_context, server_context
from tests.support.smtp_sink import CLOSE, HANG, SmtpSink

TIMEOUTS = SimpleNamespace(
    smtp_helo_timeout=300,
    smtp_starttls_timeout=300,
    smtp_mail_timeout=300,
    smtp_rcpt_timeout=310,
    smtp_data_init_timeout=120,
    smtp_rset_timeout=20,
    smtp_data_xfer_timeout=180,
    smtp_data_done_timeout=600,
    smtp_line_length_limit=998,
)


ANY = SimpleNamespace(servername="", must_verify=False)  # whatever certificate a server has


class Owner:
    """Holds one body, and waits for what the connection tells."""

    def __init__(self, body=b"", context=None):
        self.body = body
        self.context = context
        self.session = None
        self.cold = None  # offset -> what has to be awaited before a piece is read
        self.ready, self.done, self.over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.most_ahead = 0
        self.lines = 0
        self.tasks = set()

    def session_ready(self, connection):
        self.ready.set()

    def transaction_done(self, connection):
        self.done.set()

    def partly_answered(self, connection):
        pass

    def session_over(self, connection):
        self.over.set()

    def read_body(self, transaction, offset, length):
        assert length <= 262_144
        return self.body[offset : offset + length]

    def need_body(self, transaction, offset, length):
        return None if self.cold is None else self.cold(offset)

    def folded(self, connection, lines):
        self.lines = lines

    def tls_context(self, connection):
        return self.context

    def tls_session(self, connection, context):
        return self.session

    def spawn(self, name, work):
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


async def connect(sink, owner, *, settings=TIMEOUTS, **options):
    loop = asyncio.get_running_loop()
    client = Client("me.test", f"sink.test[127.0.0.1]:{sink.port}", **options)
    connection = Connection(loop, owner, client, Address("sink.test", "127.0.0.1", sink.port), settings, ANY)
    await loop.create_connection(lambda: connection, "127.0.0.1", sink.port)
    return connection


def transaction(body, bits=0):
    return Transaction(Envelope(b"s@a.test", 0, len(body), bits), [RecipientTail(b"r@b.test")])


async def send(body, bits=0, cold=None, **options):
    async with SmtpSink() as sink:
        owner = Owner(body)
        owner.cold = cold
        connection = await connect(sink, owner, **options)
        await owner.ready.wait()
        tx = transaction(body, bits)
        connection.start(tx)
        await owner.done.wait()
        connection.close()
        await owner.over.wait()
        return tx, sink


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
    ],
)
async def test_what_arrives_is_what_was_stored_with_whole_lines(body, bits, arrives):
    tx, sink = await send(body, bits)
    assert tx.results[0].code == 250
    assert sink.messages[0].data == arrives


@pytest.mark.parametrize("size", [SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 3_000_000])
async def test_a_big_message_goes_in_slices_and_arrives_whole(size):
    line = b".dots and text that is long enough to matter\r\n"
    body = (line * (size // len(line) + 1))[:size]
    tx, sink = await send(body, HAS_DOT_LINE | NO_FINAL_CRLF)
    assert tx.results[0].code == 250
    whole = body if body.endswith(b"\r\n") else body + (b"\n" if body.endswith(b"\r") else b"\r\n")
    assert sink.messages[0].data.rstrip() == whole.rstrip()


@pytest.mark.parametrize("limit", [998, 20, 0, 5000])
@pytest.mark.parametrize("repeat", [1, 3000])
async def test_lines_over_the_limit_are_folded_and_counted(limit, repeat):
    body = (b"Subject: " + b"s" * 1200 + b"\r\n\r\n." + b"y" * 60 + b"\r\n" + b"z" * 998 + b"\r\n") * repeat
    async with SmtpSink() as sink:
        owner = Owner(body)
        connection = await connect(
            sink, owner, settings=SimpleNamespace(**{**vars(TIMEOUTS), "smtp_line_length_limit": limit})
        )
        await owner.ready.wait()
        connection.start(transaction(body, HAS_DOT_LINE | HAS_LONG_LINE))
        await owner.done.wait()
        connection.close()
        await owner.over.wait()
    whole = Folder(limit).fold(body) if limit else body
    assert sink.messages[0].data == whole
    assert owner.lines == {998: 1, 20: 3}.get(limit, 0) * repeat
    if limit in (0, 5000):
        assert whole == body


async def test_a_message_without_such_a_line_is_not_looked_at(monkeypatch):
    monkeypatch.setattr("fastmta.smtp.client_connection.Folder", None)
    tx, sink = await send(b"y" * 2000 + b"\r\n", 0)
    assert sink.messages[0].data == b"y" * 2000 + b"\r\n"
    assert tx.results[0].code == 250


@pytest.mark.parametrize("capabilities", [(), ("PIPELINING",)])
async def test_each_reply_has_its_own_timeout(capabilities):
    async with SmtpSink(replies={"MAIL": [HANG]}, capabilities=capabilities) as sink:
        owner = Owner(b"x\r\n")
        connection = await connect(sink, owner)
        await owner.ready.wait()
        connection.start(transaction(b"x\r\n"))
        for said, seconds in ((b"", 300), (b"250 ok\r\n", 310), (b"250 ok\r\n", 120), (b"354 go\r\n", 600)):
            if said:
                connection.data_received(said)
            assert seconds - 9 < connection.deadline - asyncio.get_running_loop().time() < seconds + 1
        connection.abort()


async def test_the_question_whether_a_server_is_there_has_a_timeout_too():
    async with SmtpSink(replies={"RSET": [HANG]}) as sink:
        owner = Owner(b"x\r\n")
        connection = await connect(sink, owner)
        await owner.ready.wait()
        connection.start(transaction(b"x\r\n"))
        await owner.done.wait()
        connection.rest()
        connection.idle_since -= 5
        connection.start(transaction(b"x\r\n"))
        assert connection.deadline - asyncio.get_running_loop().time() < 21
        connection.abort()


async def test_a_message_that_is_deleted_meanwhile_is_not_sent_in_part():
    async with SmtpSink() as sink:
        owner = Owner(b"short")
        connection = await connect(sink, owner)
        await owner.ready.wait()
        tx = transaction(b"x" * 1000)
        connection.start(tx)
        await owner.over.wait()
        assert sink.messages == [] and tx.undecided() == [0]


async def test_a_passed_deadline_ends_the_session_with_the_stage_in_its_failure():
    async with SmtpSink(replies={"DOT": [HANG]}) as sink:
        owner = Owner(b"x\r\n")
        connection = await connect(sink, owner)
        await owner.ready.wait()
        connection.start(transaction(b"x\r\n"))
        await sink.until(lambda: b"DATA" in sink.commands and connection.client.state is State.FINAL)
        now = asyncio.get_running_loop().time()
        assert connection.deadline >= now + 599  # never less after the dot: it makes duplicates
        connection.deadline_passed(now)
        assert owner.over.is_set()
        assert "conversation timed out with sink.test[127.0.0.1]" in connection.client.failure.text


async def test_whole_replies_prolong_the_deadline_and_trickled_bytes_do_not():
    async with SmtpSink(replies={"MAIL": [HANG]}) as sink:
        owner = Owner(b"x\r\n")
        connection = await connect(sink, owner)
        await owner.ready.wait()
        connection.start(transaction(b"x\r\n"))
        connection.deadline = before = connection.deadline - 200
        connection.data_received(b"250-still")
        connection.data_received(b" here\r\n250-")
        assert connection.deadline == before
        connection.data_received(b"x\r\n250 ok\r\n")
        assert connection.deadline > before + 100
        connection.abort()


async def test_an_idle_connection_says_quit_when_its_time_is_over():
    async with SmtpSink() as sink:
        owner = Owner()
        connection = await connect(sink, owner)
        await owner.ready.wait()
        connection.rest()
        connection.deadline_passed(connection.deadline)
        await owner.over.wait()
        await sink.until(lambda: b"QUIT" in sink.commands)


async def test_a_server_that_leaves_while_we_rest_makes_the_connection_useless():
    async with SmtpSink(replies={"GREETING": ["220 x"], "EHLO": [None]}) as sink:
        owner = Owner()
        connection = await connect(sink, owner)
        await owner.ready.wait()
        connection.rest()
        connection.data_received(b"421 4.4.2 idle\r\n")
        assert not connection.is_reusable


@pytest.mark.parametrize("verb", ["GREETING", "EHLO", "MAIL", "DOT"])
async def test_a_lost_connection_is_told_once(verb):
    async with SmtpSink(replies={verb: [CLOSE]}) as sink:
        owner = Owner(b"x\r\n")
        connection = await connect(sink, owner)
        if verb in ("MAIL", "DOT"):
            await owner.ready.wait()
            connection.start(transaction(b"x\r\n"))
        await owner.over.wait()
        assert connection.client.failure.text.startswith("lost connection with sink.test")


@pytest.fixture
def contexts(tmp_path):
    write_self_signed(tmp_path / "c.pem", tmp_path / "k.pem", ["sink.test"])
    settings = SimpleNamespace(
        cert_file=str(tmp_path / "c.pem"),
        key_file=str(tmp_path / "k.pem"),
        ssl_min_protocol="TLSv1.2",
        smtpd_tls_eccert_file="",
    )
    return server_context(settings)


async def test_opportunistic_tls_takes_any_certificate(contexts):
    async with SmtpSink(tls=contexts) as sink:
        owner = Owner(b"secret\r\n", client_context("may"))
        connection = await connect(sink, owner)
        await owner.ready.wait()
        assert connection.client.tls and connection.tls_version.startswith("TLSv1.")
        connection.start(transaction(b"secret\r\n"))
        await owner.done.wait()
        assert sink.messages[0].tls
        connection.close()
        await owner.over.wait()


async def test_a_verified_level_refuses_a_self_signed_certificate(contexts):
    async with SmtpSink(tls=contexts) as sink:
        owner = Owner(b"", client_context("verify"))
        connection = await connect(sink, owner, tls_level="verify")
        await owner.over.wait()
        assert connection.tls_failed and connection.client.failure.is_temporary


@pytest.mark.parametrize("size", [100, 1_000_000])
async def test_a_body_that_is_not_in_memory_is_waited_for_and_arrives_whole(size):
    waited = []

    def cold(offset):
        async def brought():
            await asyncio.sleep(0)
            waited.append(offset)

        return brought()

    body = b"x" * 48 + b"\r\n" + (b"y" * 98 + b"\r\n") * (size // 100 - 1) + b"z" * 48 + b"\r\n"
    tx, sink = await send(body, cold=cold)
    assert tx.results[0].code == 250
    assert sink.messages[0].data == body
    assert waited == list(range(0, len(body), SLICE_BYTES))
