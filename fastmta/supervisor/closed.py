"""Ends the sessions of accounts that have been disabled or deleted, and those that were opened by an app password which
was revoked, or by a master user who was disabled or deleted, or is none any more, within a second of it. Who was just
logging in then is looked for again, a moment and some seconds later.

Of SMTP it needs only the latter: who may send is asked at each MAIL.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Final

from fastmta.store import MailStore

#: An account, the mark of the app password or master user that opened the session or b"", and what ends it with a word.
LoggedIn = tuple[int, bytes, Callable[[], object]]
LOOKS_S: Final = (0, 1, 10)  # after a change: a login may wait for its password check that long
AT_ONCE: Final = 256  # sessions looked at in one turn of the loop, about a millisecond


class ClosedAccounts:
    """Looks once a second, and only where the directory or the configuration has changed."""

    def __init__(
        self,
        store: MailStore,
        loop: asyncio.AbstractEventLoop,
        sessions: Callable[[], list[LoggedIn]],
        masters: Callable[[], Collection[str]],
    ) -> None:
        """`sessions` gives those that have logged in, `masters` the addresses of who may open others' accounts."""
        self._store = store
        self._loop = loop
        self._sessions = sessions
        self._masters = masters
        self._is_new = False  # the configuration, since the last look
        self._since_s = LOOKS_S[-1]  # the last change
        self._version = store.directory_version
        self._looking = False

    def reload(self) -> None:
        """The configuration was read again."""
        self._is_new = True

    def look(self) -> None:
        """Called once a second."""
        version = self._store.directory_version
        if self._looking:
            return
        self._since_s = self._since_s + 1 if version == self._version and not self._is_new else 0
        if self._since_s not in LOOKS_S:
            return
        self._version = version
        self._is_new = False
        self._looking = True
        self._step(iter(self._sessions()), {})

    def _step(self, left: Iterator[LoggedIn], known: dict[int | bytes, bool]) -> None:
        page = list(islice(left, AT_ONCE))
        for account_id, mark, end in page:
            is_open = self._is_open(account_id, known)
            if is_open and mark:
                if mark not in known:
                    known[mark] = self._store.credentials.still_opens(mark)
                is_open = known[mark] and self._may_open(self._store.credentials.account_of(mark), account_id, known)
            if not is_open:
                end()
        self._looking = len(page) == AT_ONCE
        if self._looking:
            self._loop.call_soon(self._step, left, known)

    def _may_open(self, who: int, account_id: int, known: dict[int | bytes, bool]) -> bool:
        """Whether an account may still be used, and to open that one."""
        if not self._is_open(who, known):
            return False
        if who == account_id:
            return True
        account = self._store.accounts.by_id(who)
        return account is not None and account.address in self._masters()

    def _is_open(self, account_id: int, known: dict[int | bytes, bool]) -> bool:
        is_open = known.get(account_id)
        if is_open is None:
            account = self._store.accounts.by_id(account_id)
            is_open = known[account_id] = account is not None and account.enabled
        return is_open
