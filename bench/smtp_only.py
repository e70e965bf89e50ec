"""One worker's SMTP server alone, for timing acceptance: no supervisor, no delivery, three known domains.

    python bench/smtp_only.py [--port 2600] [--data DIR] [--no-sync]

Mail for @hold.test is queued held, for @relay.test active, for @local.test put into one mailbox. The store is durable
unless --no-sync; the log goes to standard error as in production. SIGTERM ends it and prints CPU seconds and messages.
"""

import argparse
import asyncio
import resource
import signal
import tempfile
from typing import Any

import uvloop

from fastmta.config.schema import Config
from fastmta.model.envelope import LocalTarget, QueuedTarget, Resolution
from fastmta.model.reply import Reply
from fastmta.policy.limits import Limits, local_table
from fastmta.policy.networks import Networks
from fastmta.runtime.clock import SystemClock
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, local_cells
from fastmta.runtime.tasks import Sweep, Tasks
from fastmta.smtp.server import SmtpServer


class Directory:
    version = 1

    def __init__(self, mailbox: LocalTarget) -> None:
        self._mailbox = mailbox

    def resolve(self, forward_path: bytes, *, may_relay: bool) -> Resolution:
        domain = forward_path.rpartition(b"@")[2]
        if domain == b"hold.test":
            return Resolution(targets=(QueuedTarget(forward_path, b"hold:hold.test", True),))
        if domain == b"relay.test":
            return Resolution(targets=(QueuedTarget(forward_path, b"smtp:relay.test"),))
        if domain == b"local.test":
            return Resolution(targets=(self._mailbox,))
        return Resolution(Reply(550, "5.1.1", "User unknown"))

    def sender_allowed(self, login: str, reverse_path: bytes) -> bool:
        return True


class Nobody:
    def mechanisms(self, tls: bool, loopback: bool) -> tuple[str, ...]:
        return ()

    def server_context(self) -> None:
        return None


class Services:
    def __init__(self, store: Any, loop: asyncio.AbstractEventLoop) -> None:
        from fastmta._store import Store

        self.raw: Store = store
        self.store = self
        self.loop = loop
        self.config = Config(myhostname="mx.bench.test", smtpd_banner="mx.bench.test ESMTP FastMTA")
        self.cells = local_cells()
        self.log = Log(style="json")
        self.log.attach(loop, self.cells)
        self.clock = SystemClock()
        self.networks = Networks(self.config.mynetworks)
        self.limits = Limits(local_table(), self.config, self.cells)
        self.tasks = Tasks(self.log)
        self.sweep = Sweep(loop)
        self.authenticator = self.contexts = Nobody()
        account, mailbox = store.new_id(), store.new_id()
        unit = store.new_unit()
        unit.mailbox_new(mailbox, account, b"INBOX", b"", 1)
        store.commit_sync(unit)
        self.directory = Directory(LocalTarget(account, mailbox, b"user@local.test"))

    def storage_ok(self) -> bool:
        return True


async def serve(arguments: argparse.Namespace) -> None:
    from fastmta._store import Store

    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(dir=arguments.data) as directory:
        store = Store(directory, sync=not arguments.no_sync)
        services = Services(store, loop)
        store.set_metrics(services.cells, METRICS.commit_seconds.index, METRICS.commit_messages.index)
        loop.add_reader(store.event_fd, store.dispatch)
        smtp = SmtpServer(services)  # type: ignore[arg-type]
        server = await loop.create_server(smtp.factory("smtp"), "127.0.0.1", arguments.port, backlog=1024)
        lmtp = await loop.create_server(smtp.factory("lmtp"), "127.0.0.1", arguments.port + 1, backlog=1024)
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        print(f"smtp on {arguments.port}, lmtp on {arguments.port + 1}", flush=True)
        started = resource.getrusage(resource.RUSAGE_SELF)
        await stopped.wait()
        used = resource.getrusage(resource.RUSAGE_SELF)
        server.close()
        lmtp.close()
        smtp.close_all()
        loop.remove_reader(store.event_fd)
        count = services.cells[METRICS.messages_received_total]
        user, system = used.ru_utime - started.ru_utime, used.ru_stime - started.ru_stime
        each = f"{(user + system) / count * 1e6:.1f} us a message ({user / count * 1e6:.1f} user)" if count else ""
        print(f"{count} messages, CPU {user + system:.2f} s, {each}, {store.stats()}", flush=True)
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=2600)
    parser.add_argument("--data", default=None, help="directory for the store, made under it and removed at the end")
    parser.add_argument("--no-sync", action="store_true", help="commit without fdatasync")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
