"""Ends the sessions of accounts that have been disabled or deleted, and those that an app password has opened which was
revoked, within a second of it.

Of SMTP it needs only the latter: who may send is asked at each MAIL.
"""

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from fastmta.store import MailStore

#: An account, the mark of the app password that opened the session or b"", and what ends it with a word.
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
            is_open = known.get(account_id)
            if is_open is None:
                account = self._store.accounts.by_id(account_id)
                is_open = known[account_id] = account is not None and account.enabled
            if is_open and mark:
                if mark not in known:
                    known[mark] = self._store.credentials.is_app_password(mark)
                is_open = known[mark]
            if not is_open:
                end()
        self._looking = len(page) == AT_ONCE
        if self._looking:
            self._loop.call_soon(self._step, left, known)
