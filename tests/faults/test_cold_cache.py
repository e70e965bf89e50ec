"""A store that is far larger than the memory for its pages: who fetches cold mail keeps nobody else waiting.

    FASTMTA_LONG=1 python -m pytest tests/faults/test_cold_cache.py -s

The server runs in a memory cgroup of 256 MB, and no page of its store of 2 GB is in memory. Two clients open mailboxes
and fetch whole messages all over them, and one says NOOP. It has no short form: less memory than that the processes
themselves need, and a smaller store would fit.
"""

import imaplib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmta._mime import Structure
from tests.support.accounts import seed_accounts
from tests.support.server import Server

LONG = bool(os.environ.get("FASTMTA_LONG"))
CGROUPS = Path("/sys/fs/cgroup/memory")
MEMORY_BYTES = 256 << 20
STORE_BYTES = int(os.environ.get("FASTMTA_COLD_MB", "2048")) << 20
BODY_BYTES = 50_000
READERS = ("ann@example.test", "carl@example.test")
ALL_SECONDS = 20.0
PASSWORD = "secret"
SLOWEST_S = 0.050  # of a NOOP, p99, on a machine that is idle otherwise


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A group with so much memory, or a skip."""
    if not LONG:
        pytest.skip("it has a long form only (FASTMTA_LONG=1)")
    group = CGROUPS / f"fastmta-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup (version 1) can be made here: {error.strerror}")
    (group / "memory.limit_in_bytes").write_text(str(MEMORY_BYTES))
    yield group
    for _ in range(100):
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.1)


def fill(server: Server) -> int:
    """Files mail for both readers, straight into the store, and has it leave the memory; how many messages each has."""
    import asyncio

    from fastmta.store import MailStore

    count = STORE_BYTES // BODY_BYTES // len(READERS)
    text = random.Random(1).randbytes(35).hex().encode() + b"\r\n"
    text *= BODY_BYTES // len(text)

    async def work() -> None:
        store = MailStore.open(server.data_directory, sync=False)
        store.attach(asyncio.get_running_loop())
        for reader in READERS:
            account = store.accounts.lookup(reader)
            assert account is not None
            unit = store.new_unit()
            for n in range(count):
                body = b"Subject: letter %d\r\n\r\n" % n + b"\r\n".join(
                    text[i : i + 70] for i in range(0, len(text), 70)
                )
                structure, blob = Structure(), store.new_blob()
                blob.feed(body)
                structure.feed(body)
                unit.blob(blob)
                unit.append(account.inbox_id, blob.blob_id, b"", 0, b"", 1, 0, structure.finish())
                if n % 20 == 19 or n == count - 1:
                    await store.commit(unit)
                    unit = store.new_unit()
        store.detach()
        store.close()

    asyncio.run(work())
    fd = os.open(server.data_directory / "data.mdb", os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    return count


def read_about(server: Server, reader: str, count: int, until: float, fetched: list[int]) -> None:
    """Opens the mailbox and fetches whole messages from all over it, again and again."""
    chance = random.Random(reader)
    with imaplib.IMAP4(server.host, server.port("imap"), timeout=120) as client:
        client.login(reader, PASSWORD)
        while time.monotonic() < until:
            client.select("INBOX", readonly=True)
            for _ in range(10):
                first = chance.randrange(1, count - 8)
                kind, rows = client.fetch(f"{first}:{first + 7}", "(FLAGS BODY.PEEK[])")
                assert kind == "OK"
                fetched.append(sum(isinstance(row, tuple) for row in rows))
                if time.monotonic() > until:
                    break


def noops(server: Server, until: float) -> list[float]:
    """How long each NOOP of a session took that asks twenty times a second."""
    took = []
    with socket.create_connection((server.host, server.port("imap")), timeout=120) as sock:
        file = sock.makefile("rb")
        file.readline()
        while time.monotonic() < until:
            began = time.perf_counter()
            sock.sendall(b"a NOOP\r\n")
            assert file.readline().startswith(b"a OK")
            took.append(time.perf_counter() - began)
            time.sleep(0.05)
    return sorted(took)


@pytest.mark.timeout(1800)
def test_a_reader_of_cold_mail_keeps_nobody_waiting(tmp_path: Path, cgroup: Path) -> None:
    server = Server(tmp_path / "server", services=("imap",))
    seed_accounts(server, READERS, PASSWORD)
    count = fill(server)
    joins = str(cgroup / "cgroup.procs")
    try:
        server.start(preexec=lambda: Path(joins).write_text("0"))
        until = time.monotonic() + ALL_SECONDS
        fetched: list[int] = []
        clients = [
            threading.Thread(target=read_about, args=(server, reader, count, until, fetched)) for reader in READERS
        ]
        for client in clients:
            client.start()
        took = noops(server, until)
        for client in clients:
            client.join()
        used = int((cgroup / "memory.max_usage_in_bytes").read_text())
        faults = sum(_major_faults(pid) for pid in server.workers())
    finally:
        server.stop()
    figures = ", ".join(f"{took[int(len(took) * part)] * 1000:.1f}" for part in (0.5, 0.99, 0.9999))
    print(f"{sum(fetched)} messages of {count * len(READERS)}, {used >> 20} MB at most, {faults} major faults")
    print(f"a NOOP of {len(took)}: median, p99 and longest {figures} ms")
    assert used > MEMORY_BYTES * 0.9, "the memory was not short"
    assert sum(fetched) > 100
    assert took[int(len(took) * 0.99)] < SLOWEST_S


def _major_faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[9])
