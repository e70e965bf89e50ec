"""content_filter and FILTER: mail goes to a filter over SMTP first, and comes back by the listener for that."""

import asyncio
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mail import letter, messages, wait_for_messages
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.smtp_sink import SmtpSink, Taken
from tests.support.waiting import wait_for

BILL, ANN, PASSWORD = "bill@example.test", "ann@example.test", "filter-secret"


class Filter:
    """Gives back what it gets with a field on top; `seen` are the envelopes."""

    def __init__(self, server: Server, sink: SmtpSink) -> None:
        self.seen: list[tuple[bytes, tuple[bytes, ...]]] = []
        self._server = server
        sink.on_message = self._take

    def _take(self, taken: Taken) -> None:
        self.seen.append((taken.sender, tuple(taken.recipients)))
        asyncio.get_running_loop().run_in_executor(None, self._give_back, taken)

    def _give_back(self, taken: Taken) -> None:
        with smtplib.SMTP(self._server.host, self._server.port("reinjection"), timeout=60) as client:
            client.sendmail(
                taken.sender.decode(),
                [each.decode() for each in taken.recipients],
                b"X-Filtered: yes\r\n" + taken.data,
                mail_options=["BODY=8BITMIME"],
            )


def settings(port: int, **more: object) -> dict[str, object]:
    return {"mynetworks": ["127.0.0.1/32"], "content_filter": f"smtp:[127.0.0.1]:{port}", **more}


def made(directory: Path, port: int, **more: object) -> Server:
    server = Server(
        directory, services=("smtp", "pop3", "reinjection"), settings=settings(port, **more), with_tls=False
    )
    server.start()
    for user in (BILL, ANN):
        server.add_user(user, PASSWORD)
    return server


def send(
    server: Server,
    sender: str,
    *to: str,
    subject: str = "x",
    source: str = "127.0.0.1",
    author: str = "a@client.example",
) -> None:
    with smtplib.SMTP(server.host, server.port("smtp"), timeout=60, source_address=(source, 0)) as client:
        client.sendmail(sender, list(to), letter(subject, sender=author), mail_options=["BODY=8BITMIME"])


async def test_all_mail_passes_the_filter_once(tmp_path: Path) -> None:
    """Local and remote recipients, aliases, the null sender, sendmail; aliases and copies come behind the filter."""
    aliases = tmp_path / "aliases"
    aliases.write_text(f"both@lists.test {BILL}, {ANN}\n")
    async with SmtpSink() as sink, SmtpSink() as away:
        server = made(
            tmp_path,
            sink.port,
            always_bcc=ANN,
            virtual_alias_domains=["lists.test"],
            virtual_alias_maps=[f"texthash:{aliases}"],
            transport={"away.test": f"smtp:[127.0.0.1]:{away.port}"},
        )
        try:
            between = Filter(server, sink)
            await asyncio.to_thread(send, server, "x@client.example", BILL, "r@away.test", subject="one")
            await asyncio.to_thread(send, server, "", "both@lists.test", subject="two")
            await asyncio.to_thread(
                server.cli, "sendmail", "-f", "root@example.test", BILL, stdin="Subject: three\n\nx\n"
            )
            await away.until(lambda: bool(away.messages))
            for_bill = await asyncio.to_thread(wait_for_messages, server, BILL, PASSWORD, 3)
            for_ann = await asyncio.to_thread(wait_for_messages, server, ANN, PASSWORD, 3)
            assert all(b"X-Filtered: yes\r\n" in each for each in (*for_bill, *for_ann, away.messages[0].data))
            assert sorted(between.seen) == [
                (b"", (b"both@lists.test",)),
                (b"root@example.test", (b"bill@example.test",)),
                (b"x@client.example", (b"bill@example.test", b"r@away.test")),
            ]
            assert (len(for_bill), len(for_ann)) == (3, 3)
        finally:
            server.stop()


async def test_an_action_names_a_filter_for_some_mail_and_redirection_overrides_it(tmp_path: Path) -> None:
    async with SmtpSink() as sink:
        table, headers = tmp_path / "senders", tmp_path / "headers"
        route = f"FILTER smtp:[127.0.0.1]:{sink.port}"
        table.write_text(f"some@client.example {route}\nboth@client.example {route}\n")
        headers.write_text(f"/^Subject: by header/ {route}\n/^Subject: away/ REDIRECT {ANN}\n")
        server = made(
            tmp_path / "server",
            1,
            content_filter="",
            smtpd_sender_restrictions=f"check_sender_access texthash:{table}",
            header_checks=f"pcre:{headers}",
        )
        try:
            between = Filter(server, sink)
            for sender, subject in (
                ("some@client.example", "by sender"),
                ("none@client.example", "plain"),
                ("none@client.example", "by header"),
                ("both@client.example", "away"),
            ):
                await asyncio.to_thread(send, server, sender, BILL, subject=subject)
            found = await asyncio.to_thread(wait_for_messages, server, BILL, PASSWORD, 3)
            filtered = {each.split(b"Subject: ")[1].partition(b"\r\n")[0]: b"X-Filtered" in each for each in found}
            assert filtered == {b"by sender": True, b"plain": False, b"by header": True}
            (redirected,) = await asyncio.to_thread(wait_for_messages, server, ANN, PASSWORD, 1)
            assert b"X-Filtered" not in redirected
            assert len(between.seen) == 2
        finally:
            server.stop()


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A filter that is the server itself."""
    port = free_port()
    directory = tmp_path_factory.mktemp("loop")
    server = Server(
        directory,
        services=("smtp", "pop3", "reinjection"),
        ports={"smtp": port},
        settings=settings(port),
        with_tls=False,
    )
    with server:
        server.add_user(BILL, PASSWORD)
        yield server


def test_a_filter_that_is_the_server_itself_ends(loop: Server) -> None:
    send(loop, "x@client.example", BILL)
    wait_for(lambda: "5.4.6" in loop.log_path.read_text(), loop.log_tail)
    assert not messages(loop, BILL, PASSWORD)


def test_strangers_may_not_give_mail_back(loop: Server) -> None:
    with pytest.raises(smtplib.SMTPConnectError, match="554"):
        smtplib.SMTP(loop.host, loop.port("reinjection"), timeout=60, source_address=("127.0.0.9", 0))


async def test_what_a_filter_gives_back_keeps_the_header_that_it_came_with(tmp_path: Path) -> None:
    """The filter is a local client, and yet a stranger's header is none of a local client's."""
    async with SmtpSink() as sink:
        server = made(tmp_path, sink.port, masquerade_domains=["masked.test"])
        try:
            between = Filter(server, sink)
            for number, source in enumerate(("127.0.0.9", "127.0.0.1"), 1):
                await asyncio.to_thread(send, server, "x@h.masked.test", BILL, source=source, author="x@h.masked.test")
                await asyncio.to_thread(wait_for_messages, server, BILL, PASSWORD, number)
            stranger, own = await asyncio.to_thread(messages, server, BILL, PASSWORD)
            assert b"\nFrom: <x@h.masked.test>\r\n" in stranger
            assert b"\nFrom: <x@masked.test>\r\n" in own
            assert len(between.seen) == 2
        finally:
            server.stop()


def test_what_a_filter_cannot_pass_on_is_not_offered_before_it(loop: Server) -> None:
    """Else such mail would be returned by the first hop, which is ours, for want of a promise that no filter makes."""
    for service, is_offered in (("smtp", False), ("reinjection", True)):
        with smtplib.SMTP(loop.host, loop.port(service), timeout=60) as client:
            client.ehlo()
            assert client.has_extn("deliverby") == is_offered
            assert client.mail("x@client.example", ["BY=1000;R"])[0] == (250 if is_offered else 555)


def test_a_filter_that_is_down_defers_and_requeue_leads_nobody_past_it(loop: Server, tmp_path: Path) -> None:
    port = free_port()
    server = Server(tmp_path, services=("smtp", "pop3"), settings=settings(port), with_tls=False)
    with server:
        server.add_user(BILL, PASSWORD)
        send(server, "x@client.example", BILL)
        wait_for(lambda: server.metrics().get('fastmta_queue_messages{state="deferred"}') == 1.0, server.log_tail)
        server.cli("queue", "requeue", "--all")
        assert f"127.0.0.1[127.0.0.1]:{port}" in server.cli("queue", "list").stdout
        assert not messages(server, BILL, PASSWORD)
