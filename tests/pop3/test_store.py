"""POP3 over LMDB: what is read, what QUIT removes, and a slow reader while the mailbox churns."""

import asyncio
from pathlib import Path

from fastmta.model.flags import SEEN
from tests.pop3.fakes import PREFIX, Running, on_both_loops

BIG = b"Subject: big\r\n\r\n" + b"".join(b".%06d %s\r\n" % (n, b"x" * 690) for n in range(9_000))


@on_both_loops
async def test_messages_are_read_and_removed(tmp_path: Path) -> None:
    async with Running(tmp_path, engine="lmdb") as server:
        await server.fill(
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
    async with Running(tmp_path, engine="lmdb") as server:
        await server.fill(BIG)
        client = await server.connect()
        await client.log_in()
        assert (await client.say(b"RETR 1")).startswith(b"+OK")
        await server.lose(1)
        for number in range(30):
            await server.fill(b"Subject: private %d\r\n\r\n" % number + b"private\r\n" * 20_000)
        assert await asyncio.wait_for(client.body(), 60) == PREFIX + BIG, "the trash keeps its bytes for a minute"
        assert (await client.say(b"RETR 1")).startswith(b"-ERR")
        client.close()
