"""Instructions of a running process, counted by valgrind's callgrind.

A process is started behind `command()`, which counts nothing yet; `Counted` switches the counting on and brackets
pieces of work. Counts repeat within some tenths of a percent where CPU seconds of a shared machine vary by tens.
"""

import contextlib
import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench import native

_DUMPED_S: Final = 60.0
_SLOW: Final = "counting"  # a file: slow_clock.c
_TOTALS: Final = re.compile(r"^totals: (\d+)$", re.MULTILINE)


class Disturbed(RuntimeError):
    """A piece of work went another way than it should have: it has to be counted again."""


class Cost(NamedTuple):
    """Instructions for one operation, and how far the two lowest counts lie apart (a share of that)."""

    instructions: float
    spread: float


def missing() -> str:
    """Why nothing can be counted here; "" where it can."""
    if shutil.which("valgrind") is None or shutil.which("vgdb") is None:
        return "valgrind is not installed (apt-get install valgrind)"
    return ""


def command(directory: Path) -> list[str]:
    """What stands before a program's command line; its counts, and those of its children, go to `directory`."""
    return [
        "valgrind",
        "--tool=callgrind",
        "--instr-atstart=no",
        "--trace-children=yes",
        "--vgdb-poll=1000000",
        f"--callgrind-out-file={directory}/callgrind.%p",
        f"--log-file={directory}/valgrind.%p",
    ]


class Counted:
    """A process behind `command(directory)`. Counting begins here, and slows it down some fifty times."""

    def __init__(self, pid: int, directory: Path) -> None:
        (directory / _SLOW).touch()
        self._pid = pid
        self._dumps = (directory / f"callgrind.{pid}.{number}" for number in itertools.count(1))
        self._ask("instrumentation", "on")

    def count(self, work: Callable[[], None]) -> int:
        """Instructions while `work` ran."""
        self._ask("zero")
        work()
        self._ask("dump")
        dump = next(self._dumps)  # only now: work that was disturbed has not been dumped
        deadline = time.monotonic() + _DUMPED_S
        while not (found := _TOTALS.search(dump.read_text() if dump.exists() else "")):
            if time.monotonic() > deadline:
                raise TimeoutError(f"callgrind has not written {dump}")
            time.sleep(0.01)
        return int(found[1])

    def cost(self, work: Callable[[int], None], n: int, samples: int) -> Cost:
        """What one of the operations costs of which `work(n)` does n: thrice as many less once as many.

        What happens beside the work (a timer, a collection of garbage) only adds, so the lowest count of each is taken.
        """
        few: list[int] = []
        many: list[int] = []
        with contextlib.suppress(Disturbed):
            work(n)  # what is made once, and caches
        for _ in range(4 * samples):
            with contextlib.suppress(Disturbed):
                if len(few) < samples:
                    few.append(self.count(lambda: work(n)))
                many.append(self.count(lambda: work(3 * n)))
            if len(many) == samples:
                break
        if len(many) < samples:
            raise RuntimeError("the work went another way each time; is the machine very busy?")
        one, other = sorted(few)[:2], sorted(many)[:2]
        instructions = (other[0] - one[0]) / (2 * n)
        return Cost(instructions, (other[-1] - other[0] + one[-1] - one[0]) / (2 * n * instructions))

    def _ask(self, *words: str) -> None:
        done = subprocess.run(["vgdb", f"--pid={self._pid}", *words], capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"vgdb {' '.join(words)} ended with {done.returncode}: {done.stderr}")


def environment(directory: Path) -> dict[str, str]:
    """What makes two runs of Python execute the same: no random hashes, nothing compiled, a clock as slow as itself."""
    return {
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_PRELOAD": str(native.library("slow_clock")),
        "SLOW_CLOCK": str(directory / _SLOW),
    }
