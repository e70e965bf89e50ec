"""always_bcc and its like over SMTP and sendmail: copies of what comes in, and of nothing else."""

import re
import smtplib
from pathlib import Path

from tests.support.mail import letter, wait_for_messages
from tests.support.server import Server
from tests.support.waiting import wait_for

ADDRESSES = ("bill@example.test", "archive@example.test", "boss@example.test")


def test_copies_are_kept_of_what_comes_in_once_and_not_of_our_own_reports(tmp_path: Path) -> None:
    bcc = tmp_path / "bcc"
    bcc.write_text("bill@example.test boss@example.test\n")
    server = Server(
        tmp_path,
        services=("smtp", "pop3"),
        settings={
            "always_bcc": "archive@example.test",
            "recipient_bcc_maps": [f"hash:{bcc}"],
            "transport": {"gone.example": "error:5.1.2 no such place", "parked.example": "hold:"},
        },
    )
    for address in ADDRESSES:
        server.add_user(address, "x")
    with server:
        with smtplib.SMTP(server.host, server.port("smtp")) as client:
            client.sendmail("ann@client.example", ["bill@example.test"], letter("one"), mail_options=["BODY=8BITMIME"])
            client.sendmail("bill@example.test", ["x@parked.example"], letter("two"), mail_options=["BODY=8BITMIME"])
        for address, subjects in (("bill@example.test", ["one"]), ("boss@example.test", ["one"])):
            assert subjects_of(server, address, len(subjects)) == subjects
        assert subjects_of(server, "archive@example.test", 2) == ["one", "two"]
        assert [each["recipient"] for each in server.queue()] == ["x@parked.example"]
        # What sendmail hands in is copied; the report that comes of it is not.
        server.cli("sendmail", "-f", "bill@example.test", "x@gone.example", stdin="Subject: three\n\nx\n")
        wait_for(lambda: len(subjects_of(server, "bill@example.test", 2)) == 2, "the report")
        assert subjects_of(server, "archive@example.test", 3) == ["one", "two", "three"]
        assert len(subjects_of(server, "boss@example.test", 1)) == 1


def subjects_of(server: Server, address: str, count: int) -> list[str]:
    found = wait_for_messages(server, address, "x", count)
    return [re.search(rb"^subject: ([^\r]*)", raw, re.I | re.M)[1].decode() for raw in found]  # type: ignore[index]
