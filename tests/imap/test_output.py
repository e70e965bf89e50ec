"""What a command says is at most its bound ahead of the socket, on every path."""

import re
import sys
import tracemalloc
from typing import Any

import pytest

from fastmta.model.limits import IMAP_CHUNK_BYTES, IMAP_HEADER_BYTES, IMAP_KEYWORDS
from tests.imap.harness import Client, World, split_responses

STORE = pytest.mark.parametrize("store_kind", ["lmdb"])
CHUNK = 8192  # in place of IMAP_CHUNK_BYTES, so that a small mailbox has much to say
SMALLER = {
    "IMAP_CHUNK_BYTES": CHUNK,
    "IMAP_CHANGES_PAGE": 100,
    "NUMBERS": 1024,
    "SLICE": 1024,
    "PIECE": 1024,
}
SMALL = b"From: somebody@example.test\r\nSubject: a subject\r\n\r\nhello\r\n"


KEYWORD = 50  # octets: all keywords of a message together are bounded, too


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("fastmta.imap."):
            for constant, value in SMALLER.items():
                if hasattr(module, constant):
                    monkeypatch.setattr(module, constant, value)


def ahead(chunk: int) -> int:
    """A chunk on top of one that was nearly full, and the lines behind it."""
    return 2 * chunk + chunk // 2


async def fill(client: Client, doublings: int) -> None:
    """Two messages, copied onto their own mailbox again and again."""
    await client.append(SMALL, arguments="(\\Seen)")
    await client.append(SMALL, arguments="(word)")
    for _ in range(doublings):
        await client.ok("COPY 1:* INBOX")


async def slowly(client: Client, command: str) -> tuple[bytes, int]:
    """All that a peer gets that reads only when the server waits for it, and the most that came between two looks."""
    wire, out, most = client.transport, b"", 0
    wire.full = True
    client.protocol.data_received(b"s " + command.encode() + b"\r\n")
    while True:
        await client.settle(3)
        while client.protocol.waiting and not client.protocol._paused:
            await client.settle(1)
        piece = client.take()
        out += piece
        most = max(most, len(piece))
        if re.search(rb"(^|\r\n)s (OK|NO|BAD) [^\r\n]*\r\n$", out[-1000:]):
            break
        assert client.protocol._paused or piece, out[-200:]
        client.protocol.resume_writing()
    wire.full = False
    client.protocol.resume_writing()
    await client.settle()
    return out, most


COMMANDS = [
    "FETCH 1:* FULL",
    "UID FETCH 1:* (FLAGS MODSEQ) (CHANGEDSINCE 1)",
    "FETCH 1:1000 BODY.PEEK[]",
    "FETCH 1:1000 BODY.PEEK[TEXT]",
    "FETCH 1:1000 (" + " ".join(["BODY.PEEK[HEADER.FIELDS (SUBJECT)]"] * 5) + ")",
    "FETCH 1:2000 PREVIEW",
    "STORE 1:4000 +FLAGS (\\Flagged)",
    "SEARCH ALL",
    "UID SEARCH RETURN (ALL COUNT) KEYWORD word",
    "SORT (SUBJECT REVERSE ARRIVAL) UTF-8 ALL",
    "THREAD REFERENCES UTF-8 ALL",
    "THREAD ORDEREDSUBJECT UTF-8 ALL",
]


@STORE
@pytest.mark.usefixtures("small_chunks")
async def test_no_command_writes_further_ahead_than_its_bound(world: World) -> None:
    client = await world.login("INBOX")
    await fill(client, 12)
    for command in COMMANDS:
        out, most = await slowly(client, command)
        assert b"\r\ns OK " in out, command
        assert most <= ahead(CHUNK), f"{command}: {most} octets ahead of the socket"
        assert len(out) > 2 * CHUNK, f"{command} says too little to show anything"


@STORE
@pytest.mark.usefixtures("small_chunks")
async def test_what_others_did_is_told_no_further_ahead_than_its_bound(world: World) -> None:
    watching, acting = await world.login(), await world.login("INBOX")
    await fill(acting, 11)
    await watching.ok("SELECT INBOX")
    for command, told in (
        ("STORE 1:* +FLAGS.SILENT (\\Deleted \\Flagged)", rb"\* (\d+) FETCH "),
        ("EXPUNGE", rb"\* (\d+) EXPUNGE"),
    ):
        _own, most = await slowly(acting, command)
        assert most <= ahead(CHUNK), command
        out, most = await slowly(watching, "NOOP")
        assert most <= ahead(CHUNK), command
        assert len(re.findall(told, out)) == 4096


@STORE
async def test_keywords_of_the_largest_size_are_told_no_further_ahead(world: World) -> None:
    watching, acting = await world.login(), await world.login("INBOX")
    await fill(acting, 8)
    await watching.ok("SELECT INBOX")
    words = " ".join(f"word{n}".ljust(KEYWORD, "x") for n in range(IMAP_KEYWORDS))
    await acting.ok(f"STORE 1:* FLAGS.SILENT ({words})")
    out, most = await slowly(watching, "NOOP")
    assert most <= ahead(IMAP_CHUNK_BYTES)
    assert out.count(b" FETCH (FLAGS (") == 512
    assert len(out) > 512 * IMAP_KEYWORDS * KEYWORD


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_keywords_are_named_in_flags_up_to_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch, over: int
) -> None:
    bound = 6
    monkeypatch.setattr("fastmta.imap.view.IMAP_KEYWORDS_TOLD", bound)
    monkeypatch.setattr("fastmta.imap.commands.select.IMAP_KEYWORDS_TOLD", bound)
    watching, acting = await world.login("INBOX"), await world.login("INBOX")
    words = {b"word%d" % n for n in range(bound + over)}
    await acting.append(SMALL)
    await watching.ok("NOOP")
    await acting.ok(b"STORE 1 FLAGS (" + b" ".join(sorted(words)) + b")")
    told = (await watching.ok("NOOP"), await acting.ok("NOOP") or await acting.ok("SELECT INBOX"))
    for lines in told:
        (named,) = (line for line in lines if line.startswith(b"* FLAGS ("))
        assert len(words.intersection(named.rstrip(b")").split())) == min(len(words), bound)


@pytest.mark.parametrize("store_kind", ["memory"])
@pytest.mark.usefixtures("small_chunks")
async def test_a_long_list_is_written_no_further_ahead_than_its_bound(world: World) -> None:
    client = await world.login()
    for n in range(150):
        name = "/".join("n" * 20 for _ in range(18)) + f"/{n}"
        await world.store.mailboxes.create(world.account_id, name)
        await world.store.mailboxes.subscribe(world.account_id, name)
    for command in ('LIST "" "*"', 'LSUB "" "*"', 'LIST "" "*" RETURN (STATUS (MESSAGES UIDNEXT UNSEEN))'):
        out, most = await slowly(client, command)
        assert most <= ahead(CHUNK), command
        assert len(out) > ahead(CHUNK)
        assert len(split_responses(out)) > 150


async def giant(world: World, client: Client) -> bytes:
    world.services.config.message_size_limit = 8_000_000
    header = (
        b"".join(b"X-Field-%d: %s\r\n" % (n, b"y" * 88) for n in range(IMAP_HEADER_BYTES // 108)) + b"To: x\r\n\r\n"
    )
    assert len(header) <= IMAP_HEADER_BYTES
    message = header + b"body\r\n"
    client.protocol.data_received(b"a APPEND INBOX {%d}\r\n" % len(message))
    for start in range(0, len(message), 65_536):
        await client.settle(2)
        client.protocol.data_received(message[start : start + 65_536])
    assert b"a OK [APPENDUID" in await client.send(b"\r\n")
    await client.ok("NOOP")
    return header


@STORE
@pytest.mark.parametrize(
    ("items", "times"),
    [
        (" ".join(["BODY.PEEK[HEADER.FIELDS.NOT (TO)]"] * 16), 16),  # 64 MB, twice the bound
        (" ".join(["BODY.PEEK[HEADER.FIELDS.NOT (TO)]"] * 4), 4),
        (" ".join(["BODY.PEEK[]"] * 10), 10),
        ("RFC822 RFC822.HEADER BODY.PEEK[HEADER] BODY.PEEK[]<7.4000000>", 4),
    ],
)
async def test_parts_of_a_giant_header_cost_a_few_copies_of_it_however_many(
    world: World, items: str, times: int
) -> None:
    client = await world.login("INBOX")
    header = await giant(world, client)
    sizes: list[int] = []
    write = client.transport.write

    def count(data: Any) -> None:
        """As write, and forgets it: only what the server keeps is to be in memory."""
        sizes.append(len(data))
        write(data[-100:])

    client.transport.write = count  # type: ignore[method-assign]
    client.transport.full = True
    tracemalloc.start()
    client.protocol.data_received(b"a FETCH 1 (" + items.encode() + b")\r\n")
    await client.settle()
    never_read = sum(sizes)
    assert never_read <= ahead(IMAP_CHUNK_BYTES)
    tracemalloc.reset_peak()
    while not client.transport.out.endswith(b"a OK FETCH completed\r\n"):
        before = sum(sizes)
        client.protocol.resume_writing()
        await client.settle(3)
        while not client.protocol._paused and client.protocol.waiting:  # its turn of the loop was over first
            await client.settle(1)
        assert sum(sizes) - before <= ahead(IMAP_CHUNK_BYTES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32_000_000, f"{peak} octets"
    assert sum(sizes) > (len(header) - 300_000) * times
    assert max(sizes) <= ahead(IMAP_CHUNK_BYTES)
