"""Up to which step of `quota_mail_warnings` each account has been told: a mail is sent once when a step is passed."""

from typing import Final

from fastmta._store import TABLE_CREDENTIAL
from fastmta.store.committing import Committer
from fastmta.store.record_keys import id_key

_KIND: Final = b"q"


class QuotaWarnings:
    """The rows of all accounts; they go with their account."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def step(self, account_id: int) -> int:
        """The step, in percent, that was told last; 0: none."""
        return int((self._store.raw.get(TABLE_CREDENTIAL, id_key(account_id) + _KIND) or b"\0")[0])

    async def note(self, account_id: int, step: int) -> None:
        """The account is at this step now."""
        unit = self._store.raw.new_unit()
        if step:
            unit.put(TABLE_CREDENTIAL, id_key(account_id) + _KIND, bytes((step,)))
        else:
            unit.delete(TABLE_CREDENTIAL, id_key(account_id) + _KIND)
        await self._store.commit(unit)
