"""Times the store alone: units a second and CPU a unit, by submitters, beside a busy loop, in several processes.

Every unit is durable. Figures of one run are comparable with each other only: disk and machine decide the rest.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from fastmta._store import Store
from fastmta._unit import Unit
from fastmta.model.envelope import Envelope, RecipientTail

ENVELOPE = msgspec.msgpack.encode(Envelope(b"sender@example.org", 1_700_000_000_000, 4096, 0, client="x[127.0.0.1]"))
TAIL = msgspec.msgpack.encode(RecipientTail(b"someone@example.net"))
BODY = b"Received: from x by y; now\r\n" + b"0123456789" * 407
HOP = b"smtp:example.net"
STRUCTURE = b"\0" * 700


class Accept:
    """A 4 KB message with one queued recipient."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def unit(self) -> tuple[Unit, int]:
        store = self.store
        blob = store.new_blob()
        blob.feed(BODY)
        queue_id = store.new_id()
        unit = store.new_unit()
        unit.blob(blob)
        unit.enqueue(queue_id, blob.blob_id, ENVELOPE)
        unit.recipient(queue_id, 0, HOP, 0, 1, 1_700_000_000_000, TAIL)
        return unit, queue_id


class Relay(Accept):
    """The same, and then its delivery: two units in turn, counted as one."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.accepted: list[int] = []

    def unit(self) -> tuple[Unit, int]:
        if len(self.accepted) >= 64:
            queue_id = self.accepted.pop(0)
            unit = self.store.new_unit()
            unit.move_recipient(queue_id, 0, 1, 4, 1, 0, b"")
            return unit, 0
        unit, queue_id = super().unit()
        return unit, queue_id


class Deliver(Accept):
    """A 4 KB message into one of a hundred mailboxes."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.mailboxes = [store.new_id() for _ in range(100)]
        unit = store.new_unit()
        for number, mailbox_id in enumerate(self.mailboxes):
            unit.mailbox_new(mailbox_id, mailbox_id, b"INBOX", b"", 1_700_000_000 + number)
        store.commit_sync(unit)
        self.turn = 0

    def unit(self) -> tuple[Unit, int]:
        store = self.store
        blob = store.new_blob()
        blob.feed(BODY)
        self.turn += 1
        unit = store.new_unit()
        unit.blob(blob)
        unit.append(self.mailboxes[self.turn % 100], blob.blob_id, b"Return-Path: <>\r\n", 0, b"", 1, 0, STRUCTURE)
        return unit, 0


KINDS = {"accept": Accept, "relay": Relay, "deliver": Deliver}


def thread_ns() -> dict[int, int]:
    """CPU nanoseconds of each thread of this process."""
    out = {}
    for entry in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{entry}/schedstat") as file:
            out[int(entry)] = int(file.read().split()[0])
    return out


async def run(store: Store, kind: str, submitters: int, seconds: float, busy: bool) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    loop.add_reader(store.event_fd, store.dispatch)
    work = KINDS[kind](store)
    done = 0
    waiting = 0
    stopping = False
    finished: asyncio.Future[None] = loop.create_future()
    latencies: list[float] = []

    def submit() -> None:
        nonlocal waiting
        unit, queue_id = work.unit()
        started = time.perf_counter()
        waiting += 1

        def committed(unit: Unit) -> None:
            nonlocal done, waiting
            waiting -= 1
            if unit.status != 1:
                raise SystemExit(f"a unit was not committed: {unit.failure}")
            done += 1
            latencies.append(time.perf_counter() - started)
            if queue_id and isinstance(work, Relay):
                work.accepted.append(queue_id)
            if not stopping:
                submit()
            elif waiting == 0 and not finished.done():
                finished.set_result(None)

        store.submit(unit, committed)

    spins = 0

    def spin() -> None:
        nonlocal spins
        until = time.perf_counter() + 0.0005
        while time.perf_counter() < until:
            pass
        spins += 1
        if not stopping:
            loop.call_soon(spin)

    before, commits, started = thread_ns(), store.stats()["commits"], time.perf_counter()
    for _ in range(submitters):
        submit()
    if busy:
        loop.call_soon(spin)
    await asyncio.sleep(seconds)
    stopping = True
    await finished
    took = time.perf_counter() - started
    after = thread_ns()
    loop.remove_reader(store.event_fd)
    main = os.getpid()
    committer_ns = sum(ns - before.get(tid, 0) for tid, ns in after.items() if tid != main)
    count = done / 2 if kind == "relay" else done
    latencies.sort()
    return {
        "kind": kind,
        "submitters": submitters,
        "busy_loop": busy,
        "units_per_s": round(count / took),
        "units_per_commit": round(done / max(1, store.stats()["commits"] - commits), 1),
        "committer_cpu_us": round(committer_ns / 1000 / max(1, count), 1),
        "loop_cpu_us": None if busy else round((after[main] - before[main]) / 1000 / max(1, count), 1),
        "latency_ms_p50": round(latencies[len(latencies) // 2] * 1000, 2),
        "latency_ms_p99": round(latencies[len(latencies) * 99 // 100] * 1000, 2),
    }


def one(path: str, kind: str, submitters: int, seconds: float, busy: bool) -> dict[str, Any]:
    store = Store(path)
    try:
        return uvloop.run(run(store, kind, submitters, seconds, busy))
    finally:
        store.close()


def several(path: str, processes: int, seconds: float) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        parts = pool.starmap(one, [(path, "accept", 20, seconds, False)] * processes)
    return {
        "kind": f"accept, {processes} processes of 20 submitters",
        "units_per_s": sum(part["units_per_s"] for part in parts),
        "units_per_commit": round(sum(part["units_per_commit"] for part in parts) / processes, 1),
        "committer_cpu_us": round(sum(part["committer_cpu_us"] for part in parts) / processes, 1),
        "loop_cpu_us": round(sum(part["loop_cpu_us"] for part in parts) / processes, 1),
        "latency_ms_p99": max(part["latency_ms_p99"] for part in parts),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--dir", type=Path, help="where the stores are made (a real disk)")
    parser.add_argument("--only", choices=sorted(KINDS), help="one kind, 20 submitters")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    plans = [
        ("accept", 1, False),
        ("accept", 20, False),
        ("accept", 64, False),
        ("accept", 64, True),
        ("accept", 1, True),
        ("relay", 20, False),
        ("relay", 64, False),
        ("deliver", 20, False),
    ]
    if options.only:
        plans = [(options.only, 20, False), (options.only, 64, False)]
    for kind, submitters, busy in plans:
        folder = tempfile.mkdtemp(dir=options.dir)
        try:
            rows.append(one(folder, kind, submitters, options.seconds, busy))
        finally:
            shutil.rmtree(folder)
        if not options.json:
            print(rows[-1], flush=True)
    for processes in () if options.only else (1, 2, 4):
        folder = tempfile.mkdtemp(dir=options.dir)
        try:
            rows.append(several(folder, processes, options.seconds))
        finally:
            shutil.rmtree(folder)
        if not options.json:
            print(rows[-1], flush=True)
    if options.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
