"""Many seeds of the Internet in a box, on some processes: `python -m tests.simulation.run [FROM TO]`.

Prints each seed whose world broke an invariant, with what was broken, and leaves with 1 then.
"""

import argparse
import multiprocessing
import sys
import time

from tests.simulation.invariants import broken
from tests.simulation.world import World


def one(seed):
    """(seed, what is broken)."""
    try:
        return seed, broken(World(seed).run())
    except Exception as error:
        return seed, [f"{type(error).__name__}: {error}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("begin", nargs="?", type=int, default=0)
    parser.add_argument("end", nargs="?", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    asked = parser.parse_args()
    began, bad, seeds = time.monotonic(), 0, range(asked.begin, asked.end)
    with multiprocessing.get_context("fork").Pool(asked.processes, maxtasksperchild=200) as pool:
        for done, (seed, wrong) in enumerate(pool.imap_unordered(one, seeds, chunksize=4), 1):
            if wrong:
                bad += 1
                print(f"\rseed {seed}: {len(wrong)} broken\033[K", *wrong[:5], sep="\n    ", flush=True)
            if sys.stderr.isatty() or done % 500 == 0:
                rate = done / (time.monotonic() - began)
                left_s = (len(seeds) - done) / rate
                print(f"\r{done} of {len(seeds)} seeds, {bad} bad, {left_s:.0f} s left ", end="", file=sys.stderr)
    print(f"\n{len(seeds)} seeds, {len(seeds) - bad} clean, {bad} with something broken")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
