"""POP3 over the real store: what is read, what QUIT removes, and a slow reader while the mailbox churns."""

import asyncio
from array import array
from pathlib import Path
from types import SimpleNamespace

from fastmta import _mime
from fastmta.model.flags import SEEN
from fastmta.pop3.maildrop import MaildropReader
from fastmta.store import MailStore
from tests.pop3.fakes import PREFIX, Running, on_both_loops

BIG = b"Subject: big\r\n\r\n" + b"".join(b".%06d %s\r\n" % (n, b"x" * 690) for n in range(9_000))


class Stored(Running):
    """The fakes' server, with a MailStore in place of the mailboxes."""

    async def __aenter__(self) -> "Stored":
        await super().__aenter__()
        self.store = MailStore.open(self.directory / "store", sync=False)
        self.store.attach(asyncio.get_running_loop())
        self.account = await self.store.accounts.add("bill@example.test", "x")
        self.services.store = self.store
        self.server.reader = MaildropReader(self.store.mailboxes)
        found = SimpleNamespace(id=self.account.id, address="bill@example.test", inbox_id=self.account.inbox_id)
        self.authenticator._check = lambda _: found  # type: ignore[method-assign]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        self.store.detach()
        self.store.close()

    async def put(self, *texts: bytes) -> None:
        for text in texts:
            blob = self.store.mailboxes.new_blob()
            structure = _mime.Structure()
            for start in range(0, len(text), 65_536):
                blob.feed(text[start : start + 65_536])
                structure.feed(text[start : start + 65_536])
            await self.store.mailboxes.append(
                self.account.inbox_id, blob, prefix=PREFIX, internal_date_s=1, structure=structure.finish()
            )

    def flags(self) -> dict[int, int]:
        uids, flags, *_ = self.store.mailboxes.summary(self.account.inbox_id)
        return dict(zip(uids, flags, strict=True))


@on_both_loops
async def test_messages_are_read_and_removed(tmp_path: Path) -> None:
    async with Stored(tmp_path) as server:
        await server.put(
            b"Subject: 1\r\n\r\n.one\r\n", b"Subject: 2\r\n\r\ntwo", b"Subject: 3\r\n\r\nthree\r\nlines\r\n"
        )
        client = await server.connect()
        assert await client.log_in() == b"+OK Logged in, 3 messages\r\n"
        assert await client.say(b"LIST 2") == b"+OK 2 %d\r\n" % (len(PREFIX) + 19)
        assert (await client.say(b"UIDL 3")).endswith(b".3\r\n")
        assert await client.say(b"RETR 1") == b"+OK %d octets\r\n" % (len(PREFIX) + 20)
        assert await client.body() == PREFIX + b"Subject: 1\r\n\r\n.one\r\n"
        assert await client.say(b"TOP 3 1") == b"+OK\r\n"
        assert await client.body() == PREFIX + b"Subject: 3\r\n\r\nthree\r\n"
        await client.say(b"DELE 2")
        assert await client.say(b"QUIT") == b"+OK Bye\r\n"
        assert server.flags() == {1: SEEN, 3: 0}


@on_both_loops
async def test_slow_reader_gets_nothing_of_others_while_the_mailbox_churns(tmp_path: Path) -> None:
    async with Stored(tmp_path) as server:
        await server.put(BIG)
        client = await server.connect()
        await client.log_in()
        assert (await client.say(b"RETR 1")).startswith(b"+OK")
        await server.store.mailboxes.expunge(server.account.inbox_id, array("I", (1,)), only_deleted=False)
        for number in range(30):
            await server.put(b"Subject: private %d\r\n\r\n" % number + b"private\r\n" * 20_000)
        assert await asyncio.wait_for(client.body(), 20) == PREFIX + BIG, "the trash keeps its bytes for a minute"
        assert (await client.say(b"RETR 1")).startswith(b"-ERR")
        client.close()
