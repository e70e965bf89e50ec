"""Damages a store, its records and its pages, and reads all of it; see harness.py for options.

An input names places and what is written there: triples of two octets of place and one of length, then the octets. It
goes to the rows of the tables, so that every reader meets records that make no sense, or to the pages of the file, in a
process of its own, which must end by itself. What cannot be read is StorageFailure; nothing else may leave.
"""

import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from fastmta import _store
from fastmta.model.errors import StorageFailure
from fastmta.store.check import check_path, check_store
from fastmta.store.mailstore import MailStore
from fastmta.store.salvage import salvage
from tests.fuzz.harness import Target, main
from tests.store.composing import enqueue, file, new_mailbox, run

TABLES = sorted(value for name, value in vars(_store).items() if name.startswith("TABLE_") and isinstance(value, int))
PAGE = 4096
CHILD_CPU_S = 20


def edits(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 3 < len(data):
        length = data[at + 2] % 24
        yield int.from_bytes(data[at : at + 2], "big"), data[at + 3 : at + 3 + length]
        at += 3 + length


class DamagedStore(Target):
    input_bytes = 600
    corpus = (
        bytes(range(40)),
        b"\xff" * 60,
        bytes(80),
        b"\x00\x01\x08" + b"\xff" * 8,
        b"\x12\x34\x04abcd" * 4,
        b"\x91" * 30,
    )
    tokens = (b"\xff" * 8, bytes(8), b"\0\1\x08", b"\x80\0\x04", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\x91" * 20)

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.root = Path(self._directory.name)
        store = _store.Store(str(self.root / "sound"), sync=False)
        box = new_mailbox(store)
        for number in range(60):
            file(store, box, (b"Subject: %d\r\n\r\n" % number) * (1 + number % 7 * 200), keywords=b"k%d" % (number % 3))
        for number in range(20):
            enqueue(store, 1, 2, 3, hop=b"smtp:h%d" % (number % 9))
        unit = store.new_unit()
        unit.put(_store.TABLE_ALIAS, b"a@b", b"\x91\xa3c@d")
        assert run(store, unit) == ""
        store.close()
        self.number = 0

    def one(self, data: bytes) -> None:
        self.number += 1
        place = self.root / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.root / "sound", place)
        if self.number % 2:
            self._in_child(lambda: self._rows(place, data))
        else:
            size = (place / "data.mdb").stat().st_size
            with (place / "data.mdb").open("r+b") as handle:
                for where, octets in edits(data):
                    handle.seek(2 * PAGE + where * 61 % (size - 3 * PAGE))
                    handle.write(octets)
                if data[:1] > b"\xe0":
                    handle.truncate(size - (data[0] - 0xE0) * PAGE)
            self._in_child(lambda: self._read(place))

    def _in_child(self, work: Any) -> None:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(read)
                resource.setrlimit(resource.RLIMIT_CPU, (CHILD_CPU_S, CHILD_CPU_S + 1))
                work()
                os._exit(0)
            except BaseException as error:
                import traceback

                os.write(write, "".join(traceback.format_exception(error))[-3000:].encode(errors="replace"))
                os._exit(1)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        if status:
            raise AssertionError(f"status {status:#x}\n{told.decode()}")

    def _rows(self, place: Path, data: bytes) -> None:
        store = _store.Store(str(place), sync=False)
        rows = [(table, key, value) for table in TABLES for key, value in store.scan(table, b"")]
        unit = store.new_unit()
        for where, octets in edits(data):
            table, key, value = rows[where % len(rows)]
            cut = where // len(rows) % (len(value) + 1)
            unit.put(table, key, value[:cut] + octets + value[cut + len(octets) :] if where % 3 else value[:cut])
        try:
            store.commit_sync(unit)
        except StorageFailure:
            pass
        store.close()
        self._read(place)

    def _read(self, place: Path) -> None:
        try:
            mail = MailStore.open(place, sync=False)
        except StorageFailure:
            mail = None
        if mail is not None:
            for read in _reads(mail):
                try:
                    read()
                except StorageFailure:
                    continue
            try:
                check_store(mail.raw)
            except StorageFailure:
                pass
            try:
                mail.close()
            except StorageFailure:
                pass
        try:
            check_path(place)
        except StorageFailure:
            pass
        shutil.rmtree(self.root / "saved", ignore_errors=True)
        try:
            salvage(place, self.root / "saved")
        except StorageFailure:
            pass

    def close(self) -> None:
        self._directory.cleanup()


def _reads(mail: MailStore) -> list[Any]:
    raw, queue, boxes = mail.raw, mail.queue, mail.mailboxes
    every = range(256)
    found = [queue.walk, queue.counts, mail.accounts.list, mail.aliases.list, lambda: boxes.list(1)]
    found += [lambda: queue.hops(every, 2**60), lambda: queue.next_due(every)]
    found += [lambda n=n: queue.due(b"smtp:h%d" % n, 2**60, 100) for n in range(9)]
    for table in TABLES:
        found.append(lambda table=table: raw.scan(table, b""))
    by_number = [queue.message, queue.recipients, boxes.list, boxes.by_id, boxes.summary, boxes.rows, boxes.modseq]
    by_number += [mail.accounts.by_id, lambda n: queue.recipient(n, 0), lambda n: queue.read(n, 0, 1000)]
    by_number += [lambda n: boxes.read(n, 1, 0, 100)]
    found += [partial(read, number) for number in range(1, 140) for read in by_number]
    return found


if __name__ == "__main__":
    raise SystemExit(main(DamagedStore, __doc__))
