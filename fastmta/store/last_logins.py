"""When, from where and how each account last logged in. An account's row is written once a minute at most."""

from typing import Final

import msgspec

from fastmta._store import TABLE_ACCOUNT, TABLE_CREDENTIAL
from fastmta.model.limits import LAST_LOGINS_NOTED
from fastmta.store.committing import Committer
from fastmta.store.record_keys import id_key

_KIND: Final = b"l"
_REST_S: Final = 60.0  # between two writes of an account's row
_AT_ONCE: Final = 500  # rows of one unit
_ADDRESS_CHARACTERS: Final = 45


class LastLogin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    at_s: int
    address: str
    protocol: str


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(LastLogin)


class LastLogins:
    """Those of all accounts, and those of this process that are not written yet."""

    def __init__(self, store: Committer) -> None:
        self._store = store
        self._fresh: dict[int, LastLogin] = {}
        self._written: dict[int, float] = {}  # when, by the monotonic clock

    def get(self, account_id: int) -> LastLogin | None:
        fresh = self._fresh.get(account_id)
        if fresh is not None:
            return fresh
        key = id_key(account_id) + _KIND
        value = self._store.raw.get(TABLE_CREDENTIAL, key)
        if value is None:
            return None
        try:
            return _decoder.decode(value)
        except ValueError as error:
            raise self._store.raw.damaged("credential", key, "the record cannot be decoded") from error

    def note(self, account_id: int, protocol: str, address: str) -> None:
        """Somebody has logged in. Where very many accounts do in a moment, some are left out."""
        if account_id in self._fresh or len(self._fresh) < LAST_LOGINS_NOTED:
            at_s = int(self._store.clock.now())
            self._fresh[account_id] = LastLogin(at_s, address[:_ADDRESS_CHARACTERS], protocol)

    @property
    def has_fresh(self) -> bool:
        return bool(self._fresh)

    async def flush(self, *, all_of_them: bool = False) -> None:
        """Writes what is noted, but for accounts that were written a moment ago, unless it is the end."""
        now = self._store.clock.monotonic()
        self._written = {each: at for each, at in self._written.items() if now - at < _REST_S}
        due = [each for each in self._fresh if all_of_them or each not in self._written]
        for start in range(0, len(due), _AT_ONCE):
            unit = self._store.raw.new_unit()
            for account_id in due[start : start + _AT_ONCE]:
                self._written[account_id] = now
                row = _encoder.encode(self._fresh.pop(account_id))
                if self._store.raw.get(TABLE_ACCOUNT, id_key(account_id)) is not None:  # it may be gone meanwhile
                    unit.put(TABLE_CREDENTIAL, id_key(account_id) + _KIND, row)
            await self._store.commit(unit)
