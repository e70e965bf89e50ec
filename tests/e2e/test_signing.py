"""Mail of our own people is signed once their domain has a key, and its signatures hold where it arrives."""

import imaplib
import json
import smtplib
import ssl
import time
from pathlib import Path
from typing import Any

from fastmta.authentication.bodies import Bodies
from fastmta.authentication.dkim import DkimVerdict, verify_dkim
from fastmta.authentication.message import parse_fields, split_message
from tests.authentication.zone import Zone
from tests.support.server import Server
from tests.support.waiting import wait_for

ANN, BOB = "ann@example.test", "bob@example.test"


async def inline(operation: Any, *arguments: Any) -> Any:
    return operation(*arguments)


def records(server: Server) -> dict[str, Any]:
    """The TXT records that the server says to publish."""
    shown = json.loads(server.cli("dkim", "publish", "example.test", "--json").stdout)
    return {row["name"].rstrip("."): {"TXT": [row["record"]]} for row in shown}


async def verdicts(raw: bytes, zone: dict[str, Any], now: float | None = None) -> tuple[DkimVerdict, ...]:
    header, body = split_message(raw)
    bodies = Bodies()
    bodies.update(body)
    return await verify_dkim(parse_fields(header), bodies, Zone(zone), inline, time.time() if now is None else now)


def submit(server: Server, text: str, sender: str = ANN) -> None:
    context = ssl._create_unverified_context()
    with smtplib.SMTP("127.0.0.1", server.port("submission")) as client:
        client.starttls(context=context)
        client.login(sender, "secret")
        client.sendmail(sender, [BOB], text)


def read(server: Server, number: int) -> bytes:
    with imaplib.IMAP4("127.0.0.1", server.port("imap")) as client:
        client.login(BOB, "secret")
        wait_for(lambda: int(client.select("INBOX")[1][0] or 0) >= number, "the message")
        _, found = client.fetch(str(number), "(BODY.PEEK[])")
        return found[0][1]  # type: ignore[index, return-value]


async def test_submitted_mail_is_signed_by_every_active_key_and_arrives_whole(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server:
        for user in (ANN, BOB):
            server.add_user(user, "secret")
        submit(server, f"From: {ANN}\r\nTo: {BOB}\r\nSubject: before\r\n\r\nText\r\n")
        assert b"DKIM-Signature" not in read(server, 1)
        server.cli("dkim", "add", "example.test", "--algorithm", "both")
        zone = records(server)
        assert len(zone) == 2

        texts: list[bytes] = []

        def is_signed() -> bool:  # the check begins within a second of the first key
            body = "Text \r\n.dot\r\n\r\n"
            head = f"From: Ann <{ANN}>\r\nTo: {BOB}\r\nBcc: eve@example.test\r\nSubject: hi\r\n"
            submit(server, f"{head}\r\n{body}")
            texts.append(read(server, len(texts) + 2))
            return b"DKIM-Signature" in texts[-1]

        wait_for(is_signed, "a signed message")
        raw = texts[-1]
        found = await verdicts(raw, zone)
        assert [(each.result, each.domain) for each in found] == [("pass", "example.test")] * 2, found
        assert b"\r\nDate: " in raw
        assert b"\r\nMessage-ID: " in raw
        assert b"eve@" not in raw
        assert not await verdicts(read(server, 1), zone)
        assert all(each.result == "fail" for each in await verdicts(raw.replace(b"Subject: hi", b"Subject: ho"), zone))
