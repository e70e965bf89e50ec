"""Mutated commands never reach the net of last resort, and the session's literals stay whole."""

import random

import pytest

from tests.imap.harness import World, split_responses

COMMANDS = [
    b"a NOOP\r\n",
    b"a FETCH 1:* (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (A B)]<0.10> ENVELOPE)\r\n",
    b"a UID FETCH 1:*,3 BODY[]\r\n",
    b"a FETCH 1 BODY[1.MIME]\r\n",
    b"a SEARCH OR (SUBJECT x FROM {1+}\r\ny) NOT BEFORE 1-Jan-2020 UID 1:*\r\n",
    b"a STORE 1:2 +FLAGS.SILENT (\\Seen foo)\r\n",
    b"a STORE 1 FLAGS \\Deleted $x\r\n",
    b'a APPEND INBOX (\\Seen) "01-Jan-2020 00:00:00 +0000" {12+}\r\nSubject: x\r\n\r\n',
    b"a APPEND {5+}\r\nINBOX {3+}\r\nabc\r\n",
    b'a LIST "" "%/*"\r\n',
    b"a STATUS INBOX (MESSAGES UNSEEN)\r\n",
    b"a CREATE &U,BTFw-/x\r\n",
    b"a RENAME Sent x/y\r\n",
    b"a COPY 1:* Sent\r\n",
    b"a UID MOVE 1:2 INBOX\r\n",
    b"a EXPUNGE\r\n",
    b"a UID EXPUNGE 1:3\r\n",
    b"a SELECT INBOX\r\n",
    b"a EXAMINE Sent\r\n",
    b"a IDLE\r\nDONE\r\n",
    b'a ID ("name" "x" "y" NIL)\r\n',
    b"a LSUB x %\r\n",
    b"a DELETE x\r\n",
    b"a CLOSE\r\n",
    b"a UNSELECT\r\n",
    b"a SUBSCRIBE x\r\n",
    b"a APPEND INBOX (\\Seen) {3+}\r\nabc {2+}\r\nde (x) ~{1+}\r\nf\r\n",
    b'a APPEND INBOX CATENATE (URL "/INBOX/;UID=1/;SECTION=1.MIME" TEXT {3+}\r\nabc URL ";UID=1/;PARTIAL=0.9")\r\n',
    b"a UID REPLACE 1 INBOX {3+}\r\nabc\r\n",
    b"a REPLACE 1 {4+}\r\nSent UTF8 (~{3+}\r\nabc)\r\n",
    b"a FETCH 1:* (BINARY.PEEK[1]<0.5> BINARY.SIZE[1.2] EMAILID THREADID SAVEDATE MODSEQ)\r\n",
    b"a ENABLE IMAP4rev2 UTF8=ACCEPT QRESYNC\r\n",
    b"a ENABLE UIDONLY\r\n",
    b'a ESEARCH IN (subtree ("" x) personal) RETURN (COUNT ALL) SAVEDSINCE 1-Jan-2020 EMAILID M1\r\n',
    b"a SETMETADATA INBOX (/private/a {3+}\r\nabc /shared/b NIL)\r\n",
    b"a GETMETADATA (DEPTH infinity MAXSIZE 9) INBOX (/private /shared/b)\r\n",
    b"a UID SEARCH RETURN (UPDATE (UID FLAGS) COUNT CONTEXT) UNSEEN\r\nb STORE 1:* +FLAGS (\\Seen)\r\n",
    b'a CANCELUPDATE "a" "b"\r\n',
    b'a GENURLAUTH "imap://user%40example.test@h/INBOX/;UID=1/;SECTION=1;URLAUTH=user+x" INTERNAL\r\n',
    b"a RESETKEY INBOX x\r\n",
    b'a URLFETCH "imap://u@h/INBOX/;UID=1;EXPIRE=2030-01-01T00:00:00Z;URLAUTH=anonymous:internal:%b"\r\n' % (b"0" * 64),
    b"a NOTIFY SET STATUS (selected-delayed (MessageNew (UID BODY[]) MessageExpunge)) (subtree x NONE)\r\n",
    b"a NOTIFY SET (selected (MessageNew MessageExpunge)) (mailboxes (x Sent) (MailboxName))\r\na NOTIFY NONE\r\n",
    b'a LIST "" * RETURN (METADATA (/private/a) STATUS (MAILBOXID))\r\n',
]
NOISE = [
    b"(",
    b")",
    b'"',
    b"{",
    b"}",
    b"{5}\r\n",
    b"{3+}\r\nabc",
    b"\\",
    b"*",
    b"%",
    b" ",
    b"\r\n",
    b"\0",
    b"\xff",
    b"1",
    b"0",
    b"4294967296",
    b"NIL",
    b"[",
    b"]",
    b"<",
    b">",
    b".",
    b":",
    b",",
    b"&",
    b"-",
    b"/",
]


def mutate(rng: random.Random, command: bytes) -> bytes:
    data = bytearray(command)
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at:at] = rng.choice(NOISE)
            case 1:
                del data[at : at + rng.randint(1, 4)]
            case 2:
                data[at : at + 1] = rng.choice(NOISE)
            case 3:
                data[at:at] = rng.choice(COMMANDS)[: rng.randint(1, 30)]
    return bytes(data)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("store_kind", ["memory"])
async def test_mutated_commands(world: World, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(3):
        client = await world.login("INBOX")
        out = b""
        for _ in range(30):
            if client.transport.closed:
                break
            data = mutate(rng, rng.choice(COMMANDS))
            cut = rng.randrange(len(data) + 1)
            client.protocol.data_received(data[:cut])
            client.protocol.data_received(data[cut:])
            await client.settle(3)
            out += client.take()
        await client.settle()
        out += client.take()
        assert b"SERVERBUG" not in out, f"seed {seed}: {out[-500:]!r}"
        split_responses(out)
        client.transport.close()
        await client.settle()
    assert world.server.sessions == 0
