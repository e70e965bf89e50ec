"""Password hashes and their checks: argon2id in a bounded pool of threads, with a cache of successes.

Mail clients log in all the time, and a good hash costs 20 to 40 ms of a core; so what was right once is remembered.
The cache holds no password and no hash: its keys are HMACs, under a key that lives as long as the process, of account,
stored hash, service, mechanism and password. So a changed password misses at once, an answer given to one service is
never another's, and no user name is ever expanded into a key. Failures are not remembered.

Invariant: an unknown account costs the same hash as a wrong password. Left to others: who may log in where, and what
the peer is told (authenticator.py).
"""

import asyncio
import hashlib
import hmac
import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, Protocol

from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import PASSWORD_BYTES, PASSWORD_CACHE_ENTRIES, PASSWORD_CHECKS_WAITING
from fastmta.model.reply import Reply
from fastmta.runtime.clock import Clock, SystemClock

# RFC 9106 §4 leaves the parameters to the operator; these are OWASP's least: 19 MiB, two passes, one lane.
MEMORY_KIB: Final = 19 * 1024
PASSES: Final = 2
LANES: Final = 1
# Of a random password that nobody has kept: what an unknown user's attempt is checked against.
_NOBODY: Final = "$argon2id$v=19$m=19456,t=2,p=1$GRy5Ab2igrRLAu5Cd2psGg$VZ5dubOK+tIqEWJllIW0jFN2ZyVzeMaGHvWRVq83lSw"
_BUSY: Final = Reply(454, "4.7.0", "Temporary authentication failure")


class HashedAccount(Protocol):
    """What of an account is needed; the store's Account has it."""

    @property
    def id(self) -> int: ...
    @property
    def password_hash(self) -> str: ...


def hash_password(password: str) -> str:
    """The argon2id hash to store. Takes 20 to 40 ms of CPU: not for the event loop."""
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES).hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    """Whether they belong together; a hash of a kind that we cannot read never matches. Blocks, without the GIL."""
    from argon2 import low_level
    from argon2.exceptions import InvalidHashError, VerificationError

    encoded = password_hash.removeprefix("{ARGON2ID}").encode()
    kind = low_level.Type.ID if encoded.startswith(b"$argon2id$") else low_level.Type.I
    try:
        return low_level.verify_secret(encoded, password.encode("utf-8", "surrogatepass"), kind)
    except (VerificationError, InvalidHashError):
        return False


class PasswordChecker:
    """Checks for one process, on its loop. `pool` runs the hashes and bounds how many run at once."""

    __slots__ = ("_clock", "_known", "_pool", "_running", "_secret", "_ttl_s", "_verify", "_waiting")

    def __init__(
        self,
        pool: Executor,
        *,
        ttl_s: float = 3600.0,
        clock: Clock | None = None,
        verify: Callable[[str, str], bool] = verify_password,
    ) -> None:
        self._pool = pool
        self._ttl_s = ttl_s
        self._clock = clock or SystemClock()
        self._verify = verify
        self._secret = os.urandom(32)
        self._known: dict[bytes, float] = {}  # key: until when; oldest first
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._waiting = 0

    def cached(self, account: HashedAccount, password: str, service: str = "", mechanism: str = "") -> bool | None:
        """True where this was found right not long ago; None where it has to be checked."""
        key = self._key(account, password, service, mechanism)
        until = self._known.get(key)
        if until is None:
            return None
        if until < self._clock.monotonic():
            del self._known[key]
            return None
        return True

    async def verify(
        self, account: HashedAccount | None, password: str, service: str = "", mechanism: str = ""
    ) -> bool:
        """Whether the password is the account's; None stands for an unknown user and takes as long.

        Raises TemporaryFailure where too many checks wait already.
        """
        too_long = len(password.encode("utf-8", "surrogatepass")) > PASSWORD_BYTES
        if account is None or too_long:
            await self._run(_NOBODY, "" if too_long else password)
            return False
        key = self._key(account, password, service, mechanism)
        running = self._running.get(key)
        if running is None:  # a client that opens ten connections at once costs one hash
            running = asyncio.create_task(self._run(account.password_hash, password), name="auth.verify")
            self._running[key] = running
            running.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(running)

    def forget_all(self) -> None:
        """Empties the cache."""
        self._known.clear()

    def _finished(self, key: bytes, done: "asyncio.Future[bool]") -> None:
        self._running.pop(key, None)
        if done.cancelled() or done.exception() is not None or not done.result() or self._ttl_s <= 0:
            return
        self._known.pop(key, None)
        while len(self._known) >= PASSWORD_CACHE_ENTRIES:
            del self._known[next(iter(self._known))]
        self._known[key] = self._clock.monotonic() + self._ttl_s

    async def _run(self, password_hash: str, password: str) -> bool:
        if self._waiting >= PASSWORD_CHECKS_WAITING:
            raise TemporaryFailure(_BUSY)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._verify, password_hash, password)
        finally:
            self._waiting -= 1

    def _key(self, account: HashedAccount, password: str, service: str, mechanism: str) -> bytes:
        parts = (str(account.id), account.password_hash, service, mechanism, password)
        raw = [part.encode("utf-8", "surrogatepass") for part in parts]
        message = b"".join(len(part).to_bytes(4, "little") + part for part in raw)  # lengths: no two splits are alike
        return hmac.digest(self._secret, message, hashlib.sha256)
