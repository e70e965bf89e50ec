"""Addresses are written anew before the message is signed; local programs' mail too; what has no room stays."""

import subprocess
from pathlib import Path

from tests.e2e.test_signing import ANN, BOB, read, records, submit, verdicts
from tests.support.server import Server, command, environment
from tests.support.waiting import wait_for

SETTINGS = {
    "canonical_maps": "inline:{ann@example.test=Ann.Smith@example.test, bob.jones@example.test=bob@example.test}",
    "masquerade_domains": ["example.test"],
}


async def test_the_signature_covers_the_addresses_as_they_go_out(tmp_path: Path) -> None:
    with Server(tmp_path / "server", settings=SETTINGS) as server:
        for user in (ANN, BOB):
            server.add_user(user, "secret")
        server.cli("dkim", "add", "example.test")
        seen: list[bytes] = []

        def is_signed() -> bool:
            fields = (
                f"From: Ann <{ANN}>\r\nTo: bob.jones@host.example.test, x@other.test\r\nBcc: {ANN}\r\nSubject: hi\r\n"
            )
            submit(server, f"{fields}\r\ntext\r\n")
            seen.append(read(server, len(seen) + 1))
            return b"DKIM-Signature" in seen[-1]

        wait_for(is_signed, "a signed message")
        raw = seen[-1]
        assert raw.startswith(b"Return-Path: <Ann.Smith@example.test>\r\n")
        assert raw.count(b"\nFrom: ") == 1 and b"\nFrom: Ann <Ann.Smith@example.test>\r\n" in raw
        assert b"\nTo: bob.jones@example.test, x@other.test\r\n" in raw
        assert b"\nBcc:" not in raw
        assert [each.result for each in await verdicts(raw, records(server))] == ["pass"]


def test_mail_of_local_programs_and_what_is_too_long(tmp_path: Path) -> None:
    with Server(tmp_path / "server", settings=SETTINGS) as server:
        for user in (ANN, BOB):
            server.add_user(user, "secret")
        many = ",\r\n ".join(f"user{number}@host.example.test" for number in range(100))
        letter = f"From: <{ANN}>\r\nTo: {many}\r\nCc: x@h.example.test\r\nSubject: local\r\n\r\ntext\r\n"
        done = subprocess.run(
            [*command("sendmail", "-f", ANN, "bob.jones@example.test")],
            input=letter.encode(),
            env=environment({"FASTMTA_CONFIG": str(server.config_path)}),
            check=False,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        raw = read(server, 1)
        assert b"\nFrom: <Ann.Smith@example.test>\r\n" in raw
        assert b"\nCc: x@example.test\r\n" in raw
        assert b"\nTo: user0@host.example.test,\r\n" in raw
        assert "too long: to" in server.log_tail(200)
        told = server.cli("explain", ANN, "bob.jones@example.test").stdout
        assert "address rewriting" in told
