"""OAuth access tokens for logins at relay hosts: fetched by a refresh token or a command, kept until they expire.

A refresh token is exchanged at the token URL (RFC 6749 §6); a command prints either a token, or the JSON object of such
a URL. A token is one user's, so it is kept by user and refresh token; who asks for the same one at the same time waits
for the one request. A token that a server refused is forgotten. Nothing here reaches a log but names and causes.
"""

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import msgspec

from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import OAUTH_COMMAND_S, OAUTH_FETCH_S, OAUTH_KEPT, OAUTH_LIFETIME_S, OAUTH_TOKEN_BYTES
from fastmta.model.reply import Reply
from fastmta.tls.https import HttpsError, fetch, parse_url

EARLY_S = 60.0  # before its end a token is fetched anew: a login takes a while
_SECRET_BYTES = 4096


class TokenSettings(Protocol):
    @property
    def smtp_sasl_oauth_token_url(self) -> str: ...
    @property
    def smtp_sasl_oauth_client_id(self) -> str: ...
    @property
    def smtp_sasl_oauth_client_secret_file(self) -> str: ...
    @property
    def smtp_sasl_oauth_scope(self) -> str: ...
    @property
    def smtp_sasl_oauth_token_command(self) -> tuple[str, ...]: ...


class _Answer(msgspec.Struct):
    access_token: str = ""
    expires_in: float | str = OAUTH_LIFETIME_S
    error: str = ""


class Tokens:
    """The tokens of one process."""

    def __init__(
        self,
        settings: TokenSettings,
        context: Callable[[], ssl.SSLContext],
        addresses: Callable[[str], Awaitable[tuple[str, ...]]],
        monotonic: Callable[[], float],
    ) -> None:
        """`context` verifies the token URL's certificate; `addresses` looks its host up."""
        self._settings = settings
        self._context = context
        self._addresses = addresses
        self._monotonic = monotonic
        self._kept: dict[bytes, tuple[str, float]] = {}
        self._asking: dict[bytes, asyncio.Task[str]] = {}

    @property
    def is_configured(self) -> bool:
        return bool(self._settings.smtp_sasl_oauth_token_url or self._settings.smtp_sasl_oauth_token_command)

    async def token(self, user: str, refresh_token: str, host: str) -> str:
        """An access token that is still good. TemporaryFailure: none can be had now."""
        key = _key(user, refresh_token)
        kept = self._kept.get(key)
        if kept is not None and self._monotonic() < kept[1]:
            return kept[0]
        task = self._asking.get(key)
        if task is None:
            work = self._obtain(key, user, refresh_token, host)
            task = self._asking[key] = asyncio.get_running_loop().create_task(work, name="OAuth token")
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    def forget(self, user: str, refresh_token: str) -> None:
        """A server has refused the token."""
        self._kept.pop(_key(user, refresh_token), None)

    async def close(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _obtain(self, key: bytes, user: str, refresh_token: str, host: str) -> str:
        try:
            command = bool(self._settings.smtp_sasl_oauth_token_command)
            raw = await (self._run(user, host) if command else self._refresh(refresh_token))
            answer = _parsed(raw, is_json=not command)
        except (HttpsError, OSError, ValueError) as error:
            raise TemporaryFailure(Reply(454, "4.7.0", f"no OAuth token for {user}: {error}")) from error
        until = self._monotonic() + max(0.0, min(float(answer.expires_in), 86_400.0) - EARLY_S)
        while len(self._kept) >= OAUTH_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (answer.access_token, until)
        return answer.access_token

    async def _refresh(self, refresh_token: str) -> bytes:
        settings = self._settings
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        if settings.smtp_sasl_oauth_client_id:
            form["client_id"] = settings.smtp_sasl_oauth_client_id
        if settings.smtp_sasl_oauth_client_secret_file:
            form["client_secret"] = _file_text(settings.smtp_sasl_oauth_client_secret_file)
        if settings.smtp_sasl_oauth_scope:
            form["scope"] = settings.smtp_sasl_oauth_scope
        url = parse_url(settings.smtp_sasl_oauth_token_url)
        context = self._context()
        try:
            addresses = await self._addresses(url.host)
        except Exception as error:
            raise HttpsError(f"{url.host} is not found: {error}") from error
        response = await fetch(
            url,
            addresses,
            context,
            method="POST",
            body=urlencode(form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            limit_bytes=OAUTH_TOKEN_BYTES,
            timeout_s=OAUTH_FETCH_S,
        )
        if response.status != 200:
            reason = _reason(response.body)
            raise HttpsError(f"{url.host} answers {response.status}{f' {reason}' if reason else ''}")
        return response.body

    async def _run(self, user: str, host: str) -> bytes:
        command = self._settings.smtp_sasl_oauth_token_command
        process = await asyncio.create_subprocess_exec(
            *command,
            user,
            host,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
        )
        name = Path(command[0]).name
        try:
            async with asyncio.timeout(OAUTH_COMMAND_S):
                assert process.stdout is not None
                raw = b""
                while piece := await process.stdout.read(OAUTH_TOKEN_BYTES + 1 - len(raw)):
                    raw += piece
                    if len(raw) > OAUTH_TOKEN_BYTES:
                        raise ValueError(f"{name} prints more than {OAUTH_TOKEN_BYTES} bytes")
                status = await process.wait()
        except TimeoutError as error:
            raise ValueError(f"{name} did not end in {OAUTH_COMMAND_S:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if status:
            raise ValueError(f"{name} ended with status {status}")
        return raw


def _file_text(path: str) -> str:
    """One small read, once an hour."""
    with open(path, "rb") as file:
        return file.read(_SECRET_BYTES).decode().strip()


def _parsed(raw: bytes, *, is_json: bool) -> _Answer:
    text = raw.strip()
    if not is_json and not text.startswith(b"{"):
        answer = _Answer(access_token=text.decode())
    else:
        try:
            answer = msgspec.json.decode(text, type=_Answer)
            float(answer.expires_in)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ValueError("the answer is not a token as RFC 6749 has it") from error
    token = answer.access_token
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the answer has no token")
    return answer


def _reason(body: bytes) -> str:
    """The error code of RFC 6749 §5.2: a word that is fit for a log."""
    try:
        error = msgspec.json.decode(body, type=_Answer).error
    except msgspec.MsgspecError:
        return ""
    return error[:60] if error.replace("_", "").isalnum() and error.isascii() else ""


def _key(user: str, refresh_token: str) -> bytes:
    return hashlib.blake2b(f"{user}\0{refresh_token}".encode(), digest_size=16).digest()
