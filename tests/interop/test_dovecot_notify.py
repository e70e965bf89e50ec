"""NOTIFY beside Debian's Dovecot: the same changes, told in the same words.

Known to differ: Dovecot enables CONDSTORE where FlagChange is asked for, tells UNSEEN of new messages in any case and
other flags by HIGHESTMODSEQ, tells a RENAME of each inferior and never of superiors, has no children's attributes in
these LIST responses, takes MailboxName of the selected mailbox, and names the event that it does not know in BADEVENT,
not those that it knows.
"""

import asyncio
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imap.harness import make_world, split_responses
from tests.support import dovecot

pytestmark = pytest.mark.skipif(bool(dovecot.missing()), reason=dovecot.missing())

MESSAGE = b"Subject: x\r\n\r\ntext\r\n"
WATCH = (
    "NOTIFY SET STATUS (selected (MessageNew (UID BODY.PEEK[HEADER.FIELDS (Subject)]) MessageExpunge)) "
    "(personal (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange))"
)
#: What the other session does, and the line by which one knows that it has been told.
STEPS = (
    (("APPEND INBOX",), rb"\* 1 FETCH"),
    (("APPEND Sent",), rb"\* STATUS Sent"),
    (("SELECT Sent", "STORE 1 +FLAGS.SILENT (\\Seen)"), rb"\* STATUS Sent"),
    (("CREATE a",), rb"\* LIST .* a"),
    (("SUBSCRIBE a",), rb"\* LIST .* a"),
    (("DELETE a",), rb"\* LIST .* a"),
    (("SELECT INBOX", "STORE 1 +FLAGS.SILENT (\\Deleted)", "EXPUNGE"), rb"\* 1 EXPUNGE"),
)
REFUSED = tuple(f"NOTIFY SET (selected ({event}))" for event in ("MessageNew", "FlagChange"))


@pytest.fixture
def server() -> Iterator[dovecot.Dovecot]:
    with dovecot.Dovecot({"user": "secret"}) as running:
        yield running


def essence(lines: list[bytes]) -> list[object]:
    """What the lines say, without what is known to differ."""
    out: list[object] = []
    for line in lines:
        if line.startswith(b"* STATUS"):
            found = dict(re.findall(rb"(MESSAGES|UIDNEXT|UNSEEN) (\d+)", line))
            out.append((line.split()[2], found))
        elif line.startswith(b"* LIST"):
            name = line.split()[-1].strip(b'"')
            out.append((name, b"NonExistent" in line, b"Subscribed" in line))
        elif re.match(rb"\* \d+ (EXISTS|EXPUNGE|FETCH)", line):
            out.append(line.upper())
    return out


class Theirs:
    """A session that asks again and again, since Dovecot watches a mailbox only some time after NOTIFY."""

    def __init__(self, server: dovecot.Dovecot) -> None:
        self.socket = socket.create_connection((server.host, server.port("imap")))
        self.socket.settimeout(1)
        self.unread = b""
        self.do("LOGIN user secret")

    def do(self, command: str) -> list[bytes]:
        literal = b" {%d+}\r\n%b" % (len(MESSAGE), MESSAGE) if command.startswith("APPEND") else b""
        self.socket.sendall(b"t " + command.encode() + literal + b"\r\n")
        return self.until(rb"t ")

    def until(self, pattern: bytes) -> list[bytes]:
        for _ in range(30):
            lines = split_responses(self.unread[: self.unread.rfind(b"\r\n") + 2])
            for number, line in enumerate(lines, 1):
                if re.match(pattern, line):
                    self.unread = self.unread[sum(len(each) + 2 for each in lines[:number]) :]
                    return [each for each in lines[:number] if not each.startswith(b"n ")]
            try:
                self.unread += self.socket.recv(65536)
            except TimeoutError:
                self.socket.sendall(b"n NOOP\r\n")
        raise AssertionError(self.unread)


async def test_the_same_is_told(server: dovecot.Dovecot, tmp_path: Path) -> None:
    theirs, their_other = Theirs(server), Theirs(server)
    their_other.do("CREATE Sent")
    world = await make_world(tmp_path)
    ours, our_other = await world.login(), await world.login()
    await our_other.ok("UNSUBSCRIBE Sent")
    await our_other.ok("UNSUBSCRIBE INBOX")
    for client_do in ("SELECT INBOX",):
        await ours.ok(client_do)
        theirs.do(client_do)
    first = essence(await ours.ok(WATCH))
    assert first == essence(await asyncio.to_thread(theirs.do, WATCH))
    for commands, last in STEPS:
        for command in commands:
            if command.startswith("APPEND"):
                await our_other.append(MESSAGE, command.split()[1])
            else:
                await our_other.ok(command)
            await asyncio.to_thread(their_other.do, command)
        await ours.settle()
        told = essence(split_responses(ours.take()))
        expected = essence(await asyncio.to_thread(theirs.until, last))
        assert told == [each for each in expected if each not in first], commands  # Dovecot says that again
    for command in REFUSED:
        answer = theirs.do(command)[-1].split()[1]
        assert (await ours.do(command))[-1].split()[0] == answer == b"BAD"
    for each in (theirs, their_other):
        each.socket.close()
    await world.close()
