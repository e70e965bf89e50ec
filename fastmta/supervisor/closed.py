"""Ends the sessions of accounts that have been disabled or deleted, within a second of it.

SMTP needs none of this: who may send is asked at each MAIL.
"""

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from fastmta.store import MailStore

AT_ONCE: Final = 256  # sessions looked at in one turn of the loop, about a millisecond


class ClosedAccounts:
    """Looks once a second, and only if the directory has changed."""

    def __init__(
        self,
        store: MailStore,
        loop: asyncio.AbstractEventLoop,
        sessions: Callable[[], list[tuple[int, Callable[[], None]]]],
    ) -> None:
        """`sessions` gives (account, what ends it) of each session that has logged in."""
        self._store = store
        self._loop = loop
        self._sessions = sessions
        self._version = store.directory_version
        self._looking = False

    def look(self) -> None:
        version = self._store.directory_version
        if version == self._version or self._looking:
            return
        self._version = version
        self._looking = True
        self._step(iter(self._sessions()), {})

    def _step(self, left: Iterator[tuple[int, Callable[[], None]]], known: dict[int, bool]) -> None:
        page = list(islice(left, AT_ONCE))
        for account_id, end in page:
            is_open = known.get(account_id)
            if is_open is None:
                account = self._store.accounts.by_id(account_id)
                is_open = known[account_id] = account is not None and account.enabled
            if not is_open:
                end()
        self._looking = len(page) == AT_ONCE
        if self._looking:
            self._loop.call_soon(self._step, left, known)
