"""`make bench`: FastMTA beside its peers, in interleaved rounds, on this machine and nowhere else.

    python -m bench.run [--quick] [--json] [--rows accept-20-many,relay-20-many] [--rounds 5] [--beside TREE]

Each round measures every peer of a row once and begins with another one (A B, B A, ...): on a shared machine only
neighbours in time compare. Printed are the median with its range, the CPU seconds of all the peer's processes for 1,000
operations, and FastMTA's ratio: the median of the rounds' own ratios. All load goes to loopback, is bounded in count
and time, and everything that was started is stopped.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.peers import DovecotPeer, FastMTAPeer, NextHops, Peer, PostfixPeer, Sink
from bench.rows import ROWS, Context, Row, Sample

QUICK_SCALE = 0.2
CPU_GOAL = 0.1  # of the rows that have a goal


class Bench:
    """The peers of a run, started when a row first needs one."""

    def __init__(self, directory: Path, stack: ExitStack, scale: float, workers: int, beside: Path | None) -> None:
        self._stack = stack
        self._directory = directory
        hops = NextHops(directory)
        stack.callback(hops.stop)
        self.context = Context(hops, scale, directory)
        self._makers: dict[str, Callable[[], Peer]] = {
            "sink": lambda: Sink(directory / "ceiling"),
            "postfix": lambda: PostfixPeer(hops),
            "dovecot": DovecotPeer,
            "fastmta": lambda: FastMTAPeer(directory, hops, workers),
            "scan": lambda: FastMTAPeer(directory, hops, workers, "scan", fts=""),
        }
        if beside is not None:
            self._makers["beside"] = lambda: FastMTAPeer(directory, hops, workers, "beside", beside)
        self._running: dict[str, Peer] = {}

    def peer(self, name: str) -> Peer:
        if name not in self._running:
            started = self._makers[name]()
            self._stack.callback(started.stop)
            self._running[name] = started
        return self._running[name]

    def take(self, row: Row, rounds: int, only: set[str]) -> dict[str, list[Sample]]:
        names = [name for name in row.peers if not only or name in only]
        peers = [self.peer(name) for name in names]
        for peer in peers:
            if row.prepare is not None:
                row.prepare(peer, self.context)
        samples: dict[str, list[Sample]] = {name: [] for name in names}
        for turn in range(rounds):
            order = peers[turn % len(peers) :] + peers[: turn % len(peers)]
            for peer in order:
                if row.refresh is not None:
                    row.refresh(peer, self.context)
                sample = row.measure(peer, self.context)
                samples[peer.name].append(sample)
                extra = "".join(f" {key}={value:.2f}" for key, value in sample.extra.items())
                progress(f"  {row.key} {turn + 1}/{rounds} {peer.name}: {sample.per_second:,.0f}{extra}")
                peer.reset()
        return samples


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def summarise(row: Row, samples: dict[str, list[Sample]]) -> dict[str, Any]:
    out: dict[str, Any] = {"row": row.key, "title": row.title, "unit": row.unit, "peers": {}}
    for name, taken in samples.items():
        out["peers"][name] = {
            "per_second": spread([sample.per_second for sample in taken]),
            "cpu_s_per_1000": spread([sample.cpu_s_per_1000 for sample in taken]),
            "extra": {key: spread([sample.extra[key] for sample in taken]) for key in taken[0].extra},
        }
    reference = row.peers[0]
    if reference in samples and "fastmta" in samples:
        pairs = list(zip(samples["fastmta"], samples[reference], strict=True))
        out["ratio"] = {
            "against": reference,
            "per_second": spread([ours.per_second / theirs.per_second for ours, theirs in pairs]),
            "cpu": spread(
                [ours.cpu_s_per_1000 / theirs.cpu_s_per_1000 for ours, theirs in pairs if theirs.cpu_s_per_1000]
                or [float("nan")]
            ),
        }
        if row.goal:
            out["ratio"]["goal"] = {"per_second": row.goal, "cpu": CPU_GOAL}
    return out


def print_row(result: dict[str, Any]) -> None:
    print(f"\n{result['row']}: {result['title']}")
    for name, figures in result["peers"].items():
        rate, cpu = figures["per_second"], figures["cpu_s_per_1000"]
        print(
            f"  {name:10} {rate['median']:>9,.0f} {result['unit']:8} [{rate['low']:,.0f} to {rate['high']:,.0f}]"
            f"   CPU s/1,000: {cpu['median']:.4f} [{cpu['low']:.4f} to {cpu['high']:.4f}]"
        )
        for key, value in figures["extra"].items():
            print(f"  {'':10}   {key} {value['median']:,.2f} [{value['low']:,.2f} to {value['high']:,.2f}]")
    if "ratio" in result:
        ratio = result["ratio"]
        print(
            f"  fastmta / {ratio['against']}: rate x {ratio['per_second']['median']:.2f}"
            f" [{ratio['per_second']['low']:.2f} to {ratio['per_second']['high']:.2f}],"
            f" CPU x {ratio['cpu']['median']:.2f} [{ratio['cpu']['low']:.2f} to {ratio['cpu']['high']:.2f}]"
            + (f"; goal: {ratio['goal']['per_second']:g} and {ratio['goal']['cpu']:g}" if "goal" in ratio else "")
        )
    sys.stdout.flush()


def chosen_rows(names: str) -> list[Row]:
    if not names:
        return list(ROWS)
    known = {row.key: row for row in ROWS}
    out = []
    for name in names.split(","):
        matching = [row for key, row in known.items() if key == name or key.startswith(name + "-")]
        if not matching:
            raise SystemExit(f"bench: no row {name!r}; there are {', '.join(known)}")
        out.extend(matching)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="", help="comma-separated row names or their beginnings; default: all")
    parser.add_argument("--rounds", type=int, default=0, help="default 5, or 3 with --quick")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SCALE:g} of the messages")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--peers", default="", help="measure only these, comma-separated")
    parser.add_argument("--workers", type=int, default=1, help="FastMTA's worker processes (default 1)")
    parser.add_argument(
        "--beside", type=Path, metavar="TREE", help="FastMTA of this source tree, built in place, is the only peer"
    )
    parser.add_argument("--list", action="store_true", help="list the rows")
    options = parser.parse_args()
    if options.list:
        for row in ROWS:
            print(f"{row.key:18} {row.title} ({' / '.join(row.peers)})")
        return 0
    rows = chosen_rows(options.rows)
    if options.beside is not None:
        rows = [row._replace(peers=("beside", "fastmta")) for row in rows]
    rounds = options.rounds or (3 if options.quick else 5)
    only = {name for name in options.peers.split(",") if name}
    directory = Path(tempfile.mkdtemp(prefix="fastmta-bench-"))
    directory.chmod(0o755)  # smtp-sink runs as nobody
    results = []
    failed = []
    try:
        with ExitStack() as stack:
            bench = Bench(directory, stack, QUICK_SCALE if options.quick else 1.0, options.workers, options.beside)
            for row in rows:
                if only and not only & set(row.peers):
                    continue
                try:
                    results.append(summarise(row, bench.take(row, rounds, only)))
                except (RuntimeError, OSError, TimeoutError) as failure:
                    failed.append({"row": row.key, "error": str(failure)})
                    progress(f"  {row.key}: not measured: {failure}")
                    continue
                if not options.json:
                    print_row(results[-1])
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if options.json:
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}
        report = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine, "rounds": rounds}
        print(json.dumps({**report, "rows": results, "failed": failed}, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
