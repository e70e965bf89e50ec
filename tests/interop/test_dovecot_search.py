"""SORT, THREAD and ESEARCH beside Debian's Dovecot on the same mail."""

import imaplib
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.imap.harness import Client, World, make_world
from tests.support import dovecot

pytestmark = pytest.mark.skipif(bool(dovecot.missing()), reason=dovecot.missing())

NAMES = ["Zoe", "adam", "Émile", "=?UTF-8?Q?J=C3=BCrgen?=", "Bob", "", ""]
SUBJECTS = [
    "alpha",
    "Re: alpha",
    "[list] alpha",
    "Fwd: [list] Re: alpha",
    "beta",
    "Beta (fwd)",
    "[Fwd: beta]",
    "",
    "Re:",
]
SUBJECTS += [
    "=?UTF-8?B?UmU6IGdhbW1h?=",
    "gamma",
    "Re[3]: gamma",
    "RE: RE: gamma",
    "delta\t x",
    "[a] [b] delta x",
    "zeta",
]
KEYS = [
    "ARRIVAL",
    "CC",
    "DATE",
    "FROM",
    "SIZE",
    "SUBJECT",
    "TO",
    "REVERSE DATE",
    "REVERSE SUBJECT FROM",
    "SUBJECT DATE",
]
KEYS += ["DISPLAYFROM", "DISPLAYTO", "REVERSE DISPLAYFROM DATE", "FROM TO REVERSE SIZE"]
PROGRAMS = ["ALL", "SUBJECT alpha", "NOT SUBJECT a", "FROM adam", "OR SUBJECT beta TO q"]


def messages(rng: random.Random, count: int) -> list[tuple[bytes, str]]:
    """(message, internal date) of each."""
    out: list[tuple[bytes, str]] = []
    for n in range(count):
        lines: list[str] = []
        for field in ("From", "To", "Cc"):
            if rng.random() < 0.9:
                name = rng.choice(NAMES)
                address = f"{rng.choice('abqxyz')}{rng.randint(1, 3)}@{rng.choice(['x.test', 'y.test'])}"
                lines.append(f"{field}: {name} <{address}>" if name else f"{field}: {address}")
        subject = rng.choice(SUBJECTS)
        if subject or rng.random() < 0.5:
            lines.append(f"Subject: {subject}")
        zone = rng.choice(["+0000", "-0500", "+0530"])
        date = f"{rng.randint(1, 28)} Mar 2026 {rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"
        if rng.random() < 0.95:
            lines.append(f"Date: {date} {zone}")
        if rng.random() < 0.95:
            lines.append(f"Message-ID: <m{n}@x.test>")
        known = [f"<m{rng.randint(0, count)}@x.test>" for _ in range(rng.randint(0, 3))]
        if known and rng.random() < 0.6:
            lines.append(f"References: {' '.join(known)}")
        elif known and rng.random() < 0.5:
            lines.append(f"In-Reply-To: {known[0]}")
        lines.append("X: " + "x" * rng.randint(1, 50))
        arrival = f'"{rng.randint(1, 28):02}-Feb-2026 {rng.randint(0, 23):02}:00:00 +0000"'
        out.append(("\r\n".join(lines).encode() + b"\r\n\r\nbody\r\n", arrival))
    return out


@pytest.fixture(scope="module")
def server() -> Iterator[dovecot.Dovecot]:
    with dovecot.Dovecot({"user": "secret"}) as running:
        yield running


async def both(server: dovecot.Dovecot, path: Path, seed: int) -> tuple[World, Client, imaplib.IMAP4]:
    rng = random.Random(seed)
    theirs = imaplib.IMAP4(server.host, server.port("imap"))
    theirs.login("user", "secret")
    theirs.create(f"box{seed}")
    world = await make_world(path)
    ours = await world.login("INBOX")
    for raw, date in messages(rng, 120):
        theirs.append(f"box{seed}", "", date, raw)
        assert (await ours.append(raw, arguments=date)).startswith(b"OK")
    theirs.select(f"box{seed}")
    await ours.ok("NOOP")
    return world, ours, theirs


def asked(theirs: Any, command: str, name: str) -> bytes:
    tag = theirs._command(*command.split(" ", 1))
    kind, _ = theirs._command_complete(command.split(" ", 1)[0], tag)
    assert kind == "OK", command
    lines = theirs.untagged_responses.pop(name, [b""])
    return bytes(lines[-1])


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_sort_and_thread_are_dovecots(server: dovecot.Dovecot, tmp_path: Path, seed: int) -> None:
    world, ours, theirs = await both(server, tmp_path, seed)
    wrong: list[str] = []
    for keys in KEYS:
        for program in PROGRAMS[:2]:
            command = f"SORT ({keys}) UTF-8 {program}"
            want = asked(theirs, command, "SORT").split()
            got = (await ours.ok(command))[0].split()[2:]
            if got != want:
                wrong.append(f"{command}\n  theirs {want}\n  ours   {got}")
    for algorithm in ("REFERENCES", "ORDEREDSUBJECT", "REFS"):
        if algorithm == "ORDEREDSUBJECT" and "THREAD=ORDEREDSUBJECT" not in theirs.capabilities:
            continue
        for program in PROGRAMS[:3]:
            command = f"THREAD {algorithm} UTF-8 {program}"
            want_text = re.sub(rb"\s+\(", b" (", asked(theirs, command, "THREAD")).strip()
            got_text = (await ours.ok(command))[0].removeprefix(b"* THREAD ").strip()
            if got_text != want_text:
                wrong.append(f"{command}\n  theirs {want_text!r}\n  ours   {got_text!r}")
    theirs.logout()
    await world.close()
    assert not wrong, "\n".join(wrong)
