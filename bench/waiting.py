"""What a session costs that waits for a check, and what each question costs that the check has asked the DNS.

    python -m bench.waiting [--sessions 1000] [--questions 10] [--json]

Sessions of the SMTP server in this process say MAIL, and a check of theirs waits: for nothing, or for questions that
nobody else asks, to a name server that does not answer. Bytes are those that Python's allocator has given out
(tracemalloc), after minus before, for each session: the connection is open on both sides of it. Descriptors are
counted before and while all wait. "left" is what is still there when those who waited for nothing have gone. A check
may ask its questions itself, as futures, or each in a task of its own, which costs a task more.
Bounds: 8 KB a wait, 1 KB a question, and the sockets of one resolver.
"""

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from fastmta.dns.resolver import LookupTrouble, NotFound, Resolver
from fastmta.model.limits import DNS_SOCKETS
from fastmta.model.stages import Stage
from fastmta.model.verdict import PASS, Verdict
from fastmta.policy.check import Context
from fastmta.smtp import screening
from tests.smtp.stages import STRANGER, Fixed, ask
from tests.support.dns_stub import DnsStub
from tests.support.smtp_rig import Client, SmtpRig

WAIT_BYTES: Final = 8192
QUESTION_BYTES: Final = 1024
WARM: Final = 50  # sessions before the first measure: what is loaded and grows once
FOR_EVER_S: Final = 3600.0  # the slowest machine measures in less
TURNS: Final = 100  # of the loop, in which all that can be sent is sent

Work = Callable[[Context], Awaitable[Any]]


class Waits(Fixed):
    """A check at MAIL that waits for some work."""

    def __init__(self, work: Work) -> None:
        super().__init__(Stage.MAIL)
        self._work = work

    def check(self, context: Context) -> Awaitable[Verdict]:
        return self._wait(context)

    async def _wait(self, context: Context) -> Verdict:
        try:
            await self._work(context)
        except (NotFound, LookupTrouble):
            pass
        return PASS


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _say(clients: list[Client], line: bytes) -> None:
    for client in clients:
        client.feed(line)


async def measure(sessions: int, questions: int, each_a_task: bool = False) -> dict[str, float]:
    """Bytes of one session that waits for so many questions, what is left of them afterwards, and descriptors."""
    with tempfile.TemporaryDirectory() as directory:
        rig = SmtpRig(Path(directory))
        rig.limits.exceptions = rig.limits.exceptions.__class__(("198.51.100.0/24",))
        try:
            async with DnsStub({}) as stub:
                stub.answer = lambda query: None  # type: ignore[method-assign]
                resolver = Resolver(
                    [stub.address], monotonic=time.monotonic, query_timeout_s=FOR_EVER_S, lookup_timeout_s=FOR_EVER_S
                )

                async def work(context: Context) -> None:
                    if not questions:
                        await asyncio.get_running_loop().create_future()
                    names = [f"n{n}.s{context.session}.test" for n in range(questions)]
                    if each_a_task:
                        await asyncio.gather(*map(resolver.a, names))
                        return
                    for answer in [resolver._asked(name, "A") for name in names]:
                        await answer

                ask(rig, Waits(work), delay_reject=False)
                clients = [rig.connect(ip=STRANGER).start() for _ in range(WARM + sessions)]
                warm, clients = clients[:WARM], clients[WARM:]
                _say(warm, b"MAIL FROM:<a@elsewhere.test>\r\n")
                await _turns(TURNS)
                gc.collect()
                descriptors = len(os.listdir("/proc/self/fd"))
                tracemalloc.start()
                before, _ = tracemalloc.get_traced_memory()
                _say(clients, b"MAIL FROM:<a@elsewhere.test>\r\n")
                await _turns(TURNS)
                during, _ = tracemalloc.get_traced_memory()
                opened = len(os.listdir("/proc/self/fd")) - descriptors
                if said := [text for client in clients if (text := client.take())]:
                    raise SystemExit(f"waiting: {len(said)} sessions do not wait, but say {said[0]!r}")
                for client in clients:
                    client.lose()
                del client
                clients.clear()
                await _turns(TURNS)
                gc.collect()
                after, _ = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                for client in warm:
                    client.lose()
                await resolver.close()
                await _turns(TURNS)
        finally:
            rig.close()
    return {
        "bytes_each": (during - before) / sessions,
        "left_each": (after - before) / sessions,
        "descriptors": opened,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.waiting", description="Memory of sessions that wait for checks.")
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    screening.deadline_s = lambda stage: FOR_EVER_S
    alone = asyncio.run(measure(given.sessions, 0))
    asking = asyncio.run(measure(given.sessions, given.questions))
    tasks = asyncio.run(measure(given.sessions, given.questions, each_a_task=True))
    found = {
        "wait_bytes": round(alone["bytes_each"]),
        "question_bytes": round((asking["bytes_each"] - alone["bytes_each"]) / given.questions),
        "question_in_a_task_bytes": round((tasks["bytes_each"] - alone["bytes_each"]) / given.questions),
        "left_bytes": round(alone["left_each"]),
        "descriptors": asking["descriptors"],
    }
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:26} {value:>8,}")
    fits = found["wait_bytes"] < WAIT_BYTES and found["question_bytes"] < QUESTION_BYTES
    return 0 if fits and found["descriptors"] <= DNS_SOCKETS else 1


if __name__ == "__main__":
    sys.exit(main())
