"""Password hashes and their checks: argon2id in a bounded pool of threads, with a cache of successes.

Mail clients log in all the time, and a good hash costs 20 to 40 ms of a core; so what was right once is remembered.
The cache holds no password and no hash: its keys are HMACs, under a key that lives as long as the process, of account,
stored hash, service, mechanism and password. So a changed password misses at once, an answer given to one service is
never another's, and no user name is ever expanded into a key. Failures are not remembered.

Invariants: an unknown account costs the same hash as a wrong password, waits in the same line, and shares its check
with equal ones that come meanwhile just as a known one does. Left to others: who may log in where, and what the peer is
told (authenticator.py); whose turn it is (check_queue.py).
"""

import asyncio
import contextlib
import hashlib
import hmac
import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, Protocol

from fastmta.auth.check_queue import CheckQueue
from fastmta.model.limits import PASSWORD_BYTES, PASSWORD_CACHE_ENTRIES
from fastmta.runtime.clock import Clock, SystemClock

# RFC 9106 §4 leaves the parameters to the operator; these are OWASP's least: 19 MiB, two passes, one lane.
MEMORY_KIB: Final = 19 * 1024
PASSES: Final = 2
LANES: Final = 1
# Of a random password that nobody has kept: what an unknown user's attempt is checked against.
_NOBODY: Final = "$argon2id$v=19$m=19456,t=2,p=1$GRy5Ab2igrRLAu5Cd2psGg$VZ5dubOK+tIqEWJllIW0jFN2ZyVzeMaGHvWRVq83lSw"


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


class _Check:
    """A check that has been asked for, and by how many who still wait."""

    __slots__ = ("askers", "task")

    def __init__(self, task: "asyncio.Task[bool]") -> None:
        self.task = task
        self.askers = 0


class PasswordChecker:
    """Checks for one process, on its loop. `pool` runs the hashes, at most `at_once` of them together."""

    __slots__ = ("_clock", "_known", "_pool", "_running", "_secret", "_ttl_s", "_turns", "_verify")

    def __init__(
        self,
        pool: Executor,
        *,
        ttl_s: float = 3600.0,
        at_once: int = 2,
        clock: Clock | None = None,
        verify: Callable[[str, str], bool] = verify_password,
    ) -> None:
        self._pool = pool
        self._ttl_s = ttl_s
        self._clock = clock or SystemClock()
        self._verify = verify
        self._secret = os.urandom(32)
        self._known: dict[bytes, float] = {}  # key: until when; oldest first
        self._running: dict[bytes, _Check] = {}
        self._turns = CheckQueue(at_once)

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
        self,
        account: HashedAccount | None,
        password: str,
        service: str = "",
        mechanism: str = "",
        *,
        name: str = "",
        peer: str = "",
    ) -> bool:
        """Whether the password is the account's; None stands for an unknown user and takes as long.

        `name` is what was given as the login, `peer` the address whose turn the check needs. Raises TemporaryFailure
        where too many checks wait already. When all who asked are cancelled, a check that has not begun is dropped.
        """
        too_long = len(password.encode("utf-8", "surrogatepass")) > PASSWORD_BYTES
        # The key of an unknown name is made of that name: twelve equal logins cost one hash whether it exists or not.
        key = self._digest(peer, self._key(account, password, service, mechanism, name).hex())
        check = self._running.get(key)
        if check is None:  # a client that opens ten connections at once costs one hash
            stored = _NOBODY if too_long or account is None else account.password_hash
            work = self._run(stored, "" if too_long else password, peer, name)
            check = self._running[key] = _Check(asyncio.create_task(work, name="auth.verify"))
            check.task.add_done_callback(lambda _: self._running.pop(key, None))
        check.askers += 1
        try:
            right = await asyncio.shield(check.task)
        finally:
            check.askers -= 1
            if not check.askers and not check.task.done():
                check.task.cancel()
                self._running.pop(key, None)
        if too_long or account is None:
            return False
        if right:
            self._remember(self._key(account, password, service, mechanism))
        return right

    def forget_all(self) -> None:
        """Empties the cache."""
        self._known.clear()

    def _remember(self, key: bytes) -> None:
        if self._ttl_s <= 0:
            return
        self._known.pop(key, None)
        while len(self._known) >= PASSWORD_CACHE_ENTRIES:
            del self._known[next(iter(self._known))]
        self._known[key] = self._clock.monotonic() + self._ttl_s

    async def _run(self, password_hash: str, password: str, peer: str, name: str) -> bool:
        await self._turns.take(peer, name)
        loop = asyncio.get_running_loop()
        try:
            hashing = self._pool.submit(self._verify, password_hash, password)
        except BaseException:
            self._turns.done(peer)
            raise

        def ended(_: object) -> None:  # in the thread: a turn ends with its hash, also where nobody waits for it now
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._turns.done, peer)

        hashing.add_done_callback(ended)
        return await asyncio.wrap_future(hashing)

    def _key(self, account: HashedAccount | None, password: str, service: str, mechanism: str, name: str = "") -> bytes:
        who = (str(account.id), account.password_hash) if account is not None else ("", name)
        return self._digest(*who, service, mechanism, password)

    def _digest(self, *parts: str) -> bytes:
        raw = [part.encode("utf-8", "surrogatepass") for part in parts]
        message = b"".join(len(part).to_bytes(4, "little") + part for part in raw)  # lengths: no two splits are alike
        return hmac.digest(self._secret, message, hashlib.sha256)
