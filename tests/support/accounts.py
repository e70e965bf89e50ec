"""Accounts by the thousand for a server that is down: one password hash for all, straight into the store.

The command line makes one account a call, each with its own hash; that is the right thing and too slow for these.
"""

import asyncio
from collections.abc import Iterable

from tests.support.server import Server


def seed_accounts(server: Server, addresses: Iterable[str], password: str) -> None:
    """Adds `addresses`, all with `password`, to the store of a server that does not run."""
    from fastmta.auth.passwords import hash_password
    from fastmta.store import MailStore

    digest = hash_password(password)

    async def add_all() -> None:
        store = MailStore.open(server.data_directory, sync=False)
        store.attach(asyncio.get_running_loop())
        try:
            for address in addresses:
                await store.accounts.add(address, digest)
        finally:
            store.detach()
            store.close()

    asyncio.run(add_all())
