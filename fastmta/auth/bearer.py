"""OAuth access tokens that clients log in with (RFC 7628, RFC 6750): whose they are, and whether they are good now.

A token is either a JWT (RFC 9068), verified here by the issuer's keys (RFC 7517), or opaque: then the issuer is asked
at each login (RFC 7662). Who it belongs to says one claim. What was good is remembered for a short time, by a digest.
Signatures are verified on a thread; nothing of a token reaches a log.
"""

import asyncio
import hashlib
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

import msgspec

from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import (
    OAUTH_FETCH_S,
    OAUTH_JWKS_BYTES,
    OAUTH_KEPT,
    OAUTH_KEYS_S,
    OAUTH_LIFETIME_S,
    OAUTH_TOKEN_BYTES,
)
from fastmta.model.reply import Reply
from fastmta.tls.https import HttpsError, Response, fetch, parse_url

# What an issuer may sign with: no symmetric key (RFC 8725 §3.1), and never "none".
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_S: Final = 30.0  # between the issuer's clock and ours
_SECRET_BYTES: Final = 4096

Claims = dict[str, Any]


class BearerSettings(Protocol):
    """The keys oauth2_... of [auth]; Dovecot's passdb of that name has the same words."""

    @property
    def oauth2_introspection_url(self) -> str: ...
    @property
    def oauth2_introspection_mode(self) -> str: ...
    @property
    def oauth2_jwks_file(self) -> str: ...
    @property
    def oauth2_jwks_url(self) -> str: ...
    @property
    def oauth2_issuers(self) -> tuple[str, ...]: ...
    @property
    def oauth2_client_id(self) -> str: ...
    @property
    def oauth2_client_secret_file(self) -> str: ...
    @property
    def oauth2_username_attribute(self) -> str: ...
    @property
    def oauth2_active_attribute(self) -> str: ...
    @property
    def oauth2_active_value(self) -> str: ...
    @property
    def oauth2_scope(self) -> tuple[str, ...]: ...


class TokenRefused(Exception):
    """The token opens nothing; the text says why, without any of it."""


class Bearers:
    """The tokens of one process, on its loop."""

    def __init__(
        self,
        settings: BearerSettings,
        *,
        context: Callable[[], ssl.SSLContext],
        addresses: Callable[[str], Awaitable[tuple[str, ...]]],
        pool: Executor,
        monotonic: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        """`context` verifies the issuer's certificate; `addresses` looks its host up; `pool` verifies signatures."""
        self._settings = settings
        self._context = context
        self._addresses = addresses
        self._pool = pool
        self._monotonic = monotonic
        self._now = now
        self._good: dict[bytes, tuple[str, float]] = {}  # digest: whose, until when; oldest first
        self._keys: Any = None  # a jwt.PyJWKSet
        self._keys_until = 0.0
        self._fetching: asyncio.Task[None] | None = None

    @property
    def is_configured(self) -> bool:
        return self._has_keys or bool(self._settings.oauth2_introspection_url)

    @property
    def _has_keys(self) -> bool:
        return bool(self._settings.oauth2_jwks_file or self._settings.oauth2_jwks_url)

    async def user(self, token: str) -> str:
        """The name that the token stands for. TokenRefused: nobody's. TemporaryFailure: the issuer cannot be asked."""
        key = hashlib.sha256(token.encode()).digest()
        kept = self._good.get(key)
        if kept is not None and self._monotonic() < kept[1]:
            return kept[0]
        self._good.pop(key, None)
        try:
            claims = await (self._verified(token) if self._has_keys else self._introspected(token))
        except (HttpsError, OSError, msgspec.MsgspecError) as error:
            raise TemporaryFailure(Reply(454, "4.7.0", f"OAuth tokens cannot be checked: {error}")) from error
        name = self._name_in(claims)
        expires = claims.get("exp")
        good_s = OAUTH_LIFETIME_S
        if isinstance(expires, int | float):
            good_s = min(good_s, expires - self._now())
        while len(self._good) >= OAUTH_KEPT:
            del self._good[next(iter(self._good))]
        self._good[key] = (name, self._monotonic() + good_s)
        return name

    def _name_in(self, claims: Claims) -> str:
        settings = self._settings
        expires = claims.get("exp")
        if isinstance(expires, int | float) and expires + LEEWAY_S < self._now():
            raise TokenRefused("it has expired")
        if settings.oauth2_issuers and claims.get("iss") not in settings.oauth2_issuers:
            raise TokenRefused("its issuer is not in oauth2_issuers")
        if settings.oauth2_client_id and self._has_keys:
            audience = claims.get("aud")
            named = audience if isinstance(audience, list) else [audience]
            if settings.oauth2_client_id not in [*named, claims.get("azp")]:
                raise TokenRefused("it was made for another client than oauth2_client_id")
        wanted = settings.oauth2_active_attribute
        if wanted and str(claims.get(wanted, "")).lower() != (settings.oauth2_active_value or "true").lower():
            raise TokenRefused(f"its {wanted} is not as oauth2_active_value asks")
        scope = claims.get("scope", claims.get("scp", ""))
        granted = scope if isinstance(scope, list) else str(scope).split()
        if missing := [each for each in settings.oauth2_scope if each not in granted]:
            raise TokenRefused(f"its scope lacks {' '.join(missing)}")
        name = claims.get(settings.oauth2_username_attribute)
        if not isinstance(name, str) or not name:
            raise TokenRefused(f"it has no {settings.oauth2_username_attribute}")
        return name

    # --- verified by the issuer's keys ---

    async def _verified(self, token: str) -> Claims:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
            raise TokenRefused("it is no JWT") from error
        key = await self._key(str(header.get("kid", "")), str(header.get("alg", "")))
        issuers = list(self._settings.oauth2_issuers) or None

        def verify() -> Claims:
            claims: Claims = jwt.decode(
                token,
                key,
                algorithms=[str(header["alg"])],
                issuer=issuers,
                leeway=LEEWAY_S,
                options={"require": ["exp"], "verify_aud": False},  # the audience is looked at with the other claims
            )
            return claims

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, verify)
        except jwt.ExpiredSignatureError as error:
            raise TokenRefused("it has expired") from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise TokenRefused(f"it cannot be verified: {type(error).__name__}") from error

    async def _key(self, key_id: str, algorithm: str) -> Any:
        """The issuer's key of that id, or its only one; the keys are read again where an id is new to us."""
        if algorithm not in ALGORITHMS:
            raise TokenRefused("its algorithm is not one for access tokens")
        for fresh in (False, True):
            await self._have_keys(fresh)
            candidates = [key for key in self._keys.keys if not key_id or key.key_id in (key_id, None)]
            exact = [key for key in candidates if key.key_id == key_id] or candidates
            if len(exact) == 1:
                return exact[0]
        raise TokenRefused("the issuer has no such key")

    async def _have_keys(self, fresh: bool) -> None:
        now = self._monotonic()
        # A stranger's token with an unknown key id must not make us ask the issuer again and again.
        if self._keys is not None and now < self._keys_until - (OAUTH_KEYS_S - OAUTH_FETCH_S if fresh else 0.0):
            return
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._read_keys(), name="OAuth keys")
            self._fetching.add_done_callback(lambda _: setattr(self, "_fetching", None))
        await asyncio.shield(self._fetching)

    async def _read_keys(self) -> None:
        import jwt

        settings = self._settings
        if settings.oauth2_jwks_file:
            raw = await asyncio.to_thread(Path(settings.oauth2_jwks_file).read_bytes)
        else:
            answer = await self._ask(settings.oauth2_jwks_url, limit_bytes=OAUTH_JWKS_BYTES)
            if answer.status != 200:
                raise HttpsError(f"oauth2_jwks_url answers {answer.status}")
            raw = answer.body
        try:
            self._keys = jwt.PyJWKSet.from_dict(msgspec.json.decode(raw, type=dict[str, Any]))
        except jwt.PyJWTError as error:
            raise HttpsError(f"the issuer's keys cannot be used: {error}") from error
        self._keys_until = self._monotonic() + OAUTH_KEYS_S

    # --- asked of the issuer ---

    async def _introspected(self, token: str) -> Claims:
        """RFC 7662 §2.1, and the two forms that Dovecot has beside it."""
        settings = self._settings
        url, mode = settings.oauth2_introspection_url, settings.oauth2_introspection_mode
        if mode == "post":
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            if settings.oauth2_client_id:
                secret = await asyncio.to_thread(_secret, settings.oauth2_client_secret_file)
                pair = f"{quote(settings.oauth2_client_id, safe='')}:{quote(secret, safe='')}"
                headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
            answer = await self._ask(url, "POST", urlencode({"token": token}).encode(), headers)
        elif mode == "get":
            answer = await self._ask(url + quote(token, safe=""))
        else:
            answer = await self._ask(url, headers={"Authorization": f"Bearer {token}"})
        if answer.status in (400, 401, 403):
            raise TokenRefused(f"the issuer answers {answer.status}")
        if answer.status != 200:
            raise HttpsError(f"the issuer answers {answer.status}")
        claims = msgspec.json.decode(answer.body, type=dict[str, Any])
        if mode == "post" and claims.get("active") is not True:
            raise TokenRefused("the issuer says that it is not active")
        return claims

    async def _ask(
        self,
        url: str,
        method: str = "GET",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        limit_bytes: int = OAUTH_TOKEN_BYTES,
    ) -> Response:
        target = parse_url(url)
        try:
            addresses = await self._addresses(target.host)
        except Exception as error:
            raise HttpsError(f"{target.host} is not found: {error}") from error
        return await fetch(
            target,
            addresses,
            self._context(),
            method=method,
            body=body,
            headers={"Accept": "application/json", **(headers or {})},
            limit_bytes=limit_bytes,
            timeout_s=OAUTH_FETCH_S,
        )


def _secret(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(_SECRET_BYTES).decode().strip()
