"""Fresh mail beside a very long queue of deferred mail: `python -m bench.backlog --directory D [--messages 1000000]`.

Two servers of one worker each, one with an empty queue and one with so many deferred recipients (a body of their own
each, due in an hour; bench/long_queue.py makes them). They get the same load in turn, rounds beginning with another:

    fresh     messages of 4 KB a second from 20 sessions to the next hop behind, and CPU for 1,000
    memory    RssAnon of the worker behind the load
    restart   from the start of the program to the first delivery of mail that was waiting, and from its being ready
    stats     CPU of `queue stats`, the command's and the server's; of a GET of /metrics, and how long it took

What the filling has left in the page cache is dropped first: the kernel keeps a file that was written in sequence in
pieces of up to 2 MB, and then looks through a whole one for each page of 4 KB that is written into it, which made a
message a third dearer here. A queue that came as mail comes is not kept so.

With --check it leaves with 1 where a goal is missed: fresh mail within 10 % by CPU, 8 MB, 1 s behind ready, 20 ms.
"""

import argparse
import asyncio
import os
import statistics
import time
import urllib.request
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench import native
from bench.long_queue import STATES, cpu_s, fill, measured
from bench.peers import Sink
from fastmta.model.envelope import Envelope, RecipientState, RecipientTail
from fastmta.store import MailStore
from tests.support.processes import rss_anon_bytes
from tests.support.server import Server

SESSIONS: Final = 20
FRESH_DOMAIN: Final = "fresh.example"
MARGIN: Final = 1.1
MEMORY_MB: Final = 8.0
FIRST_S: Final = 1.0
ASKED_S: Final = 0.020
WAIT_S: Final = 60.0
_encode: Final = msgspec.msgpack.Encoder().encode


class Load(NamedTuple):
    per_second: float
    cpu_ms: float  # a message


def server_of(directory: Path, sink: Sink) -> Server:
    settings = {
        "smtpd_client_connection_count_limit": 0,
        "transport": {FRESH_DOMAIN: f"smtp:[127.0.0.1]:{sink.port('smtp')}"},
    }
    return Server(directory, workers=1, services=("smtp", "http"), settings=settings)


def cooled(path: Path) -> None:
    """Has the kernel forget what it keeps of a file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def until_taken(sink: Sink, wanted: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while sink.received() < wanted:
        if time.monotonic() > deadline:
            raise SystemExit(f"{wanted - sink.received()} messages have not reached the next hop")
        time.sleep(0.002)


def fresh(server: Server, sink: Sink, messages: int) -> Load:
    pids, before = server.pids(), sink.received()
    cpu, began = cpu_s(pids), time.monotonic()
    native.smtp_load(
        server.port("smtp"), sessions=SESSIONS, messages=messages, size=4096, to=f"r@{FRESH_DOMAIN}", one_each=False
    )
    until_taken(sink, before + messages)
    seconds = time.monotonic() - began
    return Load(messages / seconds, (cpu_s(pids) - cpu) / messages * 1000)


async def wait_in(directory: Path, hop: bytes) -> None:
    """Queues one message that is due, while no server runs."""
    store = MailStore.open(directory)
    store.attach(asyncio.get_running_loop())
    now_ms, body = int(time.time() * 1000), b"Subject: fresh\r\n\r\ntext\r\n"
    blob = store.raw.new_blob()
    blob.feed(body)
    unit, queue_id = store.raw.new_unit(), store.raw.new_id()
    unit.blob(blob)
    unit.enqueue(queue_id, blob.blob_id, _encode(Envelope(b"s@example.test", now_ms, len(body), 0)))
    tail = _encode(RecipientTail(b"r@" + FRESH_DOMAIN.encode()))
    unit.recipient(queue_id, 0, hop, 0, int(RecipientState.ACTIVE), now_ms, tail)
    await store.commit(unit)
    store.detach()
    store.close()


def restarted(server: Server, sink: Sink) -> tuple[float, float]:
    """Seconds to the first delivery: since the program's start, and since it was ready (0: before that)."""
    server.stop()
    asyncio.run(wait_in(server.data_directory, b"smtp:[127.0.0.1]:%d" % sink.port("smtp")))
    before, began = sink.received(), time.monotonic()
    server.start()
    ready = time.monotonic()
    until_taken(sink, before + 1)
    return time.monotonic() - began, max(0.0, time.monotonic() - ready)


def asked(server: Server) -> tuple[float, float]:
    """Of one GET of /metrics: its time, and the server's CPU (medians)."""
    times, spent = [], []
    pids = server.pids()
    for _ in range(15):
        cpu, began = cpu_s(pids), time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port('http')}/metrics", timeout=WAIT_S) as answer:
            answer.read()
        times.append(time.monotonic() - began)
        spent.append(cpu_s(pids) - cpu)
    return statistics.median(times), statistics.median(spent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=Path, required=True, help="kept for a second run")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--load", type=int, default=3000, help="messages of one run of the client")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="fail where a goal is missed")
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    sink = Sink(directory / "sink")
    servers = {name: server_of(directory / name, sink) for name in ("empty", "long")}
    long_queue = servers["long"].data_directory
    if not (directory / "filled").exists():
        began = time.monotonic()
        asyncio.run(fill(long_queue, arguments.messages, [STATES["deferred"]]))
        (directory / "filled").touch()
        print(f"{arguments.messages} queued in {time.monotonic() - began:.0f} s", flush=True)
    missed = []
    cooled(long_queue / "data.mdb")
    try:
        for server in servers.values():
            server.start()
            fresh(server, sink, 1000)
        loads: dict[str, list[Load]] = {name: [] for name in servers}
        for number in range(arguments.rounds):
            for name in sorted(servers, reverse=bool(number % 2)):
                loads[name].append(fresh(servers[name], sink, arguments.load))
        memory = {name: rss_anon_bytes(server.workers()[0]) / 1e6 for name, server in servers.items()}
        for name, each in loads.items():
            rates, cpu = [one.per_second for one in each], [one.cpu_ms for one in each]
            print(
                f"{name:6} fresh {statistics.median(rates):6.0f} a second ({min(rates):.0f} to {max(rates):.0f}), "
                f"CPU {statistics.median(cpu):.3f} s for 1,000 ({min(cpu):.3f} to {max(cpu):.3f}); "
                f"RssAnon {memory[name]:.1f} MB",
                flush=True,
            )
        # The machine has other work: what a message costs is compared where its rate would be the neighbours'.
        costs = {name: statistics.median(one.cpu_ms for one in each) for name, each in loads.items()}
        if costs["long"] > costs["empty"] * MARGIN:
            missed.append(f"fresh mail costs {costs['long'] / costs['empty']:.2f} times as much")
        if memory["long"] > memory["empty"] + MEMORY_MB:
            missed.append(f"memory differs by {memory['long'] - memory['empty']:.1f} MB")
        for name, server in servers.items():
            stats = measured(server.config_path, ("stats",), server.pids(), 3)
            took, cpu_of = asked(server)
            print(
                f"{name:6} queue stats {stats.own * 1000:.0f} + {stats.server * 1000:.1f} ms CPU; "
                f"/metrics {took * 1000:.1f} ms, {cpu_of * 1000:.1f} ms CPU",
                flush=True,
            )
            if max(stats.server, cpu_of) > ASKED_S:
                missed.append(f"{name}: a question costs the server {max(stats.server, cpu_of) * 1000:.0f} ms")
        for name, server in servers.items():
            found = [restarted(server, sink) for _ in range(3)]
            whole, behind = (statistics.median(each) for each in zip(*found, strict=True))
            print(f"{name:6} first delivery {whole:.2f} s after the start, {behind:.2f} s after ready", flush=True)
            if behind > FIRST_S:
                missed.append(f"{name}: first delivery {behind:.2f} s after it was ready")
    finally:
        for server in servers.values():
            server.stop()
        sink.stop()
    print(*(f"MISSED: {each}" for each in missed), sep="\n")
    return 1 if missed and arguments.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
