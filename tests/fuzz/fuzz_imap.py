"""Throws damaged commands at a whole IMAP session: states, literals, every command; see harness.py for options."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.harness import AsyncTarget, main
from tests.imap.harness import make_world, split_responses
from tests.imap.test_fuzz import COMMANDS, NOISE

MORE = [
    b"a LOGIN user@example.test secret\r\na SELECT INBOX\r\n",
    b"a AUTHENTICATE PLAIN\r\nAHVzZXJAZXhhbXBsZS50ZXN0AHNlY3JldA==\r\n",
    b'a LIST (SPECIAL-USE SUBSCRIBED) "" ("*" "%") RETURN (STATUS (MESSAGES UIDNEXT))\r\n',
    b"a FETCH 1:* (BODY.PEEK[HEADER.FIELDS.NOT (A B C)] BODY[1.1.1]<5.100> RFC822.TEXT)\r\n",
    b"a SEARCH RETURN (MIN MAX COUNT) OR NOT (TEXT a BODY b) HEADER C d LARGER 1 KEYWORD x\r\n",
    b'a LIST "" *%*%*%*%*\r\n',
    b"a STORE 1:*,2,3:4 FLAGS (\\Seen a b c d e f)\r\n",
    b"a APPEND INBOX {30+}\r\nContent-Type: message/rfc822\r\n\r\n",
    b"a ENABLE CONDSTORE QRESYNC UTF8=ACCEPT\r\na LOGOUT\r\n",
    b"a GETQUOTAROOT INBOX\r\na NAMESPACE\r\na CHECK\r\na CAPABILITY\r\na STARTTLS\r\n",
]


class Imap(AsyncTarget):
    corpus = (*COMMANDS, *MORE)
    tokens = (
        *NOISE,
        b"a FETCH 1:* ",
        b"BODY[",
        b"HEADER.FIELDS (",
        b"NOT ",
        b"OR ",
        b"1:*,",
        b"{100000+}\r\n",
        b"&AOk-",
        b"*%",
    )

    async def start(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.world = await make_world(Path(self._directory.name), engine="memory")
        client = await self.world.login("INBOX")
        for number in range(10):
            await client.append(
                b"Subject: %d\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n" % number
            )
        client.transport.close()
        await client.settle()

    async def hold(self, data: bytes) -> None:
        if (
            len(self.world.store.mailboxes.list(self.world.account_id)) > 200
        ):  # what inputs made would slow the later ones
            await self.world.close()
            await self.start()
        logged_in = not data.startswith(b"a LOGIN")
        client = await self.world.login("INBOX") if logged_in else self.world.connect()
        await client.settle(3)
        client.take()
        cut = len(data) // 3
        for piece in (data[:cut], data[cut:]):
            if not client.transport.closed:
                client.protocol.data_received(piece)
        await client.settle()
        out = client.take()
        if b"SERVERBUG" in out:
            raise AssertionError(f"an unexpected error: {out[-300:]!r}")
        split_responses(out)
        client.transport.close()
        await client.settle()
        if self.world.server.sessions:
            raise AssertionError("a session is left")

    async def stop(self) -> None:
        await self.world.close()


if __name__ == "__main__":
    raise SystemExit(main(Imap, __doc__))
