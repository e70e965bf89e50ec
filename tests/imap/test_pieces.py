"""How much a command looks at between two questions whether its turn is over: rows and octets, counted, not timed."""

from array import array
from typing import Any

import pytest

from fastmta.imap import order
from fastmta.imap.commands.search import write_pieces
from fastmta.model.limits import IMAP_HEADER_PIECE_BYTES
from tests.imap.harness import Client, World

MESSAGES = 1500
HEADERS = 300  # looked at in one go: each costs some microseconds, whatever is written of it
ENVELOPES = 1000  # they lie there as they are written
LONG = b"Subject: long\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"v" * 90) for n in range(10_000)) + b"\r\nbody"


class Looked:
    """The most that was looked at in one go."""

    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most_rows = self.most_octets = 0
        self._rows = self._octets = 0
        mailboxes = client.protocol.session.mailboxes
        give_rows, read, read_on = mailboxes.give_rows, mailboxes.read, mailboxes.read_on

        def rows(mailbox_id: int, numbers: Any, uids: Any, start: int, sink: Any, hot: bool) -> int:
            following = int(give_rows(mailbox_id, numbers, uids, start, sink, hot))
            self._rows += following - start
            self._note()
            return following

        def octets(whose: Any) -> Any:
            def of(*arguments: Any) -> bytes | None:
                data: bytes | None = whose(*arguments)
                self._octets += len(data or b"")
                self._note()
                return data

            return of

        def over(_self: Any) -> bool:
            self._rows = self._octets = 0
            return True

        monkeypatch.setattr(mailboxes, "give_rows", rows, raising=False)
        monkeypatch.setattr(mailboxes, "read", octets(read), raising=False)
        monkeypatch.setattr(mailboxes, "read_on", octets(read_on), raising=False)

        async def pause(_self: Any) -> None:
            over(_self)

        monkeypatch.setattr(type(client.protocol), "turn_is_over", over)
        monkeypatch.setattr(type(client.protocol), "pause", pause)

    def _note(self) -> None:
        self.most_rows = max(self.most_rows, self._rows)
        self.most_octets = max(self.most_octets, self._octets)


@pytest.fixture
async def client(world: World) -> Client:
    client = await world.login("INBOX")
    for n in range(10):
        await client.append(b"Subject: s%d\r\nMessage-ID: <%d@x>\r\n\r\nhello" % (n, n))
    uids = array("I", range(1, 11))
    inbox = client.protocol.session.selected.mailbox_id
    for _ in range(MESSAGES // 10 - 1):
        await world.store.mailboxes.copy(inbox, uids, inbox)
    await client.ok("NOOP")
    return client


@pytest.mark.parametrize(
    ("command", "most"),
    [
        ("THREAD REFERENCES UTF-8 ALL", ENVELOPES),
        ("SEARCH HEADER References nowhere", HEADERS),
        ("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (References)])", HEADERS),
        ("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (Subject)] BODY.PEEK[HEADER.FIELDS (References)])", HEADERS),
    ],
)
async def test_headers_are_looked_at_a_few_at_a_time_however_little_is_found_in_them(
    client: Client, command: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Looked(client, monkeypatch)
    assert await client.ok(command)
    assert 0 < looked.most_rows <= most


@pytest.mark.parametrize(
    "section",
    [
        "BODY.PEEK[HEADER.FIELDS (X-9999)]",
        "BODY.PEEK[HEADER.FIELDS.NOT (Subject)]",
        "BODY.PEEK[HEADER.FIELDS.NOT (Subject)]<10.500000>",
    ],
)
async def test_a_long_header_is_looked_at_in_pieces(
    client: Client, section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.append(LONG)
    await client.ok("NOOP")
    looked = Looked(client, monkeypatch)
    (line,) = await client.ok(f"FETCH {MESSAGES + 1} ({section})")
    header = LONG.removesuffix(b"body")
    if "NOT" in section:
        expected = header.partition(b"\r\n")[2]
        expected = expected[10:500_010] if "<" in section else expected
    else:
        expected = header[header.index(b"X-9999") :]
    assert line.endswith(b" {%d}\r\n%b)" % (len(expected), expected))
    assert 0 < looked.most_octets <= IMAP_HEADER_PIECE_BYTES


async def test_sorted_numbers_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def paused(_session: Any) -> None:
        nonlocal asked
        asked += 1

    monkeypatch.setattr(order, "paused", paused)
    session: Any = None
    many = 3 * order.SLICE
    assert list(await order.at_places(session, range(many), range(many - 1, -1, -1))) == list(range(many - 1, -1, -1))
    assert asked == 3


async def test_a_response_of_many_small_pieces_gives_others_their_turn(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def over(_self: Any) -> bool:
        nonlocal asked
        asked += 1
        return False

    monkeypatch.setattr(type(client.protocol), "turn_is_over", over)
    assert await write_pieces(client.protocol.session, iter([b"(1)"] * 1000))
    assert asked == 1000
