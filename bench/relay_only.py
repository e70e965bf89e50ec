"""How fast the queue drains into next hops that store nothing: messages a second and CPU a message.

    python -m bench.relay_only [--messages 20000] [--size 4096] [--destinations 5000] [--one-each] [--tls none]
        [--profile FILE] [--no-log]

Fills a store of its own under /tmp, starts the cheap sink on loopback, then runs one DeliveryService in this process
until the queue is empty. CPU is this process's (loop, committer and kernel), without the sink's. With `--one-each` the
sink hangs up behind each message; `--destinations` are as many addresses of loopback, each a hop of its own.
"""

import argparse
import asyncio
import cProfile
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import uvloop

from bench.peers import Sink
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

encode = msgspec.msgpack.Encoder().encode


async def fill(store: MailStore, hops: list[bytes], messages: int, size: int) -> None:
    line = b"0123456789 " * 6 + b"\r\n"
    body = (b"Subject: bench\r\n\r\n" + line * (size // len(line) + 1))[: size - 2] + b"\r\n"
    now_ms = int(time.time() * 1000)
    tail = encode(RecipientTail(b"someone@example.org"))
    envelope = encode(Envelope(b"sender@example.com", now_ms, len(body), 0))
    units = []
    for number in range(messages):
        blob = store.raw.new_blob()
        blob.feed(body)
        unit = store.raw.new_unit()
        unit.blob(blob)
        queue_id = store.raw.new_id()
        unit.enqueue(queue_id, blob.blob_id, envelope)
        unit.recipient(queue_id, 0, hops[number % len(hops)], 0, 1, now_ms, tail)
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
    places = [b"127.1.%d.%d" % (n // 250, n % 250 + 1) for n in range(options.destinations)] or [b"127.0.0.1"]
    await fill(store, [b"smtp:[%b]:%d" % (place, port) for place in places], options.messages, options.size)
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
    parser.add_argument("--destinations", type=int, default=0, help="0: one, kept busy")
    parser.add_argument("--one-each", action="store_true")
    parser.add_argument("--tls", default="none")
    parser.add_argument("--profile", default="")
    parser.add_argument("--no-log", action="store_true")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="fastmta-relay-"))
    sink = Sink(directory / "sink", *(["-o"] if options.one_each else []), tls=options.tls != "none")
    try:
        uvloop.run(drain(options, directory, sink.port("smtp")))
    finally:
        sink.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
