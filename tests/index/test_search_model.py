"""A search finds the same with the index and without it: while it is built, after it was cut off or damaged, over
several workers, whatever messages hold.
"""

import asyncio
import base64
import os
import quopri
import random
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from fastmta.imap import search_index
from fastmta.index import building, files, service
from fastmta.index.files import FOLDER, IndexFile
from fastmta.index.service import Indexing
from tests.imap.harness import Client, World, make_world

WORDS = [
    "Invoice",
    "straße",
    "STRASSE",
    "Привет",
    "мир",
    "漢字テスト",
    "ＡＢＣ",
    "İstanbul",
    "naïve",
    "x" * 40,
    "a b",
    "re:",
]
CHARSETS = ["utf-8", "iso-8859-1", "koi8-r", "iso-2022-jp", "windows-1251", "utf-7", "nosuch", "us-ascii"]


def text(rng: random.Random) -> str:
    words = rng.choices(WORDS, k=rng.choice((0, 1, 5, 30)))
    return "".join(word + rng.choice((" ", "\r\n", "", "-")) for word in words)


def coded(rng: random.Random, raw: bytes) -> tuple[bytes, bytes]:
    """(the transfer encoding's field, the body)."""
    kind = rng.choice(("7bit", "base64", "quoted-printable", "8bit"))
    if kind == "base64":
        raw = base64.encodebytes(raw).replace(b"\n", b"\r\n")
    elif kind == "quoted-printable":
        raw = quopri.encodestring(raw).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return b"Content-Transfer-Encoding: " + kind.encode() + b"\r\n", raw


def part(rng: random.Random) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        name = rng.choice(WORDS)
        return (
            b"Content-Type: application/pdf\r\nContent-Disposition: attachment;\r\n filename*=utf-8''"
            + quote(name).encode()
            + b"\r\n\r\n%PDF "
            + rng.randbytes(50).replace(b"--", b"..")
        )
    if kind == 1:
        return b"Content-Type: message/rfc822\r\n\r\n" + message(rng, nested=True)
    charset = rng.choice(CHARSETS)
    raw = text(rng).encode(charset if charset != "nosuch" else "utf-8", "replace")
    if kind == 2:
        raw += bytes(rng.choices(b"\x80\xff\xe9abc\xc3\xa9", k=20))
    field, body = coded(rng, raw)
    return b"Content-Type: text/plain; charset=" + charset.encode() + b"\r\n" + field + b"\r\n" + body


def message(rng: random.Random, *, nested: bool = False) -> bytes:
    subject = rng.choice(WORDS)
    if rng.random() < 0.5:
        subject = f"=?utf-8?b?{base64.b64encode(subject.encode()).decode()}?="
    header = f"From: {rng.choice('abc')}@example.test\r\nSubject: {subject}\r\n {rng.choice(WORDS)}\r\n".encode()
    if rng.random() < 0.2:
        header += b"X-Odd: \xff\xfe " + rng.choice(WORDS).encode("utf-16-le") + b"\r\n"
    if rng.random() < 0.5 or nested:
        return header + part(rng) if rng.random() < 0.9 else header
    boundary = b"b%d" % rng.randrange(10**9)
    parts = b"".join(b"--" + boundary + b"\r\n" + part(rng) + b"\r\n" for _ in range(rng.randint(1, 4)))
    return (
        header + b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n\r\n" + parts + b"--" + boundary + b"--"
    )


def needle(rng: random.Random) -> str:
    word = rng.choice([*WORDS, "example.test", "a@example", "nowhere at all", ".pdf", "base64", "invoice-invoice"])
    if rng.random() < 0.5:
        begin = rng.randrange(len(word))
        word = word[begin : begin + rng.randint(1, 6)]
    if rng.random() < 0.3:
        word = rng.choice((word.upper(), word.lower(), word + rng.choice(WORDS), f"{word} {rng.choice(WORDS)}"))
    return word


def keys(rng: random.Random) -> bytes:
    def one() -> bytes:
        raw = needle(rng).encode()
        key = rng.choice((b"BODY", b"TEXT")) + b" {%d+}\r\n" % len(raw) + raw
        return b"NOT " + key if rng.random() < 0.2 else key

    kind = rng.randrange(4)
    if kind == 0:
        return b"OR " + one() + b" " + one()
    if kind == 1:
        return one() + b" " + one()
    if kind == 2:
        return one() + b" OR UNSEEN SUBJECT invoice"
    return one()


class Workers:
    """Several workers' indexes over one store; a search asks each of them, and none."""

    def __init__(self, world: World, folder: Path, count: int) -> None:
        self.world = world
        self.log: list[tuple[str, dict[str, Any]]] = []
        config = SimpleNamespace(
            data_directory=str(folder),
            fts="trigram",
            fts_autoindex=False,
            fts_autoindex_exclude=("\\Junk", "Old*"),
            fts_autoindex_max_recent_msgs=0,
            fts_message_max_size=0,
        )
        told = {name: self._teller(name) for name in ("info", "warning", "error", "debug")}
        self.services = SimpleNamespace(**{**vars(world.services), "config": config, "log": SimpleNamespace(**told)})
        self.all = [Indexing(self.services) for _ in range(count)]
        self.folder = folder / FOLDER

    def _teller(self, level: str) -> Any:
        return lambda event, **fields: self.log.append((event, fields))

    async def settle(self) -> None:
        """Until nobody works."""
        while len(self.world.services.tasks):  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def agree(self, client: Client, search: bytes) -> list[bytes]:
        """The answer that all of them give."""
        services = self.world.services
        services.index = None
        expected = await client.ok(b"SEARCH CHARSET UTF-8 " + search)
        for each in self.all:
            services.index = each
            assert await client.ok(b"SEARCH CHARSET UTF-8 " + search) == expected, search
        return expected

    def damage(self, rng: random.Random) -> None:
        """Something bad happens to the account's file."""
        path = files.path_of(self.folder, self.world.account_id)
        if not path.exists() or not path.stat().st_size:
            return
        size = path.stat().st_size
        kind = rng.randrange(4)
        if kind == 0:
            os.truncate(path, rng.randrange(size))
        elif kind == 1:
            with path.open("r+b") as file:
                for _ in range(rng.randint(1, 8)):
                    file.seek(rng.randrange(size))
                    file.write(rng.randbytes(1))
        elif kind == 2:
            with path.open("ab") as file:
                file.write(rng.randbytes(rng.randrange(200)))
        else:
            path.unlink()

    def close(self) -> None:
        for each in self.all:
            each.close()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "INDEX_BEHIND", 2)
    monkeypatch.setattr(service, "INDEX_BEHIND", 2)
    monkeypatch.setattr(service, "INDEX_OPEN", 1)
    monkeypatch.setattr(building, "INDEX_SEGMENT_PAIRS", 800)
    monkeypatch.setattr(building, "INDEX_PIECE_MESSAGES", 3)
    monkeypatch.setattr(building, "LONGEST_REST_S", 0)
    monkeypatch.setattr(building, "PAGE", 7)
    monkeypatch.setattr(files, "INDEX_DEAD_BYTES", 1000)


@pytest_asyncio.fixture(params=["lmdb"])
async def workers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Workers]:
    world = await make_world(tmp_path, engine=request.param)
    out = Workers(world, tmp_path, 3)
    yield out
    await world.services.tasks.close()
    out.close()
    await world.close()


@pytest.mark.parametrize("seed", range(6))
async def test_an_index_never_changes_what_is_found(workers: Workers, seed: int) -> None:
    rng = random.Random(seed)
    client = await workers.world.login("INBOX")
    named = 0
    for _ in range(80):
        step = rng.randrange(10)
        if step < 4:
            for _ in range(rng.choice((1, 5))):
                await client.append(message(rng))
        elif step == 4:
            await client.do(f"STORE {rng.randint(1, 3)}:{rng.randint(3, 6)} +FLAGS.SILENT (\\Deleted)")
            await client.ok("EXPUNGE")
        elif step == 5:
            await client.do(f"{rng.choice(('COPY', 'MOVE'))} 1:{rng.randint(1, 5)} {rng.choice(('INBOX', 'Sent'))}")
        elif step == 6:
            await workers.settle()
        elif step == 7 and rng.random() < 0.4:
            workers.damage(rng)
        elif step == 8:
            rng.choice(workers.all).wanted(workers.world.inbox)
        else:
            await client.ok(f"SELECT {rng.choice(('INBOX', 'Sent'))}")
        answer = await workers.agree(client, keys(rng))
        named += len(answer[0].split()) > 2
    await workers.settle()
    for _ in range(30):
        await workers.agree(client, keys(rng))
    assert named > 5
    assert not [event for event, _ in workers.log if event in ("index.unreadable", "index.not_written", "index.stuck")]


async def filled(workers: Workers, count: int = 40, seed: int = 1) -> Client:
    rng = random.Random(seed)
    client = await workers.world.login("INBOX")
    for _ in range(count):
        await client.append(message(rng))
    return client


async def test_a_search_that_looks_through_many_messages_has_them_indexed(workers: Workers) -> None:
    client = await filled(workers)
    workers.world.services.index = workers.all[0]
    await client.ok("SEARCH BODY invoice")
    await workers.settle()
    found = await workers.all[1].find(workers.world.inbox, [("invoice", False)])
    assert found is not None
    assert found.until == 40
    reads: list[int] = []
    mailboxes = workers.world.store.mailboxes
    read = mailboxes.read
    mailboxes.read = lambda mailbox, uid, *rest: reads.append(uid) or read(mailbox, uid, *rest)
    assert await client.ok("SEARCH TEXT nowhere-at-all") == [b"* SEARCH"]
    assert await client.ok("SEARCH NOT BODY nowhere-at-all") != [b"* SEARCH"]
    assert await client.ok("SEARCH TEXT exa") != [b"* SEARCH"]  # three letters of ASCII are found exactly
    assert reads == []
    del mailboxes.read


async def test_a_few_messages_are_not_worth_an_index(workers: Workers) -> None:
    client = await filled(workers, 2)
    workers.world.services.index = workers.all[0]
    await client.ok("SEARCH BODY invoice")
    await workers.settle()
    assert not files.path_of(workers.folder, workers.world.account_id).exists()


async def test_one_worker_at_a_time_works_on_an_account(workers: Workers) -> None:
    await filled(workers)
    assert workers.all[1]._locks.acquire(workers.world.account_id)
    workers.all[0].wanted(workers.world.inbox)
    await workers.settle()
    assert not files.path_of(workers.folder, workers.world.account_id).exists()
    workers.all[1]._locks.release(workers.world.account_id)
    workers.all[0].wanted(workers.world.inbox)
    await workers.settle()
    assert files.path_of(workers.folder, workers.world.account_id).exists()


async def test_a_long_message_is_looked_through(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await workers.world.login("INBOX")
    monkeypatch.setattr("fastmta.index.texts.INDEX_TEXT_CHARS", 1000)
    for n in range(10):
        await client.append(b"Subject: s\r\n\r\n" + b"word%d " % n * (400 if n == 4 else 10))
    workers.all[0].wanted(workers.world.inbox)
    await workers.settle()
    found = await workers.all[0].find(workers.world.inbox, [("word4", False)])
    assert found is not None
    assert (list(found.skipped), list(found.words[0] or ())) == ([5], [])
    assert await workers.agree(client, b"BODY word4") == [b"* SEARCH 5"]


async def test_damage_is_told_and_the_index_made_anew(workers: Workers) -> None:
    client = await filled(workers)
    workers.all[0].wanted(workers.world.inbox)
    await workers.settle()
    path = files.path_of(workers.folder, workers.world.account_id)
    data = bytearray(path.read_bytes())
    for at in range(200, len(data), 50):
        data[at] ^= 1
    path.write_bytes(data)
    assert await workers.agree(client, b"TEXT invoice") != [b"* SEARCH"]
    assert "index.damaged" in [event for event, _ in workers.log]
    await workers.settle()
    found = await workers.all[2].find(workers.world.inbox, [("invoice", True)])
    assert found is not None
    assert found.until == 40


async def test_a_disk_that_is_nearly_full_gets_no_index(workers: Workers) -> None:
    client = await filled(workers)
    workers.services.storage_ok = lambda: False
    workers.all[0].wanted(workers.world.inbox)
    await workers.settle()
    assert not files.path_of(workers.folder, workers.world.account_id).exists()
    assert "index.no_room" in [event for event, _ in workers.log]
    await workers.agree(client, b"TEXT invoice")


class Interrupted(Exception):
    """Somebody has had enough."""


class Place:
    """Where so many pieces of work are done, and no more."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.largest_bytes = 0

    async def offload(self, work: Any, *arguments: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Interrupted
        return work(*arguments)

    def pause_now(self) -> Awaitable[None] | None:
        return None

    def seen(self) -> None:
        pass

    def has_room(self) -> bool:
        return True


async def test_what_was_built_before_an_interruption_stays(workers: Workers) -> None:
    await filled(workers)
    mailbox_id, folder = workers.world.inbox, workers.folder
    number = workers.world.store.number
    for stops_after in range(1, 12):
        file = IndexFile(folder, workers.world.account_id, number)
        before = 0
        if file.exists():
            file.refresh()
            before = file.until(mailbox_id)
        try:
            await building.build(
                mailbox_id, file, workers.world.store.mailboxes, Place(stops_after), lambda count: None
            )
        except Interrupted:
            pass
        file.refresh()
        assert file.until(mailbox_id) >= before
        file.close()
    client = await workers.world.login("INBOX")
    rng = random.Random(5)
    for _ in range(20):
        await workers.agree(client, keys(rng))


async def test_mail_that_came_is_indexed_where_that_is_asked_for(workers: Workers) -> None:
    await filled(workers)
    worker, world = workers.all[0], workers.world
    path = files.path_of(workers.folder, world.account_id)
    for name, special in (("Older", ""), ("Spam", "\\Junk")):
        box = await world.store.mailboxes.create(world.account_id, name, special)
        await world.store.mailboxes.copy(world.inbox, world.store.mailboxes.uids(world.inbox), box.id)
        worker.came([(box.id, 9)])
        worker.tick()
        await workers.settle()
        assert not path.exists()
    worker.came([(world.inbox, 1), (12345, 1)])
    worker.tick()
    await workers.settle()
    assert path.exists()
    written = path.stat().st_mtime_ns
    worker.came([(world.inbox, 2)])
    worker.tick()
    await workers.settle()
    assert path.stat().st_mtime_ns == written
    workers.services.config.fts_autoindex_max_recent_msgs = 3
    client = await filled(workers, 5, seed=7)
    await client.ok("UNSELECT")
    await filled(workers, 5, seed=8)
    box = world.store.mailboxes.by_id(world.inbox)
    assert worker._is_excluded(box) == (box.uid_next - box.recent_uid > 3)


async def test_an_index_that_cannot_be_read_or_written_fails_no_search(workers: Workers) -> None:
    client = await filled(workers)
    path = files.path_of(workers.folder, workers.world.account_id)
    path.mkdir()
    assert await workers.agree(client, b"TEXT invoice") != [b"* SEARCH"]
    await workers.settle()
    assert {"index.unreadable", "index.not_written"} <= {event for event, _ in workers.log}


async def test_a_message_over_the_largest_size_is_found_all_the_same(workers: Workers) -> None:
    client = await filled(workers)
    mailbox_id = workers.world.inbox
    file = IndexFile(workers.folder, workers.world.account_id, workers.world.store.number)
    place = Place(10_000)
    place.largest_bytes = 1
    mailboxes = workers.world.store.mailboxes
    await building.build(mailbox_id, file, mailboxes, place, lambda count: None)
    file.close()
    found = await workers.all[0].find(mailbox_id, [("invoice", False)])
    assert found is not None
    assert found.skipped == mailboxes.uids(mailbox_id)
    assert await workers.agree(client, b"TEXT invoice") != [b"* SEARCH"]
