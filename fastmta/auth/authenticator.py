"""Who may log in: mechanisms offered, login names, and the verdict on a client's credentials.

Invariants: unknown user, wrong password, disabled account and a foreign authorization identity give the same answer
after the same hash and the same delay, which grows with the failures of an address; a login name is looked up as it
stands, and expanded only where aliases are logins (alias_logins.py). A name may bring an authorization identity (RFC
4616 §2), or "account*master" where a separator is set: then the master user's password opens the account, and the log
names both. Where an account has one-time codes, its password is taken with a code behind it and each code once; app
passwords, tokens and certificates need none, and a SCRAM proof, which can carry none, opens nothing.

Left to others: the words of each protocol (SMTP 535 5.7.8, IMAP NO [AUTHENTICATIONFAILED], POP3 -ERR [AUTH]).
"""

import asyncio
import hashlib
import hmac
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from fastmta.auth import totp as one_time
from fastmta.auth.bearer import TokenRefused
from fastmta.auth.check_queue import BUSY
from fastmta.auth.passwords import HashedAccount, PasswordChecker
from fastmta.auth.sasl import Credentials, Sasl
from fastmta.auth.scram import HASHES, ITERATIONS, SALT_BYTES
from fastmta.directory.addresses import canonical_domain
from fastmta.model.credentials import AppPassword, ScramKeys, Totp
from fastmta.model.errors import StorageFailure, TemporaryFailure
from fastmta.model.mechanisms import EXTERNAL, MECHANISMS, PLAIN_TEXT, SCRAM, TOKENS
from fastmta.model.services import BY_NAME
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
    @property
    def auth_master_users(self) -> tuple[str, ...]: ...
    @property
    def auth_master_user_separator(self) -> str: ...
    @property
    def oauth2_scope(self) -> tuple[str, ...]: ...


class LoginSettings(Protocol):
    @property
    def auth(self) -> AuthSettings: ...
    @property
    def mydomain(self) -> str: ...
    @property
    def mydestination(self) -> tuple[str, ...]: ...


class Penalties(Protocol):
    """What of policy.limits.Limits is used here: penalties of addresses, in units of the failure delay, and how many
    one-time codes of an account may be tried.
    """

    def failed(self, ip: str, /) -> float: ...
    def penalty(self, ip: str, /) -> float: ...
    def forgive(self, ip: str, /) -> None: ...
    def may_try_code(self, account_id: int, /) -> bool: ...
    def code_was_right(self, account_id: int, /) -> None: ...


class Tokens(Protocol):
    """What of auth.bearer.Bearers is used here."""

    @property
    def is_configured(self) -> bool: ...
    async def user(self, token: str, /) -> str: ...


class AccountCredentials(Protocol):
    """What of the store is used here, beside the accounts."""

    def scram_keys(self, account_id: int, password_hash: str, /) -> dict[str, ScramKeys]: ...
    def login_secret(self) -> bytes: ...
    def app_password(self, account_id: int, password: str, /) -> AppPassword | None: ...
    def app_password_mark(self, account_id: int, password: str, /) -> bytes: ...
    def account_mark(self, account_id: int, /) -> bytes: ...
    def totp(self, account_id: int, /) -> Totp | None: ...
    async def use_totp_step(self, account_id: int, totp: Totp, step: int, /) -> bool: ...


class _Nothing:
    """No credentials beside the password, and no tokens."""

    is_configured = False

    def scram_keys(self, account_id: int, password_hash: str, /) -> dict[str, ScramKeys]:
        return {}

    def login_secret(self) -> bytes:
        return b""

    def app_password(self, account_id: int, password: str, /) -> AppPassword | None:
        return None

    def app_password_mark(self, account_id: int, password: str, /) -> bytes:
        return b""

    def account_mark(self, account_id: int, /) -> bytes:
        return b""

    def totp(self, account_id: int, /) -> Totp | None:
        return None

    async def use_totp_step(self, account_id: int, totp: Totp, step: int, /) -> bool:
        return False

    async def user(self, token: str, /) -> str:
        raise TokenRefused("no issuer is configured")


_NOTHING: Final = _Nothing()


class Parties(NamedTuple, Generic[A]):
    """`opened`: the account that is to be opened; `checked`: whose credentials have to be right, mostly the same."""

    opened: A | None
    checked: A | None


class Authenticator(Generic[A]):
    """The verdicts of one process, on its loop."""

    __slots__ = (
        "_accounts",
        "_by_certificate",
        "_cells",
        "_credentials",
        "_domain",
        "_learn",
        "_log",
        "_now",
        "_offered",
        "_passwords",
        "_penalties",
        "_plain_text",
        "_secret",
        "_settings",
        "_sleep",
        "_tokens",
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
        credentials: AccountCredentials = _NOTHING,
        tokens: Tokens = _NOTHING,
        learn: Callable[[A, str], object] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`learn(account, password)` is told of an account that has no SCRAM keys, at its plain login."""
        self._settings = config.auth
        self._accounts = accounts
        self._passwords = passwords
        self._penalties = penalties
        self._cells = cells
        self._log = log
        self._now = now
        self._sleep = sleep
        self._credentials = credentials
        self._tokens = tokens
        usable = MECHANISMS if tokens.is_configured else tuple(name for name in MECHANISMS if name not in TOKENS)
        self._by_certificate = tuple(name for name in config.auth.mechanisms if name in usable)
        self._offered = tuple(name for name in self._by_certificate if name != EXTERNAL)
        self._learn = learn if any(name in SCRAM for name in self._offered) else None
        self._secret = os.urandom(32)
        self._plain_text = not config.auth.disable_plaintext_auth
        local = config.mydestination
        self._domain = config.mydomain if config.mydomain in local or not local else local[0]

    def mechanisms(self, tls: bool, loopback: bool, certified: str = "") -> tuple[str, ...]:
        """What a connection may be offered: nothing that sends the secret itself without TLS (RFC 4954 §4) but from
        loopback, which is Dovecot's rule for disable_plaintext_auth. EXTERNAL only beside a certificate that is
        `certified` to be a login name's.
        """
        offered = self._by_certificate if certified else self._offered
        if tls or loopback or self._plain_text:
            return offered
        return tuple(name for name in offered if name not in PLAIN_TEXT)

    def exchange(self, allowed: tuple[str, ...], certified: str = "") -> Sasl:
        """The dialogue of one AUTH command."""
        return Sasl(allowed, self._scram_keys, self._settings.oauth2_scope, certified)

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
        if credentials.proof is not None or credentials.token:
            return None
        try:
            opened, checked = self._parties(credentials)
            if opened is None or checked is None or not opened.enabled or not checked.enabled:
                return None
            if not self._is_app_password(checked, credentials, service) and not self._is_known(
                checked, credentials, service
            ):
                return None
        except StorageFailure:
            return None  # `authenticate` meets it too, and says so
        self._succeeded(opened, checked, credentials, service)
        return opened

    def _is_known(self, account: A, credentials: Credentials, service: str) -> bool:
        """Whether the password was right not long ago, and is enough."""
        known = self._passwords.cached(account, credentials.password, service, credentials.mechanism)
        return bool(known) and self._credentials.totp(account.id) is None

    def opened_by(self, credentials: Credentials) -> bytes:
        """The mark of what may be taken away while the account stays: the app password that these credentials, which
        were right, consist of, or the master user whose they are. b"" where neither.
        """
        try:
            opened, checked = self._parties(credentials)
            if checked is None:
                return b""
            mark = b""
            if credentials.proof is None and not credentials.token:
                mark = self._credentials.app_password_mark(checked.id, credentials.password)
            return mark or (b"" if opened is checked else self._credentials.account_mark(checked.id))
        except StorageFailure:
            return b""

    async def authenticate(self, credentials: Credentials, service: str, peer_ip: str) -> A | None:
        """The account that these credentials open, or None, which comes after the failure delay.

        Raises TemporaryFailure where too many wait or the store cannot be read. Cancel it when the peer leaves.
        """
        try:
            opened, checked = self._parties(credentials)
            why = await self._refusal(checked, credentials, service, peer_ip)
        except StorageFailure as error:
            self._count(credentials.mechanism, "temporary")
            raise TemporaryFailure(BUSY) from error
        except TemporaryFailure:
            self._count(credentials.mechanism, "temporary")
            # To be refused must cost whoever fills the queue, too.
            await self._sleep(self._settings.failure_delay * self._penalties.penalty(peer_ip))
            raise
        if not why and opened is not None and checked is not None:
            if opened.enabled and checked.enabled:
                self._penalties.forgive(peer_ip)
                self._succeeded(opened, checked, credentials, service)
                return opened
            why = "disabled"
        self._count(credentials.mechanism, "failure")
        self._log.info(
            "auth.failed",
            service=service,
            mechanism=credentials.mechanism,
            login=credentials.authcid.encode("utf-8", "backslashreplace")[:LOGIN_NAME_CHARACTERS],
            client=peer_ip,
            known=opened is not None,
            reason=why or "unknown",
        )
        await self._sleep(self._settings.failure_delay * self._penalties.failed(peer_ip))
        return None

    async def _refusal(self, checked: A | None, credentials: Credentials, service: str, peer_ip: str) -> str:
        """ "" where the credentials are the account's, else why not: a word for the log alone."""
        if credentials.token:
            return await self._token_refusal(checked, credentials.password)
        if credentials.mechanism == EXTERNAL:
            return "" if credentials.proof and checked is not None else "no such account"
        if credentials.proof is not None:
            if checked is not None and not self._credentials.scram_keys(checked.id, checked.password_hash):
                return "no SCRAM keys yet: they are made at the next login with the password"
            if checked is not None and self._credentials.totp(checked.id) is not None:
                return "a one-time code is needed"
            return "" if credentials.proof and checked is not None else "another password"
        if checked is not None and self._is_app_password(checked, credentials, service):
            return ""
        totp = self._credentials.totp(checked.id) if checked is not None else None
        password, code = credentials.password, ""
        if totp is not None:
            password, code = password[: -one_time.DIGITS], password[-one_time.DIGITS :]
        right = await self._passwords.verify(
            checked,
            password,
            service,
            credentials.mechanism,
            name=credentials.authcid[:LOGIN_NAME_CHARACTERS].lower(),
            peer=peer_ip,
        )
        if not right or checked is None:
            return "another password"
        if totp is not None:
            return await self._code_refusal(checked, totp, code)
        if self._learn is not None and not self._credentials.scram_keys(checked.id, checked.password_hash):
            self._learn(checked, credentials.password)
        return ""

    async def _code_refusal(self, account: A, totp: Totp, code: str) -> str:
        """Who knows the password has few codes to try, from however many addresses (RFC 4226 §7.3)."""
        if not self._penalties.may_try_code(account.id):
            return "too many one-time codes were tried"
        step = one_time.matching_step(totp.secret, code, self._now(), totp.last_step)
        if step is None or not await self._credentials.use_totp_step(account.id, totp, step):
            return "another one-time code"
        self._penalties.code_was_right(account.id)
        return ""

    async def _token_refusal(self, checked: A | None, token: str) -> str:
        try:
            name = await self._tokens.user(token)
        except TokenRefused as refusal:
            return f"token: {refusal}"
        named = self._account(name)
        if checked is None or named is None or named.address != checked.address:
            return "token: it is somebody else's"
        return ""

    def _is_app_password(self, account: A, credentials: Credentials, service: str) -> bool:
        entry = self._credentials.app_password(account.id, credentials.password)
        if entry is None:
            return False
        protocol = BY_NAME[service].protocol if service in BY_NAME else service
        return not entry.protocols or protocol in entry.protocols

    def _succeeded(self, opened: A, checked: A, credentials: Credentials, service: str) -> None:
        self._count(credentials.mechanism, "success")
        if opened is not checked:
            self._log.info("auth.master", service=service, master=checked.address, account=opened.address)

    def _parties(self, credentials: Credentials) -> Parties[A]:
        """Whom the credentials are for; accounts that are not there, or not this client's to name, are None."""
        name, target = credentials.authcid, credentials.authzid
        separator = self._settings.auth_master_user_separator
        if separator and not target and separator in name and credentials.mechanism != EXTERNAL:
            target, _, name = name.rpartition(separator)
        checked = self._account(name)
        if not target or self.login_address(target) == self.login_address(name):
            return Parties(checked, checked)
        opened = self._account(target)
        if checked is not None and opened is not None and opened.address == checked.address:
            return Parties(checked, checked)  # one of them is an alias
        if checked is None or checked.address not in self._settings.auth_master_users:
            return Parties(None, None)
        return Parties(opened, checked)

    def _account(self, name: str) -> A | None:
        address = self.login_address(name)
        if len(address) > LOGIN_NAME_CHARACTERS or any(ord(character) <= 32 for character in address):
            return None
        return self._accounts.lookup(address)

    def _scram_keys(self, name: str, mechanism: str) -> ScramKeys:
        """The keys for an exchange; for whoever has none the same ones each time, which no proof fits."""
        try:
            secret = self._credentials.login_secret() or self._secret
            account = self._account(name)
            if account is not None:
                keys = self._credentials.scram_keys(account.id, account.password_hash).get(mechanism)
                if keys is not None:
                    return keys
        except StorageFailure:
            secret = self._secret  # `authenticate` meets it too, and says so
        mark = f"{mechanism}\0{self.login_address(name)}".encode("utf-8", "surrogatepass")
        salt = hmac.digest(secret, mark, "sha256")[:SALT_BYTES]
        size = hashlib.new(HASHES[mechanism]).digest_size
        return ScramKeys(salt, ITERATIONS, os.urandom(size), os.urandom(size))

    def _count(self, mechanism: str, result: str) -> None:
        self._cells[METRICS.auth_total[mechanism, result]] += 1
