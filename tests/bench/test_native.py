"""The C generator and sink: what they count is what was sent, and what they are told is checked."""

import asyncio
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
