"""How fast the queue drains into one next hop that stores nothing: messages a second and CPU a message.

    python bench/relay_only.py [--messages 20000] [--size 4096] [--profile FILE] [--no-log]

Fills a store of its own under /tmp, starts Postfix's smtp-sink on loopback, then runs one DeliveryService in this
process until the queue is empty. CPU is this process's (loop, committer and kernel), without the sink's.
"""

import argparse
import asyncio
import cProfile
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import uvloop

from fastmta.config.schema import Config
from fastmta.delivery.routing import Router
from fastmta.delivery.service import DeliveryService
from fastmta.model.envelope import Envelope, RecipientTail
from fastmta.runtime.clock import SystemClock
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import local_cells
from fastmta.runtime.tasks import Sweep, Tasks
from fastmta.runtime.turns import Turns
from fastmta.store import MailStore
from fastmta.tls.contexts import Contexts

SINK = "/usr/sbin/smtp-sink"
encode = msgspec.msgpack.Encoder().encode


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def fill(store: MailStore, hop: bytes, messages: int, size: int) -> None:
    line = b"0123456789 " * 6 + b"\r\n"
    body = (b"Subject: bench\r\n\r\n" + line * (size // len(line) + 1))[: size - 2] + b"\r\n"
    now_ms = int(time.time() * 1000)
    tail = encode(RecipientTail(b"someone@example.org"))
    envelope = encode(Envelope(b"sender@example.com", now_ms, len(body), 0))
    units = []
    for _ in range(messages):
        blob = store.raw.new_blob()
        blob.feed(body)
        unit = store.raw.new_unit()
        unit.blob(blob)
        queue_id = store.raw.new_id()
        unit.enqueue(queue_id, blob.blob_id, envelope)
        unit.recipient(queue_id, 0, hop, 0, 1, now_ms, tail)
        units.append(unit)
        if len(units) == 200:
            await asyncio.gather(*(store.commit(unit) for unit in units))
            units.clear()
    await asyncio.gather(*(store.commit(unit) for unit in units))


def cpu() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


async def drain(options: argparse.Namespace, directory: Path, port: int) -> None:
    loop = asyncio.get_running_loop()
    config = Config(myhostname="bench.test", data_directory=str(directory))
    config = msgspec.structs.replace(
        config, delivery=msgspec.structs.replace(config.delivery, smtp_tls_security_level=options.tls)
    )
    store = MailStore.open(directory / "store")
    store.attach(loop)
    hop = b"smtp:[127.0.0.1]:%d" % port
    await fill(store, hop, options.messages, options.size)
    log = Log(os.open(os.devnull if options.no_log else directory / "log", os.O_WRONLY | os.O_CREAT))
    if options.no_log:
        log.set_level("error")
    cells = local_cells()
    log.attach(loop, cells)
    router = Router(config)
    services = SimpleNamespace(
        config=config,
        store=store,
        directory=None,
        router=router,
        contexts=Contexts(config.tls),
        tasks=Tasks(log),
        sweep=Sweep(loop),
        turns=Turns(loop),
        cells=cells,
        log=log,
        clock=SystemClock(),
        slot=0,
        slots=1,
        loop=loop,
        resolver=None,
    )
    service = DeliveryService(services)
    store.raw.observer = lambda mailboxes, hops: service.hops_changed(hops)
    user, system = cpu()
    started = time.perf_counter()
    profile = cProfile.Profile() if options.profile else None
    if profile:
        profile.enable()
    service.start()

    loop_cpu = time.thread_time()
    while sum(store.queue.counts().values()):  # noqa: ASYNC110 - another thread empties it
        await asyncio.sleep(0.02)
    loop_cpu = time.thread_time() - loop_cpu
    seconds = time.perf_counter() - started
    if profile:
        profile.disable()
        profile.dump_stats(options.profile)
    user, system = cpu()[0] - user, cpu()[1] - system
    n = options.messages
    stats = store.raw.stats()
    print(
        f"{n / seconds:,.0f} messages/s; CPU {(user + system) / n * 1e6:.1f} us a message "
        f"(user {user / n * 1e6:.1f}, system {system / n * 1e6:.1f}; the loop's thread {loop_cpu / n * 1e6:.1f}); "
        f"{stats['commits']} commits"
    )
    await service.stop(1)
    await services.tasks.close()
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--tls", default="may")
    parser.add_argument("--profile", default="")
    parser.add_argument("--no-log", action="store_true")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="fastmta-relay-"))
    port = free_port()
    sink = subprocess.Popen([SINK, "-u", "nobody", f"127.0.0.1:{port}", "1000"], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.3)
        uvloop.run(drain(options, directory, port))
    finally:
        sink.send_signal(signal.SIGTERM)
        sink.wait()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
