"""Throws damaged keys at SEARCH over a real store with odd messages; see harness.py for options."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.harness import AsyncTarget, main
from tests.imap.harness import make_world, split_responses
from tests.mime.messages import BROKEN, CASES

KEYS = [
    b"ALL",
    b"1:*",
    b"UID 1:*,3:5",
    b"NOT SEEN",
    b"OR SEEN NOT (ANSWERED FLAGGED)",
    b'SUBJECT "x" FROM a TO b CC c BCC d',
    b"TEXT hello",
    b"BODY world",
    b"HEADER Subject {1+}\r\nx",
    b"HEADER Content-Type multipart",
    b"KEYWORD a UNKEYWORD b",
    b"BEFORE 1-Jan-2020 ON 2-Feb-2021 SINCE 3-Mar-2022",
    b"SENTBEFORE 1-Jan-2020 SENTON 1-Jan-2020 SENTSINCE 1-Jan-2020",
    b"LARGER 100 SMALLER 100000",
    b"MODSEQ 1",
    b"CHARSET UTF-8 TEXT {2+}\r\n\xc3\xa9",
    b"CHARSET ISO-2022-JP SUBJECT x",
    b"CHARSET UTF-7 BODY +AOk-",
    b"CHARSET -punycode TEXT x",
    b"RETURN (MIN MAX ALL COUNT SAVE) DELETED",
    b"YOUNGER 10 OLDER 20",
    b"((((((NOT NOT NOT OR (ALL) (SEEN))))))",
    b"NEW OLD RECENT DRAFT UNDRAFT",
]


class Search(AsyncTarget):
    corpus = tuple(KEYS)
    tokens = (
        *KEYS,
        b"NOT ",
        b"OR ",
        b"(",
        b")",
        b"CHARSET ",
        b"1:*,",
        b"TEXT ",
        b"BODY ",
        b"UNKEYWORD a ",
        b"NOT BODY x ",
    )

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        super().__init__()

    async def start(self) -> None:
        self.world = await make_world(Path(self._directory.name) / "store")
        self.client = await self.world.login("INBOX")
        for message in [*CASES.values(), *BROKEN.values()][:60]:
            if len(message) < 50_000:
                await self.client.append(message)

    async def hold(self, data: bytes) -> None:
        client = self.client
        if client.transport.closed:
            client = self.client = await self.world.login("INBOX")
        for verb in (b"s SEARCH ", b"s UID SEARCH "):
            if client.transport.closed:
                return
            client.protocol.data_received(verb + data + b"\r\n")
            await client.settle()
        client.protocol.data_received(b"\r\ns NOOP\r\n")  # what still waits for a literal gets it in time
        await client.settle()
        out = client.take()
        if b"SERVERBUG" in out or b"internal" in out.lower():
            raise AssertionError(f"an unexpected error: {out[-300:]!r}")
        split_responses(out)
        client.transport.close()
        await client.settle()

    async def stop(self) -> None:
        self.client.transport.close()
        await self.client.settle()
        await self.world.close()
        self._directory.cleanup()


if __name__ == "__main__":
    raise SystemExit(main(Search, __doc__))
