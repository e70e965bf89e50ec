"""The C generator and sink: what they count is what was sent, and what they are told is checked."""

import asyncio
import functools
import smtplib
import ssl
import subprocess
from pathlib import Path

import pytest

from bench import native
from bench.peers import Sink
from tests.support.smtp_sink import SmtpSink


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("one_each", [False, True])
@pytest.mark.parametrize("size", [1, 4096, 200_000])
def test_the_sink_counts_what_the_generator_sends(tmp_path: Path, pipelined: bool, one_each: bool, size: int) -> None:
    sink = Sink(tmp_path)
    try:
        done = native.smtp_load(
            sink.port("smtp"),
            sessions=7,
            messages=40,
            size=size,
            to="a@b.example",
            one_each=one_each,
            pipelined=pipelined,
        )
        assert (done.messages, sink.received()) == (40, 40)
    finally:
        sink.stop()


def test_a_sink_with_n_refuses_every_nth_recipient(tmp_path: Path) -> None:
    sink = Sink(tmp_path, "-d", "3")
    try:
        with smtplib.SMTP("127.0.0.1", sink.port("smtp"), timeout=30) as client:
            client.ehlo()
            client.mail("a@b.example")
            codes = [client.rcpt("c@d.example")[0] for _ in range(6)]
        assert codes == [250, 250, 452, 250, 250, 452]
        assert sink.refused() == 2
    finally:
        sink.stop()


def test_a_sink_of_one_message_closes_behind_it(tmp_path: Path) -> None:
    sink = Sink(tmp_path, "-o")
    try:
        with smtplib.SMTP("127.0.0.1", sink.port("smtp"), timeout=30) as client:
            client.sendmail("a@b.example", ["c@d.example"], "Subject: x\r\n\r\nx\r\n")
            with pytest.raises(smtplib.SMTPServerDisconnected):
                client.noop()
        assert sink.received() == 1
    finally:
        sink.stop()


def test_a_sink_with_tls_takes_mail_over_it(tmp_path: Path) -> None:
    sink = Sink(tmp_path, tls=True)
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    context.check_hostname = False
    try:
        with smtplib.SMTP("127.0.0.1", sink.port("smtp"), timeout=30) as client:
            assert client.starttls(context=context)[0] == 220
            assert not client.sendmail("a@b.example", ["c@d.example"], "x\r\n" * 50_000)
        assert sink.received() == 1
    finally:
        sink.stop()


async def test_the_domains_are_taken_in_turn() -> None:
    async with SmtpSink() as sink:
        what = {"sessions": 1, "messages": 3, "size": 100, "domains": 2}
        await asyncio.to_thread(functools.partial(native.smtp_load, sink.port, to="a@b.example", **what))
        recipients = [message.recipients for message in sink.messages]
        assert recipients == [[b"a@d0.b.example"], [b"a@d1.b.example"], [b"a@d0.b.example"]]


async def test_an_unexpected_reply_fails_the_load() -> None:
    async with SmtpSink(replies={"RCPT": ["550 5.1.1 no such user"]}) as sink:
        with pytest.raises(RuntimeError, match=r"unexpected reply: 550 5\.1\.1"):
            await asyncio.to_thread(native.smtp_load, sink.port, sessions=1, messages=1, size=100, to="a@b.example")


async def test_what_is_sent_is_a_message_of_the_size_asked_for() -> None:
    async with SmtpSink() as sink:
        await asyncio.to_thread(native.smtp_load, sink.port, sessions=1, messages=1, size=1000, to="a@b.example")
        (message,) = sink.messages
        assert len(message.data) == 1000
        assert max(map(len, message.data.split(b"\r\n"))) <= 78


def test_no_load_goes_beyond_loopback() -> None:
    done = subprocess.run([native.tool("smtp_load"), "192.0.2.1", "25"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "127.0.0.0/8 only" in done.stderr
