"""Ends the sessions of accounts that have been disabled or deleted, and those that were opened by an app password which
was revoked, or by a master user who was disabled or deleted, within a second of it.

Of SMTP it needs only the latter: who may send is asked at each MAIL.
"""

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from fastmta.store import MailStore

#: An account, the mark of the app password or master user that opened the session or b"", and what ends it with a word.
LoggedIn = tuple[int, bytes, Callable[[], object]]
AT_ONCE: Final = 256  # sessions looked at in one turn of the loop, about a millisecond


class ClosedAccounts:
    """Looks once a second, and only if the directory has changed."""

    def __init__(
        self,
        store: MailStore,
        loop: asyncio.AbstractEventLoop,
        sessions: Callable[[], list[LoggedIn]],
    ) -> None:
        """`sessions` gives those that have logged in."""
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

    def _step(self, left: Iterator[LoggedIn], known: dict[int | bytes, bool]) -> None:
        page = list(islice(left, AT_ONCE))
        for account_id, mark, end in page:
            is_open = self._is_open(account_id, known)
            if is_open and mark:
                if mark not in known:
                    known[mark] = self._store.credentials.still_opens(mark)
                is_open = known[mark] and self._is_open(self._store.credentials.account_of(mark), known)
            if not is_open:
                end()
        self._looking = len(page) == AT_ONCE
        if self._looking:
            self._loop.call_soon(self._step, left, known)

    def _is_open(self, account_id: int, known: dict[int | bytes, bool]) -> bool:
        is_open = known.get(account_id)
        if is_open is None:
            account = self._store.accounts.by_id(account_id)
            is_open = known[account_id] = account is not None and account.enabled
        return is_open
