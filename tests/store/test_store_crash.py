"""Processes that die at once, and processes that write to one store together."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastmta._store import TABLE_BLOB, TABLE_COUNTER, Store
from fastmta.store import MailStore
from fastmta.store.check import check_path
from tests.store.composing import new_mailbox

# Prints each uid after its commit has returned; dies at a point of FASTMTA_CRASH_AT, or by a signal.
WRITER = """
import sys
from fastmta._store import Store
from tests.store.composing import append, blob_of, enqueue, file, move
store = Store(sys.argv[1])
box, count, size = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
for number in range(count):
    print(file(store, box, b"%d " % number + b"x" * size), flush=True)
    queue_id = enqueue(store, 1, 2)
    move(store, queue_id, 0, 1, 2)
    if number % 2:
        move(store, queue_id, 0, 2, 4)
        move(store, queue_id, 1, 2, 5)
print("done", flush=True)
store.close()
"""


def writer(path: Path, box: int, count: int, size: int, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(box), str(count), str(size)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )


def prepare(path: Path) -> int:
    store = Store(str(path))
    box = new_mailbox(store)
    store.close()
    return box


def uids(path: Path, box: int) -> list[int]:
    mail = MailStore.open(path)
    try:
        return list(mail.mailboxes.uids(box))
    finally:
        mail.close()


@pytest.mark.parametrize("point", ["append:1", "append:12", "append:31", "commit:5", "commit:20"])
@pytest.mark.parametrize("size", [100, 400_000])
def test_a_crash_keeps_what_was_answered(tmp_path: Path, point: str, size: int) -> None:
    path = tmp_path / "store"
    box = prepare(path)
    process = writer(path, box, 200, size, FASTMTA_CRASH_AT=point)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    answered = [int(line) for line in out.split()]
    found = uids(path, box)
    assert found[: len(answered)] == answered
    assert len(found) - len(answered) <= 1  # committed, and killed before it could say so
    assert check_path(path).problems == []


def test_kill_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "store"
    box = prepare(path)
    answered = 0
    for round_number in range(4):
        process = writer(path, box, 10_000, 5000)
        assert process.stdout is not None
        for _ in range(3 + 5 * round_number):
            process.stdout.readline()
        process.kill()
        rest = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        answered += 3 + 5 * round_number + len(rest)
        assert len(uids(path, box)) >= answered
        answered = len(uids(path, box))
        assert check_path(path).problems == []


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store"
    box = prepare(path)
    processes = [writer(path, box, 40, 300_000 if number else 100) for number in range(2)]
    outs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [out.pop() for out in outs] == ["done", "done"]
    assert sorted(int(uid) for out in outs for uid in out) == list(range(1, 81))
    assert uids(path, box) == list(range(1, 81))
    report = check_path(path)
    assert (report.problems, report.messages, report.pending) == ([], 80, 0)


def test_a_reader_sees_what_another_process_committed(tmp_path: Path) -> None:
    path = tmp_path / "store"
    box = prepare(path)
    store = Store(str(path))
    before = store.last_txn_id()
    process = writer(path, box, 2, 10)
    process.communicate(timeout=60)
    assert store.last_txn_id() > before
    assert len(MailStore(store).mailboxes.uids(box)) == 2
    assert store.get(TABLE_COUNTER, b"id") is not None
    assert store.scan(TABLE_BLOB, b"") != []
    store.close()
