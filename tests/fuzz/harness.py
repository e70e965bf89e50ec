"""What every fuzz target shares: seeded mutation of a corpus, and a budget of time and memory for each input.

    python tests/fuzz/fuzz_NAME.py [--seconds 10] [--seed N] [--input FILE]

A target is a `Target`: a corpus, tokens to mix in, and `one`, which raises where an input is answered wrongly. Inputs
are changed octet by octet, by tokens, by pieces of each other, and by pieces repeated up to the size limit, which is
what brings out work that is not linear. An input over its budget is run again twice: only what is slow each time
counts, so a busy machine changes nothing (it is CPU time, too). The input under way lies in a file whose name is
printed, should the process die of it; a failure prints it.
"""

import argparse
import asyncio
import faulthandler
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CPU_S = 0.25  # for any input, and in addition
CPU_S_OCTET = 8e-6  # for each of its octets
RSS_BYTES = 48 << 20  # that one input may add to the highest so far
LEAK_BYTES = 64 << 20  # that all inputs behind the first hundred may leave
HANG_S = 120


class Target:
    """One thing that takes octets from strangers."""

    input_bytes = 65_536
    corpus: tuple[bytes, ...]
    tokens: tuple[bytes, ...] = ()

    def one(self, data: bytes) -> None:
        """Gives it one input; raises where the answer is not among those allowed."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends what the target started."""


class AsyncTarget(Target):
    """A target that needs a loop: `hold` is run on it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self.start())

    async def start(self) -> None:
        """Makes what `hold` uses."""

    async def hold(self, data: bytes) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        """Ends it."""

    def one(self, data: bytes) -> None:
        self._runner.run(self.hold(data))

    def close(self) -> None:
        self._runner.run(self.stop())
        self._runner.close()


class Mutator:
    """Makes inputs out of a corpus, the same ones for the same seed."""

    def __init__(self, target: Target, seed: int) -> None:
        self._random = random.Random(seed)
        self._corpus = list(target.corpus)
        self._tokens = (*target.tokens, *(bytes((octet,)) for octet in b'\r\n\0 "\\()<>@,;:=.{}*%\t\xff'), b"\r\n")
        self._limit = target.input_bytes

    def next(self) -> bytes:
        source = self._random
        out = bytearray(source.choice(self._corpus))
        for _ in range(source.randrange(1, 6)):
            at = source.randrange(len(out) + 1)
            match source.randrange(8):
                case 0:
                    del out[at : at + source.randrange(1, 20)]
                case 1 | 2:
                    out[at:at] = source.choice(self._tokens)
                case 3:
                    out[at : at + 1] = bytes((source.randrange(256),))
                case 4:
                    start = source.randrange(len(out) + 1)
                    out[at:at] = out[start : start + source.randrange(1, 200)]
                case 5:
                    other = source.choice(self._corpus)
                    start = source.randrange(len(other) + 1)
                    out[at:at] = other[start : start + source.randrange(1, 400)]
                case _:
                    piece = bytes(out[at : at + source.randrange(1, 12)]) or source.choice(self._tokens)
                    most = max(1, self._limit // len(piece)) if source.randrange(12) == 0 else 64
                    out[at:at] = piece * source.randrange(1, most + 1)
        data = bytes(out[: self._limit])
        if len(data) < 3000 and source.randrange(10) == 0:
            self._corpus[source.randrange(len(self._corpus))] = data
        return data


def within_budget(target: Target, data: bytes) -> None:
    """Runs one input and raises where it takes more than it may."""
    highest = _highest_rss()
    allowed = CPU_S + CPU_S_OCTET * len(data)
    began = time.process_time()
    target.one(data)
    used = time.process_time() - began
    for _ in range(2):
        if used <= allowed:
            break
        began = time.process_time()
        target.one(data)
        used = min(used, time.process_time() - began)
    if used > allowed:
        raise AssertionError(f"{len(data)} octets took {used:.2f} s of CPU, not {allowed:.2f}")
    if _highest_rss() - highest > RSS_BYTES:
        raise AssertionError(f"{len(data)} octets took {(_highest_rss() - highest) >> 20} MB")


def _highest_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main(make: Callable[[], Target], description: str) -> int:
    """The program of a target."""
    options = argparse.ArgumentParser(description=description.split("\n")[0])
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31))
    options.add_argument("--mutate", action="store_true", help="what is done in any case")
    options.add_argument("--input", type=Path, help="one input instead")
    arguments = options.parse_args()
    target: Any = make()
    if arguments.input is not None:
        within_budget(target, arguments.input.read_bytes())
        target.close()
        return 0
    mutator = Mutator(target, arguments.seed)
    under_way = os.open(Path(tempfile.gettempdir()) / f"fuzz-input-{os.getpid()}", os.O_RDWR | os.O_CREAT, 0o600)
    name = f"{tempfile.gettempdir()}/fuzz-input-{os.getpid()}"
    for data in target.corpus:
        target.one(data)
    end = time.monotonic() + arguments.seconds
    count = octets = settled = 0
    while time.monotonic() < end:
        data = mutator.next()
        os.ftruncate(under_way, 0)
        os.pwrite(under_way, data, 0)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        try:
            within_budget(target, data)
        except BaseException:
            print(f"seed {arguments.seed}, input {count}, kept in {name}:\n{data[:2000]!r}", file=sys.stderr)
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
        count += 1
        octets += len(data)
        if count == 100:
            settled = _rss()
    left = _rss() - settled if settled else 0
    target.close()
    os.close(under_way)
    os.unlink(name)
    print(
        f"{count} inputs, {octets >> 10} KiB, {left >> 20} MB more than behind the first hundred, seed {arguments.seed}"
    )
    if left > LEAK_BYTES:
        print("the memory of these inputs does not come back", file=sys.stderr)
        return 1
    return 0
