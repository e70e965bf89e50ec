"""A whole SMTP server without sockets: a real store, a fake directory, and connections whose transport is a list.

    rig = SmtpRig(tmp_path)
    client = rig.connect()
    assert client.say(b"EHLO me\r\n")...

`say` feeds the bytes and gives what was written, after every commit that was waited for. Time stands still unless
`rig.sweep()` moves it.
"""

import asyncio
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastmta._intake import Lines, Recipient
from fastmta.auth.sasl import Credentials, Sasl
from fastmta.config.schema import Config
from fastmta.directory.maps import TableSet
from fastmta.directory.tenants import Tenants
from fastmta.dns.resolver import Resolver
from fastmta.model.envelope import NOTIFY_NEVER, LocalTarget, QueuedTarget, Resolution
from fastmta.model.reply import Reply
from fastmta.policy.networks import Networks
from fastmta.runtime.clock import ManualClock
from fastmta.runtime.metrics import METRICS, local_cells
from fastmta.runtime.turns import Turns
from fastmta.smtp.server import SmtpServer
from fastmta.store import MailStore
from fastmta.store.queue import QueuedMessage, QueuedRecipient
from tests.support.limits import local_limits


class FakeTransport:
    """What a connection writes, and whether it reads."""

    def __init__(self, peer: Any, tls: Any = None) -> None:
        self.written: list[bytes] = []
        self.reading = True
        self.closed = False
        self.aborted = False
        self.half_closed = False
        self._extra = {"peername": peer, "ssl_object": tls, "socket": None}

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._extra.get(name, default)

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return self._extra["ssl_object"] is None

    def write_eof(self) -> None:
        self.half_closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = self.closed = True


class FakeTls:
    def version(self) -> str:
        return "TLSv1.3"

    def cipher(self) -> tuple[str, str, int]:
        return "TLS_AES_256_GCM_SHA384", "TLSv1.3", 256


class FakeLog:
    is_json = True

    def __init__(self) -> None:
        self.threshold = 10
        self.trace = None
        self.gathered = Lines(self._gather)
        self.lines: list[bytes] = []
        self.events: list[tuple[str, dict[str, Any]]] = []

    def opening(self, event: str, level: str) -> str:
        return f'{{"at":"x","level":"{level}","event":"{event}","slot":3'

    def _gather(self) -> None:
        self.lines.append(self.gathered.take())

    def info(self, event: str, /, **fields: Any) -> None:
        self.events.append((event, fields))

    debug = info
    warning = info

    def exception(self, event: str, error: BaseException, /, **fields: Any) -> None:
        raise error


class FakeDirectory:
    """example.test has the accounts given; relay.test and held.test are passed on for anybody."""

    adjusts = False

    def __init__(self) -> None:
        self.tenants = Tenants(TableSet(()), "", lambda domain: domain == "example.test")
        self.version = 1
        self.version_until = 0.0  # asked for each message
        self.accounts: dict[bytes, LocalTarget] = {}
        self.calls = 0

    def resolve(self, forward_path: bytes, *, may_relay: bool) -> Resolution:
        self.calls += 1
        local, _, domain = forward_path.lower().rpartition(b"@")
        if domain == b"example.test" or not local:
            if local == b"full":
                return Resolution(Reply(452, "4.2.2", "Mailbox is full"))
            if local == b"both":
                targets = (self.accounts[b"bill@example.test"], QueuedTarget(b"x@relay.test", b"smtp:relay.test"))
                return Resolution(targets=targets)
            target = self.accounts.get((local or domain) + b"@example.test")
            if target is None:
                return Resolution(Reply(550, "5.1.1", "User unknown"))
            return Resolution(targets=(target,))
        if domain == b"held.test":
            return Resolution(targets=(QueuedTarget(forward_path, b"hold:held.test", True),))
        if domain == b"relay.test" or may_relay:
            return Resolution(targets=(QueuedTarget(forward_path, b"smtp:" + domain),))
        return Resolution(Reply(554, "5.7.1", "Relay access denied"))

    def adjusted(
        self,
        sender: bytes,
        recipients: Sequence[Recipient],
        *,
        copies: bool = True,
        more: Sequence[bytes] = (),
        through: str = "",
    ) -> list[Recipient]:
        return [*recipients, *(Recipient(path, self.resolve(path, may_relay=True), NOTIFY_NEVER) for path in more)]

    def sender_allowed(self, login: str, reverse_path: bytes) -> bool:
        return reverse_path in (login.encode(), b"")


@dataclass
class FakeAccount:
    address: str
    id: int = 1


class FakeAuthenticator:
    """bill's password is "secret"; `slow` sends every check through the task."""

    def __init__(self) -> None:
        self.slow = False

    def mechanisms(self, tls: bool, loopback: bool, certified: str = "") -> tuple[str, ...]:
        return ("PLAIN", "LOGIN") if tls or loopback else ()

    def exchange(self, allowed: tuple[str, ...], certified: str = "") -> Sasl:
        return Sasl(allowed)

    def opened_by(self, credentials: Credentials) -> bytes:
        return b""

    def try_now(self, credentials: Credentials, service: str) -> FakeAccount | None:
        return None if self.slow else self._check(credentials)

    async def authenticate(self, credentials: Credentials, service: str, peer_ip: str) -> FakeAccount | None:
        return self._check(credentials)

    def _check(self, credentials: Credentials) -> FakeAccount | None:
        good = credentials.authcid == "bill@example.test" and credentials.password == "secret"
        return FakeAccount(credentials.authcid) if good else None


class FakeTasks:
    def __init__(self) -> None:
        self.spawned: list[Any] = []

    def spawn(self, name: str, work: Any) -> Any:
        self.spawned.append(work)
        return FakeTask()


class FakeTask:
    def cancel(self) -> None:
        pass


class FakeSweep:
    def add(self, item: Any) -> None:
        pass


class FakeContexts:
    def __init__(self) -> None:
        self.context: Any = object()

    def smtpd_context(self, *, logs_in: bool = False) -> Any:
        return self.context

    def login_name(self, tls: Any) -> str:
        return ""


class Client:
    """One connection as its client sees it."""

    def __init__(self, rig: "SmtpRig", session: Any, transport: FakeTransport) -> None:
        self.rig = rig
        self.session = session
        self.transport = transport
        self.read = 0

    def take(self) -> bytes:
        """What was written since the last time."""
        new = b"".join(self.transport.written[self.read :])
        self.read = len(self.transport.written)
        return new

    def feed(self, data: bytes) -> None:
        """Gives bytes to the session as one read; nothing is waited for."""
        self.session.data_received(data)

    def say(self, data: bytes) -> bytes:
        """One read, and all that is answered to it."""
        self.feed(data)
        self.rig.settle()
        return self.take()

    def codes(self, data: bytes) -> list[int]:
        """The codes of the replies, one for each."""
        lines = self.say(data).split(b"\r\n")
        return [int(line[:3]) for line in lines if line and line[3:4] != b"-"]

    def start(self, helo: bytes = b"EHLO client.test") -> "Client":
        self.say(helo + b"\r\n")
        return self

    def lose(self) -> None:
        self.session.connection_lost(None)

    @property
    def ended(self) -> bool:
        return self.transport.closed or self.transport.half_closed


class FakePasses:
    """The loop as turns know it. Its clock moves by `tick_ns` a look; at 0 no turn ends by itself."""

    def __init__(self) -> None:
        self.now_ns = 1
        self.tick_ns = 0
        self._due: list[Any] = []

    def look(self) -> int:
        self.now_ns += self.tick_ns
        return self.now_ns

    def call_soon(self, callback: Any) -> None:
        self._due.append(callback)

    def next(self) -> None:
        due, self._due = self._due, []
        for callback in due:
            callback()


@dataclass
class SmtpRig:
    path: Path
    config: Config = field(
        default_factory=lambda: Config(
            myhostname="mx.example.test",
            smtpd_banner="mx ESMTP",
            smtpd_authentication=False,
            smtpd_peername_lookup=False,
        )
    )

    def __post_init__(self) -> None:
        self.store = MailStore.open(self.path / "store", sync=False)
        self.raw = self.store.raw
        self.directory = FakeDirectory()
        self.clock = ManualClock()
        self.log = FakeLog()
        self.cells = local_cells()
        self.networks = Networks(self.config.mynetworks)
        self.limits = local_limits(self.config, self.cells)
        self.authenticator = FakeAuthenticator()
        self.contexts = FakeContexts()
        self.tasks = FakeTasks()
        self.full = False
        self.seconds = 1000
        self.sweep = FakeSweep()
        self.passes = FakePasses()
        self.turns = Turns(self.passes, self.passes.look)  # type: ignore[arg-type]
        self.resolver = Resolver(("127.0.0.1:1",), monotonic=time.monotonic)
        self.server = SmtpServer(self)  # type: ignore[arg-type]
        self.server.sweep(self.seconds)

    # --- the parts that the server asks for ---

    @property
    def loop(self) -> Any:
        return asyncio.get_running_loop()

    def storage_ok(self) -> bool:
        return not self.full

    async def offload(self, operation: Any, *arguments: Any) -> Any:
        return operation(*arguments)

    def connect(self, service: str = "smtp", ip: str = "127.0.0.1", *, tls: bool = False) -> Client:
        """A new connection; its greeting has been taken."""
        client = self.connect_silently(service, ip, tls=tls)
        client.greeting = client.take()  # type: ignore[attr-defined]
        return client

    def connect_silently(self, service: str = "smtp", ip: str = "127.0.0.1", *, tls: bool = False) -> Client:
        session = self.server.factory(service)()
        transport = FakeTransport((ip, 40000), FakeTls() if tls else None)
        session.connection_made(transport)
        return Client(self, session, transport)

    def pass_seconds(self, seconds: int) -> None:
        """Moves the server's clock of deadlines, a second at a time."""
        for _ in range(seconds):
            self.seconds += 1
            self.server.sweep(self.seconds)

    def settle(self) -> None:
        """Dispatches commits until none is outstanding."""
        while any(s.is_committing for host in self.server._hosts.values() for s in host.service.sessions):
            self.dispatch_once()

    def dispatch_once(self) -> None:
        ready, _, _ = select.select([self.raw.event_fd], [], [], 10)
        assert ready, "the store did not answer"
        self.raw.dispatch()

    def add_mailbox(self, address: bytes, *, quota_bytes: int = 0) -> int:
        """A mailbox for `address`, made with a unit of the store's own."""
        account_id, mailbox_id = self.raw.new_id(), self.raw.new_id()
        unit = self.raw.new_unit()
        unit.quota(account_id, quota_bytes)
        unit.mailbox_new(mailbox_id, account_id, b"INBOX", b"", 1)
        self.raw.commit_sync(unit)
        assert unit.status == 1, unit.failure
        self.directory.accounts[address] = LocalTarget(account_id, mailbox_id, address)
        self.directory.version += 1
        return mailbox_id

    def secure(self, client: Client) -> Client:
        """The client after its TLS handshake, which is taken to have succeeded."""
        self.tasks.spawned.pop().close()
        transport = FakeTransport(("127.0.0.1", 40000), FakeTls())
        client.session.tls_started(transport)
        return Client(self, client.session, transport)

    def queue(self) -> list[tuple[QueuedMessage, list[QueuedRecipient]]]:
        """Every queued message with its recipients, in the order of their arrival."""
        out: list[tuple[QueuedMessage, list[QueuedRecipient]]] = []
        after = b""
        while True:
            page, after = self.store.queue.walk(after=after)
            for message, recipient in page:
                if not out or out[-1][0].queue_id != message.queue_id:
                    out.append((message, []))
                out[-1][1].append(recipient)
            if not after:
                return out

    def blobs(self) -> list[bytes]:
        """Every stored message whole, in the order of their arrival."""
        found = {message.blob_id for message, _ in self.queue()}
        for target in self.directory.accounts.values():
            found |= {row.blob_id for row in self.store.mailboxes.rows(target.mailbox_id)}
        return [self._blob(blob_id) for blob_id in sorted(found)]

    def _blob(self, blob_id: int) -> bytes:
        out = b""
        while piece := self.store.queue.read(blob_id, len(out), 262_144):
            out += piece
        return out

    def counter(self, index: int) -> int:
        return int(self.cells[index])

    def rejected(self, reason: str) -> int:
        return int(self.cells[METRICS.messages_rejected_total[reason]])

    def close(self) -> None:
        for work in self.tasks.spawned:
            work.close()
        self.store.close()
