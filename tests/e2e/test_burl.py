"""BURL (RFC 4468): a submitted message is put together of what lies in mailboxes, by URLs that their owners made."""

import imaplib
import smtplib
from collections.abc import Callable, Iterator

import pytest

from tests.support.server import Server

BILL, ANN = "bill@example.test", "ann@example.test"
SMALL = b"Subject: draft\r\nX-Kept: yes\r\n\r\nhello\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"some text of a line\r\n" * 100_000
FAILED = (554, b"5.6.6 IMAP URL resolution failed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    services = ("smtp", "submission", "imap")
    settings = {"message_size_limit": 3_000_000}
    with Server(tmp_path_factory.mktemp("server"), services=services, workers=1, settings=settings) as made:
        for user in (BILL, ANN):
            made.add_user(user, "secret")
        yield made


@pytest.fixture(scope="module")
def imap(server: Server) -> Iterator[imaplib.IMAP4]:
    client = imaplib.IMAP4("127.0.0.1", server.port("imap"))
    client.login(BILL, "secret")
    for message in (SMALL, LARGE):
        client.append("INBOX", "", "", message)
    client.select("INBOX")
    yield client
    client.logout()


@pytest.fixture(scope="module")
def url(imap: imaplib.IMAP4) -> Callable[..., str]:
    imaplib.Commands["GENURLAUTH"] = ("SELECTED",)  # type: ignore[attr-defined]

    def made(uid: int, part: str = "", access: str = "submit+bill%40example.test") -> str:
        rump = f"imap://bill%40example.test@127.0.0.1/INBOX/;UID={uid}{part};URLAUTH={access}"
        status, answer = imap._simple_command("GENURLAUTH", f'"{rump}"', "INTERNAL")  # type: ignore[attr-defined]
        line: bytes = imap._untagged_response(status, answer, "GENURLAUTH")[1][0]  # type: ignore[attr-defined]
        return line.decode().strip().strip('"')

    return made


def submission(server: Server, user: str = BILL) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", server.port("submission"))
    client.ehlo()
    assert client.esmtp_features["burl"] == ""
    client.login(user, "secret")
    client.ehlo()
    assert client.esmtp_features["burl"] == "imap"
    return client


def envelope(client: smtplib.SMTP, sender: str = BILL) -> None:
    assert client.docmd("MAIL", f"FROM:<{sender}>")[0] == 250
    assert client.docmd("RCPT", f"TO:<{ANN}>")[0] == 250


def received(server: Server) -> bytes:
    """The newest message of ann."""
    client = imaplib.IMAP4("127.0.0.1", server.port("imap"))
    client.login(ANN, "secret")
    count = client.select("INBOX")[1][0].decode()  # type: ignore[union-attr]
    raw: bytes = client.fetch(count, "(BODY[])")[1][0][1]  # type: ignore[index, assignment]
    client.logout()
    return raw


def test_a_message_is_what_its_chunks_and_urls_bring(server: Server, url: Callable[..., str]) -> None:
    client = submission(server)
    for uid, content in ((1, SMALL), (2, LARGE)):
        envelope(client)
        code, text = client.docmd(f"BURL {url(uid)} LAST")
        assert (code, text.startswith(b"2.0.0 Ok: queued as ")) == (250, True)
        assert received(server).endswith(content)
    envelope(client)
    client.send(b"BDAT 14\r\nX-First: one\r\n")
    assert client.getreply() == (250, b"2.0.0 14 octets received")
    assert client.docmd(f"BURL {url(1, '/;SECTION=HEADER.FIELDS%20(X-KEPT)')}")[0] == 250
    client.send(b"BDAT 4\r\nand " + f"BURL {url(1, '/;SECTION=TEXT')} LAST\r\n".encode())
    assert [client.getreply()[0] for _ in range(2)] == [250, 250]
    assert received(server).endswith(b"\r\nX-First: one\r\nX-Kept: yes\r\n\r\nand hello\r\n")
    client.quit()


def test_what_may_not_be_read_ends_the_transaction(server: Server, url: Callable[..., str]) -> None:
    good, client = url(1), submission(server)
    wrong = good[:-1] + ("1" if good[-1] == "0" else "0")
    ann = submission(server, ANN)
    for session, sender, each in (
        (client, BILL, wrong),
        (client, BILL, good.rpartition(":internal:")[0]),
        (client, BILL, good.replace("UID=1", "UID=2")),
        (client, BILL, url(9)),
        (client, BILL, url(1, access="user+ann%40example.test")),
        (ann, ANN, good),
    ):
        envelope(session, sender)
        assert session.docmd(f"BURL {each} LAST") == FAILED
        assert session.docmd("BURL x LAST")[0] == 503
    envelope(ann, ANN)
    assert ann.docmd(f"BURL {url(1, access='user+ann%40example.test')} LAST")[0] == 250
    for arguments in ("", f" {good} FIRST", f" {good} LAST LAST"):
        envelope(client)
        assert client.docmd(f"BURL{arguments}") == (501, b"5.5.4 Syntax: BURL url [LAST]")
    envelope(client)
    assert client.docmd(f"BURL {url(2)}")[0] == 250
    assert client.docmd(f"BURL {url(2)} LAST")[0] == 552  # both together pass the limit
    envelope(client)
    assert client.docmd("RSET")[0] == 250
    for each in (client, ann):
        each.quit()


def test_strangers_are_not_offered_it(server: Server, url: Callable[..., str]) -> None:
    with smtplib.SMTP("127.0.0.1", server.port("smtp")) as client:
        client.ehlo()
        assert not client.has_extn("burl")
        client.docmd("MAIL", "FROM:<a@example.org>")
        client.docmd("RCPT", f"TO:<{ANN}>")
        assert client.docmd(f"BURL {url(1)} LAST")[0] == 502
