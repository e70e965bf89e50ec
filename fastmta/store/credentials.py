"""What lets an account in beside its password: SCRAM keys, app passwords of its own, the secret of one-time codes.

All are rows of the account, so they go with it. SCRAM keys belong to one password hash: with another hash they are
stale, whoever changed it. An app password is long and random, so a plain digest of it is kept, and is its key.
"""

import hashlib
import os
import secrets
from typing import Final

import msgspec

from fastmta._store import TABLE_CREDENTIAL, TABLE_META
from fastmta._unit import Unit
from fastmta.model.credentials import AppPassword, ScramKeys, Totp
from fastmta.model.errors import Refused
from fastmta.model.limits import APP_PASSWORDS_OF_ACCOUNT
from fastmta.store.committing import Committer, commit_guarded
from fastmta.store.record_keys import DIRECTORY_COUNTER, id_key

LOGIN_SECRET: Final = b"login_secret"  # in `meta`: what made-up salts are made of
_SCRAM: Final = b"s"
_APP: Final = b"a"
_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"  # without what looks alike: 5 bits a character
_LENGTH: Final = 24
_TOTP: Final = b"t"


class _Scram(msgspec.Struct, frozen=True, gc=False):
    of: bytes  # which password hash the keys belong to
    keys: dict[str, ScramKeys]


_encoder: Final = msgspec.msgpack.Encoder()
_scram_decoder: Final = msgspec.msgpack.Decoder(_Scram)
_totp_decoder: Final = msgspec.msgpack.Decoder(Totp)
_app_decoder: Final = msgspec.msgpack.Decoder(AppPassword)


def new_app_password() -> str:
    """120 random bits in letters that can be typed, four at a time."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
    return "-".join(letters[at : at + 4] for at in range(0, _LENGTH, 4))


def _app_key(account_id: int, password: str) -> bytes:
    plain = password.replace("-", "").replace(" ", "").lower()  # as it was copied or typed
    return id_key(account_id) + _APP + hashlib.sha256(plain.encode("utf-8", "surrogatepass")).digest()


def _hash_mark(password_hash: str) -> bytes:
    return hashlib.sha256(password_hash.encode()).digest()[:16]


class AccountCredentials:
    """The credentials of all accounts."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    # --- SCRAM ---

    def scram_keys(self, account_id: int, password_hash: str) -> dict[str, ScramKeys]:
        """The keys by mechanism; none where they are missing or belong to an earlier password."""
        value = self._store.raw.get(TABLE_CREDENTIAL, id_key(account_id) + _SCRAM)
        if value is None:
            return {}
        try:
            record = _scram_decoder.decode(value)
        except ValueError as error:
            key = id_key(account_id) + _SCRAM
            raise self._store.raw.damaged("credential", key, "the record cannot be decoded") from error
        return record.keys if record.of == _hash_mark(password_hash) else {}

    async def keep_scram_keys(self, account_id: int, password_hash: str, keys: dict[str, ScramKeys]) -> None:
        """Keeps what was derived from the password of that hash; with the first ones the secret for names without."""
        raw = self._store.raw
        unit = raw.new_unit()
        unit.put(
            TABLE_CREDENTIAL,
            id_key(account_id) + _SCRAM,
            _encoder.encode(_Scram(_hash_mark(password_hash), keys)),
        )
        if raw.get(TABLE_META, LOGIN_SECRET) is None:
            unit.put(TABLE_META, LOGIN_SECRET, os.urandom(32))
        await self._store.commit(unit)

    def login_secret(self) -> bytes:
        """Equal in all processes; empty while no account has keys."""
        return self._store.raw.get(TABLE_META, LOGIN_SECRET) or b""

    # --- one-time codes ---

    def totp(self, account_id: int) -> Totp | None:
        """What the codes of an account are made of; None where it needs none."""
        key = id_key(account_id) + _TOTP
        value = self._store.raw.get(TABLE_CREDENTIAL, key)
        if value is None:
            return None
        try:
            return _totp_decoder.decode(value)
        except ValueError as error:
            raise self._store.raw.damaged("credential", key, "the record cannot be decoded") from error

    async def add_totp(self, account_id: int, secret: bytes) -> None:
        """From now on the account's password needs a code behind it. Refused("exists")."""
        entry = Totp(secret, 0, int(self._store.clock.now()))
        unit = self._store.raw.new_unit()
        unit.put_new(TABLE_CREDENTIAL, id_key(account_id) + _TOTP, _encoder.encode(entry))
        await self._store.commit(unit)

    async def remove_totp(self, account_id: int) -> None:
        """The password alone opens the account again. Refused("missing") where it does already."""
        if self.totp(account_id) is None:
            raise Refused("missing")
        unit = self._store.raw.new_unit()
        unit.delete(TABLE_CREDENTIAL, id_key(account_id) + _TOTP)
        await self._store.commit(unit)

    async def use_totp_step(self, account_id: int, totp: Totp, step: int) -> bool:
        """Notes that the code of this step was used; False where one was used meanwhile, in whatever process."""
        key = id_key(account_id) + _TOTP
        unit = self._store.raw.new_unit()
        unit.guard(TABLE_CREDENTIAL, key, _encoder.encode(totp))
        unit.put(TABLE_CREDENTIAL, key, _encoder.encode(Totp(totp.secret, step, totp.created_at_s)))
        try:
            await self._store.commit(unit)
        except Refused:
            return False
        return True

    # --- app passwords ---

    def app_password(self, account_id: int, password: str) -> AppPassword | None:
        """The app password that this is, or None."""
        value = self._store.raw.get(TABLE_CREDENTIAL, _app_key(account_id, password))
        return self._decoded(_app_key(account_id, password), value) if value is not None else None

    def app_password_mark(self, account_id: int, password: str) -> bytes:
        """What stands for an app password of an account in `still_opens`; b"" where it is none."""
        key = _app_key(account_id, password)
        return key if self._store.raw.get(TABLE_CREDENTIAL, key) is not None else b""

    def account_mark(self, account_id: int) -> bytes:
        """What stands for an account itself, a master user's, in `still_opens`."""
        return id_key(account_id)

    def account_of(self, mark: bytes) -> int:
        """Whose a mark is."""
        return int.from_bytes(mark[: len(id_key(0))], "big")

    def still_opens(self, mark: bytes) -> bool:
        """Whether what it stands for has not been revoked, where its account is there."""
        return len(mark) == len(id_key(0)) or self._store.raw.get(TABLE_CREDENTIAL, mark) is not None

    def app_passwords(self, account_id: int) -> list[AppPassword]:
        """All of an account, by name."""
        return sorted((entry for _, entry in self._rows(account_id)), key=lambda entry: entry.name)

    async def add_app_password(self, account_id: int, name: str, protocols: tuple[str, ...]) -> str:
        """Makes one and returns it: it is not kept. Refused("exists") where the name is taken, Refused("full")."""
        password = new_app_password()
        entry = AppPassword(name, protocols, int(self._store.clock.now()))

        def compose() -> Unit:
            rows = self._rows(account_id)
            if any(other.name == name for _, other in rows):
                raise Refused("exists", name)
            if len(rows) >= APP_PASSWORDS_OF_ACCOUNT:
                raise Refused("full", name)
            unit = self._store.raw.new_unit()
            unit.put_new(TABLE_CREDENTIAL, _app_key(account_id, password), _encoder.encode(entry))
            return unit

        await commit_guarded(self._store, compose)
        return password

    async def delete_app_password(self, account_id: int, name: str) -> None:
        """Revokes one, from now on in every process; Refused("missing") where there is none of that name."""
        unit = self._store.raw.new_unit()
        found = [key for key, entry in self._rows(account_id) if entry.name == name]
        if not found:
            raise Refused("missing", name)
        for key in found:
            unit.delete(TABLE_CREDENTIAL, key)
        unit.count(DIRECTORY_COUNTER, 1, -1)  # sessions that it opened are ended
        await self._store.commit(unit)

    def _rows(self, account_id: int) -> list[tuple[bytes, AppPassword]]:
        rows = self._store.raw.scan(TABLE_CREDENTIAL, id_key(account_id) + _APP, b"", APP_PASSWORDS_OF_ACCOUNT + 1)
        return [(key, self._decoded(key, value)) for key, value in rows]

    def _decoded(self, key: bytes, value: bytes) -> AppPassword:
        try:
            return _app_decoder.decode(value)
        except ValueError as error:
            raise self._store.raw.damaged("credential", key, "the record cannot be decoded") from error
