"""What a worker's parts are built from: one record, given to every server of the worker.

Each room declares, as Protocols beside their users, the few of these that it takes. A reload replaces `config`,
`router`, `directory`, `networks` and `authenticator` here and then calls `reload` of every server; the rest lives as
long as the worker.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastmta.auth.authenticator import Authenticator
from fastmta.auth.passwords import PasswordChecker
from fastmta.config.schema import Config
from fastmta.delivery.routing import Router
from fastmta.directory.recipients import Directory
from fastmta.dns.resolver import Resolver
from fastmta.index.service import Indexing
from fastmta.policy.limits import Limits
from fastmta.policy.networks import Networks
from fastmta.policy.site import SitePolicy
from fastmta.policy.verification import Verifier
from fastmta.runtime.aside import Aside
from fastmta.runtime.bus import Bus, MailboxNotifier
from fastmta.runtime.clock import Clock
from fastmta.runtime.launching import Launcher
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import Cells
from fastmta.runtime.tasks import Sweep, Tasks
from fastmta.runtime.turns import Turns
from fastmta.store import MailStore
from fastmta.store.accounts import Account
from fastmta.tls.contexts import Contexts


@dataclass(slots=True)
class Services:
    """The parts of one worker that its servers share."""

    config: Config
    store: MailStore
    directory: Directory
    router: Router
    authenticator: Authenticator[Account]
    passwords: PasswordChecker
    contexts: Contexts
    networks: Networks
    limits: Limits
    notifier: MailboxNotifier
    bus: Bus
    cells: Cells
    log: Log
    clock: Clock
    slot: int
    slots: int
    loop: asyncio.AbstractEventLoop
    tasks: Tasks
    sweep: Sweep
    turns: Turns
    storage_ok: Callable[[], bool]
    resolver: Resolver
    launcher: Launcher
    site_policy: SitePolicy
    index: Indexing | None  # the text index, where there is one
    verifier: Verifier
    aside: Aside

    def offload(self, operation: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        """The result of a short operation that would hold the loop."""
        return self.aside.run(operation, *arguments)
