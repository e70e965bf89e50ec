"""Who may log in: mechanisms offered, login names, and the verdict on a client's credentials.

Invariants: unknown user, wrong password, disabled account and a foreign authorization identity give the same answer
after the same hash and the same delay, which grows with the failures of an address; a login name is looked up as it
stands, never expanded.

Left to others: the words of each protocol (SMTP 535 5.7.8, IMAP NO [AUTHENTICATIONFAILED], POP3 -ERR [AUTH]).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

from fastmta.auth.check_queue import BUSY
from fastmta.auth.passwords import HashedAccount, PasswordChecker
from fastmta.auth.sasl import MECHANISMS, Credentials
from fastmta.directory.addresses import canonical_domain
from fastmta.model.errors import StorageFailure, TemporaryFailure
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, Cells

LOGIN_NAME_CHARACTERS: Final = 320  # 64 + "@" + 255, RFC 5321 §4.5.3.1


class LoginAccount(HashedAccount, Protocol):
    @property
    def address(self) -> str: ...
    @property
    def enabled(self) -> bool: ...


A_co = TypeVar("A_co", bound=LoginAccount, covariant=True)
A = TypeVar("A", bound=LoginAccount)


class AccountLookup(Protocol[A_co]):
    def lookup(self, address: str) -> A_co | None: ...


class AuthSettings(Protocol):
    @property
    def mechanisms(self) -> tuple[str, ...]: ...
    @property
    def disable_plaintext_auth(self) -> bool: ...
    @property
    def failure_delay(self) -> float: ...


class LoginSettings(Protocol):
    @property
    def auth(self) -> AuthSettings: ...
    @property
    def mydomain(self) -> str: ...
    @property
    def mydestination(self) -> tuple[str, ...]: ...


class Penalties(Protocol):
    """What of policy.limits.Limits is used here: penalties of addresses, in units of the failure delay."""

    def failed(self, ip: str, /) -> float: ...
    def penalty(self, ip: str, /) -> float: ...
    def forgive(self, ip: str, /) -> None: ...


class Authenticator(Generic[A]):
    """The verdicts of one process, on its loop."""

    __slots__ = (
        "_accounts",
        "_cells",
        "_domain",
        "_log",
        "_offered",
        "_passwords",
        "_penalties",
        "_plain_text",
        "_settings",
        "_sleep",
    )

    def __init__(
        self,
        config: LoginSettings,
        accounts: AccountLookup[A],
        passwords: PasswordChecker,
        penalties: Penalties,
        *,
        cells: Cells,
        log: Log,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = config.auth
        self._accounts = accounts
        self._passwords = passwords
        self._penalties = penalties
        self._cells = cells
        self._log = log
        self._sleep = sleep
        self._offered = tuple(name for name in config.auth.mechanisms if name in MECHANISMS)
        self._plain_text = not config.auth.disable_plaintext_auth
        local = config.mydestination
        self._domain = config.mydomain if config.mydomain in local or not local else local[0]

    def mechanisms(self, tls: bool, loopback: bool) -> tuple[str, ...]:
        """What a connection may be offered: all of ours send the password itself, so nothing without TLS (RFC 4954 §4)
        but from loopback, which is Dovecot's rule for disable_plaintext_auth.
        """
        return self._offered if tls or loopback or self._plain_text else ()

    def login_allowed(self, tls: bool, loopback: bool) -> bool:
        """Whether IMAP LOGIN and POP3 USER may be used; for LOGINDISABLED (RFC 9051 §6.2.3)."""
        return tls or loopback or self._plain_text

    def login_address(self, name: str) -> str:
        """The account that a login name stands for: the full address, its domain in either form of RFC 5890 §2.3.2.1,
        or a bare name in our own domain.
        """
        local_part, at, domain = name.lower().rpartition("@")
        if not at:
            return f"{domain}@{self._domain}"
        try:
            return f"{local_part}@{canonical_domain(domain)}"
        except ValueError:
            return f"{local_part}@{domain}"

    def try_now(self, credentials: Credentials, service: str) -> A | None:
        """The account, if these credentials were right not long ago; None says only that `authenticate` has to look."""
        try:
            account = self._account(credentials)
        except StorageFailure:
            return None  # `authenticate` meets it too, and says so
        if account is None or not account.enabled:
            return None
        if not self._passwords.cached(account, credentials.password, service, credentials.mechanism):
            return None
        self._count(credentials.mechanism, "success")
        return account

    async def authenticate(self, credentials: Credentials, service: str, peer_ip: str) -> A | None:
        """The account that these credentials open, or None, which comes after the failure delay.

        Raises TemporaryFailure where too many wait or the store cannot be read. Cancel it when the peer leaves.
        """
        try:
            account = self._account(credentials)
        except StorageFailure as error:
            self._count(credentials.mechanism, "temporary")
            raise TemporaryFailure(BUSY) from error
        try:
            right = await self._passwords.verify(
                account,
                credentials.password,
                service,
                credentials.mechanism,
                name=credentials.authcid[:LOGIN_NAME_CHARACTERS].lower(),
                peer=peer_ip,
            )
        except TemporaryFailure:
            self._count(credentials.mechanism, "temporary")
            # To be refused must cost whoever fills the queue, too.
            await self._sleep(self._settings.failure_delay * self._penalties.penalty(peer_ip))
            raise
        if account is not None and right and account.enabled:
            self._penalties.forgive(peer_ip)
            self._count(credentials.mechanism, "success")
            return account
        self._count(credentials.mechanism, "failure")
        self._log.info(
            "auth.failed",
            service=service,
            mechanism=credentials.mechanism,
            login=credentials.authcid.encode("utf-8", "backslashreplace")[:LOGIN_NAME_CHARACTERS],
            client=peer_ip,
            known=account is not None,
        )
        await self._sleep(self._settings.failure_delay * self._penalties.failed(peer_ip))
        return None

    def _account(self, credentials: Credentials) -> A | None:
        address = self.login_address(credentials.authcid)
        if len(address) > LOGIN_NAME_CHARACTERS or any(ord(character) <= 32 for character in address):
            return None
        if credentials.authzid and self.login_address(credentials.authzid) != address:
            return None  # acting for somebody else (RFC 4616 §2) is not built
        return self._accounts.lookup(address)

    def _count(self, mechanism: str, result: str) -> None:
        self._cells[METRICS.auth_total[mechanism, result]] += 1
