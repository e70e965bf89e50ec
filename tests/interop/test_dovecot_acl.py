"""Shared mailboxes beside Debian's Dovecot (its acl and imap_acl plugins): the same commands, the same answers.

Known to differ: Dovecot says BAD where `anyone` is not allowed, lets an owner take rights from himself, takes
identifiers that nobody has, and answers LISTRIGHTS without the right to administer; the order of letters is its own.
"""

import imaplib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imap.harness import make_world
from tests.support import dovecot

pytestmark = pytest.mark.skipif(bool(dovecot.missing()), reason=dovecot.missing())

USER, ANN = "user@example.test", "ann@example.test"
WORK = f'"Other Users/{USER}/Work"'
MESSAGE = b"Subject: x\r\n\r\ntext\r\n"
PLUGIN = """
mail_plugins = acl
plugin {{
  acl = vfile
  acl_shared_dict = file:{mail}/shared.db
}}
namespace others {{
  type = shared
  separator = /
  prefix = Other Users/%%u/
  location = maildir:{mail}/%%u
  subscriptions = no
  list = children
}}
"""
#: Who says what. In the answers: the tagged word with its code, rights, lists, flags.
SCRIPT = (
    ("user", "CREATE Work"),
    ("user", "APPEND"),
    ("user", "MYRIGHTS Work"),
    ("user", f"SETACL Work {ANN} lrc"),
    ("user", "GETACL Work"),
    ("user", f"SETACL Work {ANN} lrd"),
    ("user", "GETACL Work"),
    ("user", f"SETACL Work {ANN} +s"),
    ("user", f"SETACL Work {ANN} -d"),
    ("user", "GETACL Work"),
    ("user", f"LISTRIGHTS Work {ANN}"),
    ("user", "CREATE Work/below"),
    ("user", "GETACL Work/below"),
    ("user", f"DELETEACL Work/below {ANN}"),
    ("ann", "NAMESPACE"),
    ("ann", 'LIST "" "Other*"'),
    ("ann", f"MYRIGHTS {WORK}"),
    ("ann", f"GETACL {WORK}"),
    ("ann", f"SETACL {WORK} {ANN} lr"),
    ("ann", f"STATUS {WORK} (MESSAGES UNSEEN)"),
    ("ann", f"SELECT {WORK}"),
    ("ann", "STORE 1 +FLAGS.SILENT (\\Flagged \\Seen)"),
    ("ann", "UID FETCH 1 FLAGS"),
    ("ann", "STORE 1 FLAGS.SILENT (\\Flagged)"),
    ("ann", "UID FETCH 1 FLAGS"),
    ("ann", "EXPUNGE"),
    ("ann", "MOVE 1 INBOX"),
    ("ann", "CLOSE"),
    ("ann", f"DELETE {WORK}"),
    ("ann", f'RENAME {WORK} "Other Users/{USER}/Work2"'),
    ("ann", f'CREATE "Other Users/{USER}/Work/new"'),
    ("ann", f'CREATE "Other Users/{USER}/new"'),
    ("ann", "APPEND"),
    ("ann", f"SUBSCRIBE {WORK}"),
    ("ann", 'LSUB "" "Other*"'),
    ("user", f"SETACL Work {ANN} l"),
    ("ann", f"STATUS {WORK} (MESSAGES)"),
    ("ann", f"SELECT {WORK}"),
    ("user", f"SETACL Work {ANN} lrite"),
    ("ann", f"SELECT {WORK}"),
    ("ann", "STORE 1 +FLAGS.SILENT (\\Deleted \\Flagged)"),
    ("ann", "UID FETCH 1 FLAGS"),
    ("ann", "MOVE 1 INBOX"),
    ("ann", "UNSELECT"),
    ("user", f"DELETEACL Work {ANN}"),
    ("ann", f"MYRIGHTS {WORK}"),
)
LETTERS = re.compile("[lrswipkxteacd]+")


@pytest.fixture(scope="module")
def server() -> Iterator[dovecot.Dovecot]:
    made = dovecot.Dovecot({USER: "secret", ANN: "secret"})
    path = made.directory / "dovecot.conf"
    text = path.read_text().replace("protocol imap {\n", "protocol imap {\n  mail_plugins = acl imap_acl\n")
    path.write_text(text + PLUGIN.format(mail=made.directory / "dovecot-mail"))
    with made as running:
        yield running


def canonical(lines: list[bytes]) -> list[str]:
    """What both servers must say alike: no texts for people, no numbers of their own, letters in one order."""
    out = []
    for raw in lines:
        line = raw.decode()
        tagged = re.match(r"(OK|NO|BAD)(?: \[(NOPERM|NONEXISTENT|READ-ONLY|READ-WRITE)\])?", line)
        if tagged:
            out.append(" ".join(filter(None, tagged.groups())))
        elif line.startswith(("* ACL", "* MYRIGHTS")):
            words = ["".join(sorted(word)) if LETTERS.fullmatch(word) else word for word in line.split(" ")]
            told = 3 if line.startswith("* ACL") else len(words)
            pairs = sorted(zip(words[told::2], words[told + 1 :: 2], strict=True))
            out.append(" ".join([*words[:told], *(word for pair in pairs for word in pair)]))
        elif line.startswith("* LISTRIGHTS"):
            out.append(" ".join(sorted(line.split(" "))))
        elif line.startswith(("* LIST", "* LSUB")) and "INBOX" not in line:
            out.append(line.replace("\\Noselect \\HasChildren", "\\HasChildren \\Noselect"))
        elif re.match(r"\* \d+ FETCH", line):
            out.append(line.replace("\\Recent", "").replace(" )", ")"))
        elif line.startswith(("* NAMESPACE", "* STATUS", "* OK [PERMANENTFLAGS")):
            out.append(line.rstrip("."))
    return sorted(out[:-1]) + out[-1:]


def said_by_dovecot(server: dovecot.Dovecot) -> list[list[str]]:
    def connected(address: str) -> imaplib.IMAP4:
        connection = imaplib.IMAP4(server.host, server.port("imap"))
        connection.login(address, "secret")
        return connection

    connections = {"user": connected(USER), "ann": connected(ANN)}
    out, before = [], ""
    for who, command in SCRIPT:
        if who == "ann" and before != "ann":  # Dovecot keeps what it has read for half a minute
            connections["ann"].shutdown()
            connections["ann"] = connected(ANN)
        before = who
        connection = connections[who]
        name = b"Work" if who == "user" else WORK.encode()
        raw = b"APPEND %b {%d+}\r\n%b" % (name, len(MESSAGE), MESSAGE) if command == "APPEND" else command.encode()
        connection.send(b"x1 " + raw + b"\r\n")
        lines = [connection.readline().rstrip(b"\r\n")]
        while not lines[-1].startswith(b"x1 "):
            lines.append(connection.readline().rstrip(b"\r\n"))
        out.append(canonical([*lines[:-1], lines[-1][3:]]))
    for connection in connections.values():
        connection.shutdown()
    return out


async def test_rights_are_obeyed_as_dovecot_obeys_them(server: dovecot.Dovecot, tmp_path: Path) -> None:
    theirs = said_by_dovecot(server)
    world = await make_world(tmp_path, engine="memory")
    ann = await world.store.accounts.add(ANN, "x")
    world.services.authenticator.accounts[ANN] = ("secret", ann)
    clients = {"user": await world.login(), "ann": world.connect()}
    await clients["ann"].settle()
    clients["ann"].take()
    await clients["ann"].ok(f"LOGIN {ANN} secret")
    wrong = []
    try:
        for (who, command), wanted in zip(SCRIPT, theirs, strict=True):
            if command == "APPEND":
                lines = [await clients[who].append(MESSAGE, "Work" if who == "user" else WORK)]
            else:
                lines = await clients[who].do(command)
            if canonical(lines) != wanted:
                wrong.append((who, command, canonical(lines), wanted))
    finally:
        await world.close()
    assert not wrong, "\n".join(map(str, wrong))
