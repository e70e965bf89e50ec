"""CONTEXT=SEARCH beside Debian's Dovecot: the same searches and changes, the same ESEARCH responses.

Known to differ: Dovecot takes a tag again, and takes a CANCELUPDATE of a tag that it does not know as BAD.
"""

import imaplib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imap.harness import make_world
from tests.support import dovecot

pytestmark = pytest.mark.skipif(bool(dovecot.missing()), reason=dovecot.missing())

SEARCHES = (
    "UID SEARCH RETURN (UPDATE COUNT) UNSEEN",
    "SEARCH RETURN (UPDATE) FLAGGED",
    "UID SEARCH RETURN (UPDATE CONTEXT MIN) NOT SUBJECT b",
)
CHANGES = (
    "STORE 1:2 +FLAGS.SILENT (\\Seen)",
    "STORE 2:3 +FLAGS.SILENT (\\Flagged)",
    "STORE 1 -FLAGS.SILENT (\\Seen)",
    "STORE 3 +FLAGS.SILENT (\\Deleted)",
    "EXPUNGE",
)


@pytest.fixture
def server() -> Iterator[dovecot.Dovecot]:
    with dovecot.Dovecot({"user": "secret"}) as running:
        yield running


def esearches(lines: list[bytes]) -> list[bytes]:
    """What is told of the results, one item a line, and the tag's name left out; expunges, which follow."""
    found = []
    for line in lines:
        if b"ESEARCH" in line:
            head, items = re.match(rb'\* ESEARCH \(TAG "\w*?(\d+)"\)( UID)?(.*)', line).group(1, 3)  # type: ignore[union-attr]
            found += [head + b" " + item for item in re.findall(rb"(?:ADDTO|REMOVEFROM) \([^)]*\)|[A-Z]+ \d+", items)]
        elif b"EXPUNGE" in line:
            found.append(line)
    return found


async def test_the_same_is_told(server: dovecot.Dovecot, tmp_path: Path) -> None:
    world = await make_world(tmp_path)
    other, theirs_other = await world.login("INBOX"), imaplib.IMAP4(server.host, server.port("imap"), timeout=60)
    theirs_other.login("user", "secret")
    for subject in (b"a", b"b", b"c", b"ab"):
        await other.append(b"Subject: %b\r\n\r\ntext\r\n" % subject)
        theirs_other.append("INBOX", "", "", b"Subject: %b\r\n\r\ntext\r\n" % subject)
    theirs_other.select("INBOX")
    ours, theirs = await world.login("INBOX"), imaplib.IMAP4(server.host, server.port("imap"), timeout=60)
    theirs.login("user", "secret")
    theirs.select("INBOX")
    await other.ok("NOOP")
    numbers = iter(range(1000))

    def ask(client: imaplib.IMAP4, command: str) -> list[bytes]:
        name = b"z%d" % next(numbers)
        client.send(name + b" " + command.encode() + b"\r\n")
        lines = []
        while not (line := client.readline()).startswith(name + b" "):
            assert line
            lines.append(line.rstrip(b"\r\n"))
        assert line.split()[1] == b"OK", line
        return lines

    renamed: dict[bytes, bytes] = {}

    def named(lines: list[bytes], new: int) -> list[bytes]:
        """With the searches' own numbers in place of the tags'."""
        for line in lines:
            head = line.split()[0]
            if head.isdigit() and head not in renamed and new >= 0:
                renamed[head] = b"s%d" % new
        return sorted(b" ".join((renamed.get(line.split()[0], line.split()[0]), *line.split()[1:])) for line in lines)

    for number, command in enumerate(SEARCHES):
        renamed.clear()
        mine = named(esearches(await ours.ok(command)), number)
        renamed.clear()
        assert mine == named(esearches(ask(theirs, command)), number)
    for command in CHANGES:
        await other.ok(command)
        ask(theirs_other, command)
        mine, yours = esearches(await ours.ok("NOOP")), esearches(ask(theirs, "NOOP"))
        assert sorted(line.split(b" ", 1)[1] for line in mine) == sorted(line.split(b" ", 1)[1] for line in yours), (
            command
        )
    for client in (theirs, theirs_other):
        client.logout()
    await world.close()
