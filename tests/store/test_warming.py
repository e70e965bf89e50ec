"""What is not in memory is read by a thread: the loop's own thread waits for no disk."""

import asyncio
import os
import resource
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastmta._mime import Structure
from fastmta._store import cold_bytes
from fastmta.imap.fetch_lines import fetch_lines, lines_in_memory
from fastmta.model.actor import Actor
from fastmta.model.errors import Cold
from fastmta.pop3.maildrop import MaildropReader
from fastmta.store import MailStore

WHOLE = 256
COUNT = 60
SIZE = 50_000
FIRST_BYTES = 131_072


def waits() -> int:
    """How often this thread has waited for the disk at a page of a map."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A store of some megabytes of which nothing is mapped, and the mailbox."""

    async def fill() -> int:
        store = MailStore.open(tmp_path)
        store.attach(asyncio.get_running_loop())
        account = await store.accounts.add("bill@example.test", "x")
        inbox = store.mailboxes.list(account.id)[0].id
        for n in range(COUNT):
            body = b"Subject: %d\r\n\r\n" % n + os.urandom(SIZE // 2).hex().encode()
            blob, structure = store.new_blob(), Structure()
            blob.feed(body)
            structure.feed(body)
            await store.mailboxes.append(inbox, blob, internal_date_s=1, structure=structure.finish())
        store.close()
        return inbox

    inbox = asyncio.run(fill())
    forget(tmp_path)
    if in_memory(tmp_path):
        pytest.skip("this file system has no page cache that lets go")
    yield tmp_path, inbox


def forget(directory: Path) -> None:
    fd = os.open(directory / "data.mdb", os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def in_memory(directory: Path) -> bool:
    """Whether the end of the file can be read without waiting."""
    fd = os.open(directory / "data.mdb", os.O_RDONLY)
    try:
        os.preadv(fd, [bytearray(4096)], os.fstat(fd).st_size // 8192 * 4096, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        os.close(fd)
    return True


def opened(directory: Path, work: Any) -> Any:
    async def scene() -> Any:
        store = MailStore.open(directory)
        store.attach(asyncio.get_running_loop())
        forget(directory)
        try:
            return await work(store)
        finally:
            store.close()

    return asyncio.run(scene())


def test_a_read_behind_need_waits_for_no_disk(filled: tuple[Path, int]) -> None:
    directory, inbox = filled

    async def work(store: MailStore) -> None:
        waited = needed = 0
        for uid in range(1, COUNT + 1):
            for offset in range(0, SIZE, 16_384):
                before = waits()
                waiting = store.mailboxes.need(inbox, uid, offset, 16_384)
                waited += waits() - before
                if waiting is not None:
                    needed += 1
                    await waiting
                before = waits()
                data = store.mailboxes.read(inbox, uid, offset, 16_384)
                waited += waits() - before
                assert data is not None and len(data) == min(
                    16_384, SIZE + len(b"Subject: %d\r\n\r\n" % (uid - 1)) - offset
                )
        assert needed > 0
        assert waited <= 2  # a page that was let go of again

    opened(directory, work)


def test_the_same_by_a_row_and_of_the_queue(filled: tuple[Path, int]) -> None:
    directory, inbox = filled

    async def work(store: MailStore) -> None:
        row = store.mailboxes.rows(inbox, array("I", [COUNT]))[0]
        for need, read in (
            (store.mailboxes.need_on(row, 0, SIZE), lambda: store.mailboxes.read_on(row, 0, SIZE)),
            (store.queue.need(row.blob_id, 0, SIZE), lambda: store.queue.read(row.blob_id, 0, SIZE)),
        ):
            assert need is not None
            await need
            before = waits()
            assert len(read() or b"") == SIZE
            assert waits() - before <= 1
        assert store.mailboxes.need_on(row, 0, SIZE) is None

    opened(directory, work)


def test_a_hot_read_gives_what_is_in_memory_and_refuses_the_rest(filled: tuple[Path, int]) -> None:
    directory, inbox = filled

    async def work(store: MailStore) -> None:
        refused = 0
        for row in store.mailboxes.rows(inbox, array("I", range(1, COUNT + 1))):
            before = waits()
            try:
                data = store.mailboxes.read_on(row, 0, SIZE, True)
            except Cold as cold:
                assert cold.places
                assert waits() - before <= 1
                refused += 1
                waiting = store.mailboxes.need_on(row, 0, SIZE)
                if waiting is not None:
                    await waiting
                data = store.mailboxes.read_on(row, 0, SIZE, True)
            assert data == store.mailboxes.read_on(row, 0, SIZE)
        assert refused > 0

    opened(directory, work)


def test_what_was_found_on_a_leaf_is_nothing_to_another_state_of_the_store(tmp_path: Path) -> None:
    async def scene() -> None:
        store = MailStore.open(tmp_path)
        store.attach(asyncio.get_running_loop())
        account = await store.accounts.add("bill@example.test", "x")
        inbox = store.mailboxes.list(account.id)[0].id
        wanted = array("I")
        for n in range(1, 201):
            blob, structure = store.new_blob(), Structure()
            body = b"Subject: %d\r\n\r\n" % n + b"x" * (n * 37 % 6000)
            blob.feed(body)
            structure.feed(body)
            await store.mailboxes.append(inbox, blob, internal_date_s=1, structure=structure.finish())
            wanted.append(n)
            if n % 7 == 0:
                await store.mailboxes.expunge(inbox, array("I", [wanted.pop(len(wanted) // 2)]), only_deleted=False)
            for items in (2, 16, WHOLE):  # FLAGS, ENVELOPE
                told, plain = b"", b""
                start = 0
                while start < len(wanted):
                    lines, start = await lines_in_memory(
                        store.mailboxes, inbox, wanted, wanted, items, start, FIRST_BYTES
                    )
                    told += lines
                start = 0
                while start < len(wanted):
                    lines, start = fetch_lines(store.mailboxes, inbox, wanted, wanted, items, start, FIRST_BYTES)
                    plain += lines
                assert told == plain
                assert told.count(b" FETCH (") >= len(wanted)
        store.close()

    asyncio.run(scene())


def test_rows_end_before_what_is_cold_and_go_on_when_it_is_there(filled: tuple[Path, int]) -> None:
    directory, inbox = filled
    uids = array("I", range(1, COUNT + 1))

    async def work(store: MailStore) -> tuple[bytes, int]:
        with pytest.raises(Cold) as cold:
            fetch_lines(store.mailboxes, inbox, uids, uids, WHOLE, 0, FIRST_BYTES, hot=True)
        assert cold.value.places
        out, start, waited = b"", 0, 0
        while start < COUNT:
            before = waits()
            lines, start = await lines_in_memory(store.mailboxes, inbox, uids, uids, WHOLE, start, FIRST_BYTES)
            waited += waits() - before
            out += lines
        return out, waited

    async def plain(store: MailStore) -> bytes:
        out, start = b"", 0
        while start < COUNT:
            lines, start = fetch_lines(store.mailboxes, inbox, uids, uids, WHOLE, start, FIRST_BYTES)
            out += lines
        return out

    warm, waited = opened(directory, work)
    assert warm == opened(directory, plain)
    assert waited < COUNT // 2  # without: a wait a page, 750


def test_nothing_is_cold_in_memory_nor_of_what_is_not_there(filled: tuple[Path, int], tmp_path: Path) -> None:
    directory, inbox = filled

    async def work(store: MailStore) -> None:
        for uid in range(1, COUNT + 1):
            while (waiting := store.mailboxes.need(inbox, uid, 0, 2 * SIZE)) is not None:
                await waiting
        assert not any(cold_bytes(store.raw, inbox, uid, 0, 0, SIZE) for uid in range(1, COUNT + 1))
        assert store.mailboxes.need(inbox, COUNT, SIZE * 2, 100) is None
        while (gone := store.mailboxes.need(inbox, COUNT + 1, 0, 100)) is not None:
            await gone
        assert store.mailboxes.read(inbox, COUNT + 1, 0, 100) is None

    opened(directory, work)
    memory = MailStore.open(tmp_path / "memory", engine="memory")
    assert cold_bytes(memory.raw, 1, 1, 0, 0, 100) == []
    memory.close()


def test_without_a_loop_nothing_is_awaited(filled: tuple[Path, int]) -> None:
    directory, inbox = filled
    store = MailStore.open(directory)
    assert store.mailboxes.need(inbox, 1, 0, SIZE) is None
    store.close()


ROWS = 3000  # on more than a hundred leaves, with gaps between uids at many of their ends


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A store with a mailbox of many small messages, of which every third was expunged."""

    async def fill() -> int:
        store = MailStore.open(tmp_path, sync=False)
        account = await store.accounts.add("bill@example.test", "x")
        inbox = account.inbox_id
        unit = store.new_unit()
        for n in range(ROWS):
            blob = store.new_blob()
            blob.feed(b"Subject: %d\r\n\r\n" % n)
            unit.blob(blob)
            unit.append(inbox, blob.blob_id, b"Return-Path: <>\r\n", 0, b"", 1, 0, b"")
            if n % 200 == 199:
                await store.commit(unit)
                unit = store.new_unit()
        await store.mailboxes.expunge(inbox, array("I", range(3, ROWS + 1, 3)), False)
        store.close()
        return inbox

    inbox = asyncio.run(fill())
    forget(tmp_path)
    if in_memory(tmp_path):
        pytest.skip("this file system has no page cache that lets go")
    yield tmp_path, inbox


def test_a_mailbox_is_looked_through_without_waiting_for_the_disk(crowded: tuple[Path, int]) -> None:
    directory, inbox = crowded

    async def work(store: MailStore) -> tuple[list[int], int, int]:
        found: list[int] = []
        waited = rounds = 0
        store.mailboxes.by_id(inbox)  # the way to the mailbox itself
        while True:
            before = waits()
            try:
                uids = store.mailboxes.summary(inbox, found[-1] if found else 0, 4000, True)[0]
            except Cold as cold:
                waited += waits() - before
                rounds += 1
                assert len(set(cold.places)) == len(cold.places)
                await store.mailboxes.bring(cold)
                continue
            waited += waits() - before
            if not uids:
                return found, waited, rounds
            found += uids

    found, waited, rounds = opened(directory, work)
    assert found == [uid for uid in range(1, ROWS + 1) if uid % 3]
    assert waited <= 2, "a page that was let go of again"
    assert 1 <= rounds < 20, "many leaves are read at once"
    print("waited", waited, "rounds", rounds)


def test_a_cold_mailbox_was_waited_for(crowded: tuple[Path, int]) -> None:
    """The measure shows it: without `hot` the same look waits at many leaves."""
    directory, inbox = crowded

    async def work(store: MailStore) -> int:
        store.mailboxes.by_id(inbox)
        before = waits()
        assert len(store.mailboxes.summary(inbox)[0]) == ROWS * 2 // 3
        return waits() - before

    assert opened(directory, work) > 20


def test_a_maildrop_is_opened_without_waiting_for_the_disk(crowded: tuple[Path, int]) -> None:
    directory, _ = crowded

    async def work(store: MailStore) -> tuple[int, int, int]:
        account = store.accounts.lookup("bill@example.test")
        assert account is not None
        opening = MaildropReader(store).open(Actor(account.id))
        waited = rounds = 0
        while True:
            before = waits()
            step = next(opening)
            waited += waits() - before
            if isinstance(step, Cold):
                rounds += 1
                await store.mailboxes.bring(step)
            elif step is not None:
                return step.live, waited, rounds

    live, waited, rounds = opened(directory, work)
    assert live == ROWS * 2 // 3
    assert rounds > 2
    assert waited <= 2


def test_a_mailbox_by_its_name_and_rows_that_will_be_changed(crowded: tuple[Path, int]) -> None:
    directory, inbox = crowded

    async def work(store: MailStore) -> None:
        account = store.accounts.lookup("bill@example.test")
        assert account is not None
        waited = rounds = 0
        uids = array("I", range(1, ROWS + 1))
        while (waiting := store.mailboxes.need_rows(inbox, uids)) is not None:
            rounds += 1
            await waiting
        before = waits()
        assert sum(1 for each in store.mailboxes.modseqs(inbox, uids) if each) == ROWS * 2 // 3
        assert len(store.mailboxes.changes(inbox, 0).uids) == ROWS * 2 // 3
        assert waits() - before <= 2
        assert 1 <= rounds < 20
        for _ in range(20):
            before = waits()
            try:
                found = store.mailboxes.hot(lambda: store.mailboxes.get(account.id, "INBOX"))
                break
            except Cold as cold:
                waited += waits() - before
                await store.mailboxes.bring(cold)
        assert found is not None and found.id == inbox
        assert waited == 0

    opened(directory, work)
