"""Times 50 KB mail in a fresh store and in one that has been through deletions, and tells whether the file grows.

First churn: 120,000 messages of 4 KB, every other expunged and reaped. The heavier one (--heavy): then three times
12,000 of 50 KB and 12,000 of 4 KB filed, of which all are expunged, then 60,000 of 4 KB. CPU is the process's, a
message; medians of rounds, which the two stores take in turns, so that what else the machine does touches both.
Figures of one run are comparable with each other only. "ratios" are the medians of the rounds' own ratios.
"""

import argparse
import json
import operator
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from fastmta._store import Store
from fastmta.model.envelope import Envelope, RecipientTail

if __package__:
    from bench.store_micro import thread_ns
else:
    from store_micro import thread_ns

ENVELOPE = msgspec.msgpack.encode(Envelope(b"sender@example.org", 1_700_000_000_000, 4096, 0, client="x[127.0.0.1]"))
TAIL = msgspec.msgpack.encode(RecipientTail(b"someone@example.net"))
STRUCTURE = b"\0" * 700
UNITS = 20  # submitted together, which one commit takes
HEAD = b"Received: from x (x [127.0.0.1])\r\n\tby y (FastMTA) with ESMTP id 0;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"


class Subject:
    """A store and a mailbox in it."""

    def __init__(self, path: str, *, sync: bool) -> None:
        self.store = Store(path, sync=sync, trash_delay_ms=0)
        self.mailbox_id = self.new_mailbox(1)
        self.path = Path(path) / "data.mdb"

    def new_mailbox(self, number: int) -> int:
        mailbox_id = self.store.new_id()
        unit = self.store.new_unit()
        unit.mailbox_new(mailbox_id, number, b"INBOX", b"", 1_700_000_000 + number)
        self.store.commit_sync(unit)
        return mailbox_id

    def file_many(self, size: int, count: int, mailbox_id: int) -> list[int]:
        """The uids of `count` messages that are filed."""
        body = (b"0123456789" * (size // 10 + 1))[:size]
        units = []
        uids = []
        for n in range(count):
            blob = self.store.new_blob()
            blob.feed(body)
            unit = self.store.new_unit()
            unit.blob(blob)
            unit.append(mailbox_id, blob.blob_id, b"Return-Path: <>\r\n", 0, b"", 1, 0, STRUCTURE)
            units.append(unit)
            if len(units) == 200 or n == count - 1:
                self.settle(units)
                uids += [unit.results[0][1] for unit in units]
                units = []
        return uids

    def settle(self, units: list[Any]) -> None:
        """Commits units that may stand in one batch."""
        for unit in units[:-1]:
            self.store.submit(unit, None)
        self.store.commit_sync(units[-1])
        while any(unit.status == 0 for unit in units):
            self.store.dispatch()
        self.store.dispatch()
        if any(unit.failure for unit in units):
            raise SystemExit(f"a unit was not committed: {units[-1].failure}")

    def expunge(self, mailbox_id: int, uids: list[int]) -> None:
        """Removes messages, and their bytes from the trash."""
        for start in range(0, len(uids), 1000):
            unit = self.store.new_unit()
            unit.expunge(mailbox_id, b"".join(uid.to_bytes(4, "little") for uid in uids[start : start + 1000]), False)
            self.settle([unit])
        while self.store.scan(21, b"", b"", 1):
            self.store.reap()

    def accept(self, size: int) -> tuple[list[Any], list[int]]:
        body = (b"0123456789" * (size // 10 + 1))[:size]
        units, ids = [], []
        for _ in range(UNITS):
            blob = self.store.new_blob()
            blob.feed(body)
            blob.head = HEAD
            queue_id = self.store.new_id()
            unit = self.store.new_unit()
            unit.blob(blob)
            unit.enqueue(queue_id, blob.blob_id, ENVELOPE)
            unit.recipient(queue_id, 0, b"smtp:example.net", 0, 1, 1_700_000_000_000, TAIL)
            units.append(unit)
            ids.append(queue_id)
        return units, ids

    def finish(self, ids: list[int]) -> None:
        units = []
        for queue_id in ids:
            unit = self.store.new_unit()
            unit.move_recipient(queue_id, 0, 1, 4, 1, 0, b"")
            units.append(unit)
        self.settle(units)

    def relay(self, size: int) -> None:
        units, ids = self.accept(size)
        self.settle(units)
        self.finish(ids)

    def local(self, size: int) -> None:
        self.file_many(size, UNITS, self.mailbox_id)


def cpu_us(work: Callable[[], None]) -> float:
    """Microseconds of CPU a message, of the committers and of who submits."""
    before = thread_ns()
    work()
    after = thread_ns()
    return sum(ns - before.get(tid, 0) for tid, ns in after.items()) / 1000 / UNITS


def measured(subjects: dict[str, Subject], size: int, rounds: int) -> dict[str, dict[str, Any]]:
    """CPU of accept, local and relay in each store, and by how much its file grew over them."""
    before = {name: subject.store.stats() for name, subject in subjects.items()}
    left: dict[str, list[int]] = {name: [] for name in subjects}
    taken: dict[tuple[str, str], list[float]] = {}

    def accept(name: str) -> None:
        units, ids = subjects[name].accept(size)
        subjects[name].settle(units)
        left[name].extend(ids)

    kinds: dict[str, Callable[[str], None]] = {
        "relay_us": lambda name: subjects[name].relay(size),
        "accept_us": accept,
        "local_us": lambda name: subjects[name].local(size),
    }
    for kind, work in kinds.items():
        for n in range(rounds):
            for name in sorted(subjects, reverse=n % 2 == 1):
                taken.setdefault((name, kind), []).append(cpu_us(partial(work, name)))
    out: dict[str, dict[str, Any]] = {}
    for name, subject in subjects.items():
        after = subject.store.stats()
        out[name] = {kind: round(statistics.median(taken[name, kind]), 1) for kind in kinds}
        out[name]["trash_rows"] = len(subject.store.scan(21, b"", b"", 10_000))
        out[name]["grown_mb"] = round((after["map_used_bytes"] - before[name]["map_used_bytes"]) / 2**20, 1)
        out[name]["free_before"] = round(before[name]["free_bytes"] / before[name]["map_used_bytes"], 3)
        out[name]["free_after"] = round(after["free_bytes"] / after["map_used_bytes"], 3)
        subject.finish(left[name])
    out["ratios"] = {
        kind: round(statistics.median(map(operator.truediv, taken["churned", kind], taken["fresh", kind])), 2)
        for kind in kinds
    }
    return out


def main() -> int:
    """Makes the stores and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=120_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--size", type=int, default=50_000)
    parser.add_argument("--heavy", action="store_true")
    parser.add_argument("--durable", action="store_true", help="with fsync")
    parser.add_argument("--dir", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        subjects = {name: Subject(f"{folder}/{name}", sync=options.durable) for name in ("fresh", "churned")}
        subject = subjects["churned"]
        box = subject.new_mailbox(2)
        uids = subject.file_many(4096, options.messages, box)
        subject.expunge(box, uids[::2])
        if options.heavy:
            part = options.messages // 10
            for _ in range(3):
                uids = subject.file_many(50_000, part, box) + subject.file_many(4096, part, box)
                subject.expunge(box, uids)
            subject.file_many(4096, options.messages // 2, box)
        out = measured(subjects, options.size, options.rounds)
        for subject in subjects.values():
            subject.store.close()
    json.dump(out, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
