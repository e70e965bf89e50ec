"""The store as a command opens it: another process beside the server's, or the only one.

A command that root runs opens it as the owner of the data directory, so that the server can read what it creates.
"""

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from fastmta.model.errors import ConfigError
from fastmta.runtime.identity import workers_user
from fastmta.runtime.owned import acting_as_owner

if TYPE_CHECKING:
    from fastmta.config.schema import Config
    from fastmta.store import MailStore

T = TypeVar("T")


def run(config_path: str | None, work: Callable[["Config", "MailStore"], Awaitable[T]]) -> T:
    """Loads the configuration, opens the store and runs `work` with both."""
    from fastmta.config.load import load

    return run_with(load(config_path), work)


def run_with(config: "Config", work: Callable[["Config", "MailStore"], Awaitable[T]]) -> T:
    """As `run`, with a configuration that is loaded already."""
    import asyncio

    async def opened() -> T:
        store = open_store(config)
        store.attach(asyncio.get_running_loop())
        try:
            return await work(config, store)
        finally:
            store.detach()
            store.close()

    return asyncio.run(opened())


@contextmanager
def existing_store(data_directory: str) -> "Iterator[MailStore | None]":
    """The store of a data directory as it is, without a loop; None where there is none yet. Makes nothing."""
    from fastmta.store import MailStore

    if not os.path.exists(os.path.join(data_directory, "data.mdb")):
        yield None
        return
    with acting_as_owner(data_directory):
        store = MailStore.open(data_directory, create=False, gives_way=True)
    try:
        yield store
    finally:
        store.close()


def open_store(config: "Config") -> "MailStore":
    """The store of the data directory, which is made where it is missing."""
    from fastmta.store import MailStore

    directory = prepare_data_directory(config)
    with acting_as_owner(directory):
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(13, "Permission denied", directory)
        store = MailStore.open(directory, gives_way=True)
        _look_at_indexes(directory, store)
        return store


def _look_at_indexes(directory: str, store: "MailStore") -> None:
    if os.path.exists(os.path.join(directory, "index", "store")):
        from pathlib import Path

        from fastmta.index.marker import came_back

        with suppress(OSError):  # the next worker looks again
            came_back(Path(directory, "index"), store.number, store.last_txn_id)


def prepare_data_directory(config: "Config") -> str:
    """Makes the data directory if need be, private to the server's user."""
    directory = config.data_directory
    if not os.path.isdir(directory):
        os.makedirs(os.path.dirname(directory) or ".", exist_ok=True)
        os.mkdir(directory, 0o700)
        try:
            user = workers_user(config)
        except ConfigError:
            return directory  # no such user yet: root's, and `check` says so
        if user is not None:
            os.chown(directory, user.uid, user.gid)
    return directory
