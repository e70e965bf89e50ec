"""The ledger's rounds for a real Postfix: how much mail comes twice when its processes are killed at work.

In each round clients send mail for the next hop, and in the middle all smtp(8) processes and the queue manager are
killed, which master(8) starts again. Started by `python -m tests.faults.ledger --peer postfix`; needs root and
the package.
"""

import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.client import Ledger
from tests.faults.ledger import (
    REMOTES,
    answers_of,
    doubled_after_answer,
    entries_at,
    judge,
    start_clients,
    start_sink,
    stop_clients,
    summary,
)
from tests.support import postfix, processes
from tests.support.ports import wait_until_listening

KILLED = ("smtp", "qmgr")
_SETTINGS = {
    "in_flow_delay": "0",
    "local_header_rewrite_clients": "",  # it adds no fields, so the bytes can be compared
    "minimal_backoff_time": "1s",
    "maximal_backoff_time": "2s",
    "queue_run_delay": "1s",
}


def run(rounds: int, seed: int, *, load_s: float = 1.0, rate: float = 0.0) -> list[str]:
    """All rounds; gives what went wrong. Duplicates are counted and printed, and are no problem here."""
    reason = postfix.missing()
    if reason:
        return [reason]
    print(f"ledger: postfix, seed {seed}, {rounds} rounds", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="fastmta-ledger-"))
    chooser = random.Random(seed)
    ledger = Ledger(directory / "promised")
    sink_file = directory / "at-sink"
    struck: list[float] = []  # time.monotonic() of each kill
    port, sink = start_sink(sink_file)
    try:
        wait_until_listening("127.0.0.1", port)
        with postfix.Postfix({**_SETTINGS, "relayhost": f"[127.0.0.1]:{port}"}) as server:
            for number in range(rounds):
                killed = _round(server, ledger, struck, seed, number, chooser.uniform(0.2, 0.7) * load_s, load_s, rate)
                at_sink = entries_at(sink_file)
                verdict = judge(ledger.sent, ledger.promised, Counter(), at_sink)
                print(
                    f"  round {number + 1}: {killed} processes killed: so far {verdict.promised} promised,"
                    f" {verdict.at_sink} at the sink, {verdict.doubled_at_sink} doubled there"
                    f" ({doubled_after_answer(answers_of(sink_file), struck)} after their answer)",
                    flush=True,
                )
        print(f"ledger: {summary(sink_file, entries_at(sink_file), struck)}", flush=True)
        return verdict.problems(duplicates_allowed=verdict.doubled_at_sink)
    finally:
        processes.stop(sink)
        ledger.close()
        shutil.rmtree(directory, ignore_errors=True)


def _round(
    server: postfix.Postfix,
    ledger: Ledger,
    struck: list[float],
    seed: int,
    number: int,
    before_s: float,
    load_s: float,
    rate: float,
) -> int:
    """One round, until the queue is empty; how many processes were killed."""
    clients = start_clients((server.host, server.port), ledger, REMOTES, seed, number, rate)
    try:
        time.sleep(before_s)
        victims = [pid for pid in processes.tree(server.pid) if _name(pid) in KILLED]
        struck.append(time.monotonic())
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.5 * load_s)
    finally:
        stop_clients(clients)
    server.flush()
    server.wait_empty(120.0)
    return len(victims)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
