"""Suspected mail goes into a quarantine mailbox of each user; listed, released as it came, deleted; the digest."""

import json
import smtplib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.dns_thread import dns_stub
from tests.support.mail import imap
from tests.support.server import Server
from tests.support.waiting import wait_for

ANN, BOB = "ann@example.test", "bob@example.test"
ZONES = {"strict.test": {"TXT": ["v=spf1 -all"]}, "_dmarc.strict.test": {"TXT": ["v=DMARC1; p=reject"]}}
TEXT = "From: Eve <eve@strict.test>\r\nTo: x\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= {0}\r\n\r\n.dot {0}\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with dns_stub(ZONES) as dns:
        settings = {
            "mynetworks": ["192.0.2.0/24"],
            "smtpd_peername_lookup": False,
            "dmarc_reject_action": "quarantine",
            "quarantine_mailbox": "Quarantine",
            "dns": {"nameservers": [dns.address]},
        }
        with Server(tmp_path_factory.mktemp("quarantine"), settings=settings) as running:
            for user in (ANN, BOB):
                running.add_user(user, "secret")
            yield running


def send(server: Server, number: int, *to: str) -> None:
    with smtplib.SMTP(server.host, server.port("smtp"), local_hostname="mx.strict.test", timeout=60) as client:
        assert client.sendmail("eve@strict.test", list(to), TEXT.format(number)) == {}


def listed(server: Server, *user: str) -> list[dict[str, Any]]:
    return list(json.loads(server.cli("quarantine", "list", *user, "--json").stdout))


def bodies(server: Server, user: str, mailbox: str) -> list[bytes]:
    with imap(server, user, "secret") as box:
        if box.select(mailbox)[0] != "OK":
            return []
        numbers = box.search(None, "ALL")[1][0].split()
        return [box.fetch(number.decode(), "(BODY.PEEK[])")[1][0][1] for number in numbers]


def test_it_is_filed_apart_listed_released_and_deleted(server: Server) -> None:
    send(server, 1, ANN, BOB)
    assert len(bodies(server, ANN, "Quarantine")) == 1, "the mailbox is made with the first message"
    send(server, 2, BOB)
    assert bodies(server, BOB, "INBOX") == [] == bodies(server, BOB, "Junk")
    rows = listed(server, BOB)
    assert [row["subject"] for row in rows] == ["Grüße 1", "Grüße 2"]
    assert rows[0]["sender"] == "Eve <eve@strict.test>" and rows[0]["size"] > 100 and rows[0]["received"]
    assert len(listed(server)) == 3
    before = bodies(server, BOB, "Quarantine")[1]
    assert json.loads(server.cli("quarantine", "release", rows[1]["id"], "--json").stdout) == {"messages": 1}
    assert bodies(server, BOB, "INBOX") == [before], "octet for octet"
    assert before.endswith(b"\r\n\r\n.dot 2\r\n")
    server.cli("quarantine", "delete", rows[0]["id"])
    assert listed(server, BOB) == [] and bodies(server, BOB, "Quarantine") == []
    assert len(listed(server, ANN)) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("release", "bob@example.test:999"), "is not in quarantine"),
        (("release", "nobody@example.test:1"), "no account nobody@example.test"),
        (("delete", "nonsense"), "no ID"),
        (("list", "nobody@example.test"), "no account"),
    ],
)
def test_what_is_not_there_is_told(server: Server, arguments: tuple[str, ...], said: str) -> None:
    done = server.cli("quarantine", *arguments, check=False)
    assert done.returncode and said in done.stderr


def test_the_digest_names_what_came_once_a_day(server: Server) -> None:
    send(server, 3, ANN)
    server.stop()
    server.write_config({"quarantine_digest": True, "quarantine_digest_hour": 0})
    server.start()
    wait_for(lambda: any(b"Mail in quarantine" in each for each in bodies(server, ANN, "INBOX")), server.log_tail)
    (mail,) = [each for each in bodies(server, ANN, "INBOX") if b"Mail in quarantine" in each]
    assert b"ann@example.test:" in mail and b"Eve <eve@strict.test>" in mail
    assert not any(b"Mail in quarantine" in each for each in bodies(server, BOB, "INBOX")), "nothing new for him"
    assert '"daily.done"' in server.log_path.read_text()


def test_without_a_name_it_is_junk(server: Server) -> None:
    server.write_config({"quarantine_mailbox": "", "quarantine_digest": False})
    server.cli("reload")

    def lands_in_junk() -> bool:
        send(server, 4, BOB)
        return bool(bodies(server, BOB, "Junk"))

    wait_for(lands_in_junk, "the reload")
    assert [row["subject"] for row in listed(server, BOB)][-1] == "Grüße 4"
