"""Services around a store, as IMAP's tests want them: a password without a hash, a clock that stands."""

import asyncio
from types import SimpleNamespace
from typing import Any

from fastmta.auth.sasl import Sasl
from fastmta.runtime.bus import MailboxNotifier
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import local_cells
from fastmta.runtime.tasks import Tasks
from fastmta.runtime.turns import Turns
from tests.support.limits import local_limits


class FakeAuthenticator:
    """`accounts`: address -> (password, account)."""

    def __init__(self) -> None:
        self.accounts: dict[str, tuple[str, Any]] = {}
        self.tries = 0

    def login_allowed(self, tls: bool, loopback: bool) -> bool:
        return tls or loopback

    def mechanisms(self, tls: bool, loopback: bool, certified: str = "") -> tuple[str, ...]:
        return ("PLAIN", "LOGIN") if self.login_allowed(tls, loopback) else ()

    def exchange(self, allowed: tuple[str, ...], certified: str = "") -> Sasl:
        return Sasl(allowed)

    def opened_by(self, credentials: Any) -> bytes:
        return b""

    def try_now(self, credentials: Any, service: str) -> Any:
        return None

    async def authenticate(self, credentials: Any, service: str, peer_ip: str) -> Any:
        self.tries += 1
        await asyncio.sleep(0)
        password, account = self.accounts.get(credentials.authcid, ("", None))
        return account if account is not None and password == credentials.password else None


class FakeSweep:
    def __init__(self) -> None:
        self.items: set[Any] = set()

    def add(self, item: Any) -> None:
        self.items.add(item)

    def discard(self, item: Any) -> None:
        self.items.discard(item)


def fake_services(store: Any, loop: asyncio.AbstractEventLoop, clock: Any, message_size_limit: int) -> Any:
    """What IMAP uses of a worker; no accounts so far."""
    log = Log(level="error")
    notifier = MailboxNotifier(loop, store.mailboxes.mark)
    store.observer = lambda mailboxes, _hops: notifier.changed(mailboxes)
    return SimpleNamespace(
        config=SimpleNamespace(message_size_limit=message_size_limit, imap_idle_notify_interval=120.0, acl_anyone=""),
        store=store,
        authenticator=FakeAuthenticator(),
        contexts=SimpleNamespace(server_context=lambda: None, login_name=lambda tls: ""),
        limits=local_limits(),
        notifier=notifier,
        cells=local_cells(),
        log=log,
        clock=clock,
        loop=loop,
        tasks=Tasks(log),
        sweep=FakeSweep(),
        turns=Turns(loop),
        storage_ok=lambda: True,
        index=None,
    )
