"""One bounded HTTPS request (RFC 9112): what a token or a policy is fetched with.

No redirects, no cookies, no compression, one connection a request. The server's certificate and name are verified;
size and time are bounded whatever the server does.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from fastmta.model.limits import HTTPS_HEADER_BYTES


class Response(NamedTuple):
    """`headers` by lower-case name, the first of a name."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpsError(Exception):
    """No response was had; the text says why."""


class Url(NamedTuple):
    host: str
    port: int
    target: str


def parse_url(url: str) -> Url:
    """ValueError: not an https: URL that can be fetched."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise ValueError("not an https: URL")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if any(not 32 < ord(character) < 127 for character in target):
        raise ValueError("not an https: URL")
    return Url(parts.hostname, parts.port or 443, target)


async def fetch(
    url: Url,
    addresses: Sequence[str],
    context: ssl.SSLContext,
    *,
    method: str = "GET",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    limit_bytes: int,
    timeout_s: float,
) -> Response:
    """Asks the first of the host's `addresses` that can be reached. HttpsError where there is no whole response."""
    failure = "it has no address"
    try:
        async with asyncio.timeout(timeout_s):
            for address in addresses:
                try:
                    reader, writer = await asyncio.open_connection(
                        address, url.port, ssl=context, server_hostname=url.host, limit=HTTPS_HEADER_BYTES
                    )
                except (OSError, ValueError) as error:
                    failure = _cause(error)
                    continue
                try:
                    writer.write(_request(url, method, body, headers or {}))
                    return await _response(reader, limit_bytes)
                finally:
                    writer.transport.abort()
    except TimeoutError as error:
        raise HttpsError(f"{url.host} did not answer in {timeout_s:g} s") from error
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        raise HttpsError(f"{url.host}: {_cause(error)}") from error
    raise HttpsError(f"{url.host} cannot be reached: {failure}")


def _request(url: Url, method: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    host = f"[{url.host}]" if ":" in url.host else url.host
    host = host if url.port == 443 else f"{host}:{url.port}"
    lines = [f"{method} {url.target} HTTP/1.1", f"Host: {host}", "Connection: close", "User-Agent: FastMTA"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _response(reader: asyncio.StreamReader, limit_bytes: int) -> Response:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, _, rest = head[0].partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise ValueError("the answer is not HTTP/1.1")
        status = int(rest[:3])
        if status // 100 != 1:
            break
    headers: dict[str, str] = {}
    for line in head[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return Response(status, headers, await _chunked(reader, limit_bytes))
    length = headers.get("content-length")
    if length is None:
        body = b""
        while piece := await reader.read(limit_bytes + 1 - len(body)):
            body += piece
            if len(body) > limit_bytes:
                raise ValueError(f"the answer is longer than {limit_bytes} bytes")
        return Response(status, headers, body)
    if not length.isdigit() or len(length) > 10 or int(length) > limit_bytes:
        raise ValueError(f"the answer is longer than {limit_bytes} bytes")
    return Response(status, headers, await reader.readexactly(int(length)))


async def _chunked(reader: asyncio.StreamReader, limit_bytes: int) -> bytes:
    body = b""
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0].strip(), 16)
        if size == 0:
            return body
        if size < 0 or len(body) + size > limit_bytes:
            raise ValueError(f"the answer is longer than {limit_bytes} bytes")
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk does not end where it should")


def _cause(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, EOFError):
        return "the answer breaks off"
    return str(error) or type(error).__name__
