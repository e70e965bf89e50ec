"""A delivery service over a real store, with a clock that the test turns."""

import asyncio
import json
import os
from types import SimpleNamespace

import msgspec
import pytest

from fastmta.config.schema import Config
from fastmta.delivery.routing import Router
from fastmta.delivery.service import DeliveryService
from fastmta.dns.resolver import Resolver
from fastmta.model.envelope import Envelope, Lane, QueuedTarget, RecipientState, RecipientTail, Resolution
from fastmta.model.reply import Reply
from fastmta.runtime.clock import ManualClock
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, local_cells
from fastmta.runtime.tasks import Sweep, Tasks
from fastmta.runtime.turns import Turns
from fastmta.store import MailStore
from fastmta.tls.contexts import Contexts


class Directory:
    """Senders at a.test have a mailbox, or go on to `hop`; nobody else is known."""

    srs = None
    adjusts = False

    def __init__(self, router):
        self.router = router
        self.mailboxes = {}

    def is_ours(self, domain):
        return domain in ("mx.test", "a.test")

    def resolve(self, forward_path, *, may_relay):
        target = self.mailboxes.get(forward_path)
        if target is not None:
            return Resolution(targets=(target,))
        if forward_path.endswith(b"@a.test"):
            return Resolution(targets=(QueuedTarget(forward_path, b"smtp:[127.0.0.1]:1", held=True),))
        return Resolution(refusal=Reply(550, "5.1.1", "unknown"))


async def offload(operation, *arguments):
    await asyncio.sleep(0)
    return operation(*arguments)


class Rig:
    """The service, and short words for what tests do with it."""

    def __init__(self, tmp_path, loop, **delivery):
        self.clock = ManualClock()
        top = {"myorigin": "mx.test", **delivery.pop("top", {})}  # keys that stand in no table
        config = Config(myhostname="mx.test", mydestination=("mx.test",), **top)
        for name in ("initial_destination_concurrency", "default_destination_concurrency_limit"):
            if name in delivery:  # as the configuration's defaults do it
                delivery.setdefault(f"smtp_{name.removeprefix('default_')}", delivery[name])
        config = msgspec.structs.replace(config, shaping=tuple(delivery.pop("shaping", ())))
        delivery = {"smtp_tls_security_level": "none", "smtp_helo_name": "mx.test", **delivery}
        dns = msgspec.structs.replace(config.dns, nameservers=delivery.pop("nameservers", ("127.0.0.1:1",)))
        config = msgspec.structs.replace(config, data_directory=delivery.pop("data_directory", str(tmp_path)))
        tls = msgspec.structs.replace(config.tls, smtp_tls_CAfile=delivery.pop("authorities", ""))
        config = msgspec.structs.replace(config, tls=tls)
        listen = msgspec.structs.replace(config.listen, smtp=delivery.pop("listen", ()))
        self.config = msgspec.structs.replace(
            config, delivery=msgspec.structs.replace(config.delivery, **delivery), dns=dns, listen=listen
        )
        self.store = MailStore.open(tmp_path / "store", sync=False, map_size_bytes=1 << 28, clock=self.clock)
        self.store.attach(loop)
        self._log_path = tmp_path / "log"
        self._log_fd = os.open(self._log_path, os.O_WRONLY | os.O_CREAT)
        log = Log(self._log_fd)
        self.directory = Directory(Router(self.config))
        self.services = SimpleNamespace(
            config=self.config,
            store=self.store,
            directory=self.directory,
            router=self.directory.router,
            contexts=Contexts(self.config.tls),
            tasks=Tasks(log),
            sweep=Sweep(loop),
            turns=Turns(loop),
            cells=local_cells(),
            log=log,
            clock=self.clock,
            slot=0,
            slots=1,
            loop=loop,
            resolver=Resolver((), monotonic=self.clock.monotonic),
            offload=offload,
        )
        self.service = DeliveryService(self.services)
        self.store.raw.observer = lambda mailboxes, hops: self.service.hops_changed(hops)

    async def queue(self, hop, *recipients, body=b"Subject: x\r\n\r\nbody\r\n", sender=b"s@a.test", **envelope):
        """Queues one message; gives its id."""
        blob = self.store.raw.new_blob()
        blob.feed(body)
        now_ms = int(self.clock.now() * 1000)
        fields = {"bits": 0, "received_at_ms": now_ms, **envelope}
        rows = [
            (
                hop,
                int(Lane.SMALL),
                int(RecipientState.ACTIVE),
                now_ms,
                r if isinstance(r, RecipientTail) else RecipientTail(r),
            )
            for r in recipients or (b"r@b.test",)
        ]
        return await self.store.queue.add(Envelope(sender, size_bytes=len(body), **fields), rows, blob)

    async def until(self, condition):
        """Looks again after each turn of the loop and each commit; the test's own timeout bounds it."""
        while not condition():  # noqa: ASYNC110 - what is waited for may be in the store, a socket or the service
            await asyncio.sleep(0.001)

    async def gone(self, queue_id):
        """Until the message has left the queue, and the service has been told so: its log and counts come behind."""
        await self.until(lambda: self.store.queue.message(queue_id) is None and not self.service.unrecorded)

    async def settled(self):
        """Until nothing is in flight or on its way to the store."""
        await self.until(
            lambda: (
                not self.service.unrecorded
                and not any(owner.book.in_flight or owner.ready for owner in self.service._owners.values())
            )
        )

    def rows(self, queue_id):
        return self.store.queue.recipients(queue_id)

    def everything(self):
        return self.store.queue.walk()[0]

    def tick(self, seconds=0.0):
        self.clock.advance(seconds)
        self.service._timer.cancel()
        self.service._tick()

    def count(self, transport, result):
        return self.services.cells[METRICS.deliveries_total[transport, result]]

    def log(self):
        return [json.loads(line) for line in self._log_path.read_bytes().splitlines()]

    async def close(self):
        await self.service.stop(1.0)
        await self.services.tasks.close()
        self.services.sweep.close()
        self.store.close()
        os.close(self._log_fd)


@pytest.fixture
async def make_rig(tmp_path):
    rigs = []

    def make(**options):
        rig = Rig(tmp_path, asyncio.get_running_loop(), **options)
        rig.service.start()
        rigs.append(rig)
        return rig

    yield make
    for rig in rigs:
        await rig.close()


@pytest.fixture
async def rig(make_rig):
    return make_rig()
