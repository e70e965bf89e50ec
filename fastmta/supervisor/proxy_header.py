"""The PROXY protocol (versions 1 and 2): what a proxy in front of us says of the client it speaks for.

The header comes before everything else, before TLS too, so it is read from the socket itself, as far as it goes, and
what follows stays there for the session.
"""

import asyncio
import socket
import struct
from typing import Final

import msgspec

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
V1_BYTES: Final = 107  # with its CRLF, as the protocol has it
V2_EXTRA_BYTES: Final = 4096  # of addresses and what follows them; proxies send some hundred
_V2_HEAD: Final = 16
_PEEKED: Final = _V2_HEAD + V2_EXTRA_BYTES
_ENDED: Final = "the connection ended before its PROXY header"
_MAPPED: Final = bytes(10) + b"\xff\xff"
_FAMILIES: Final = {0x11: (4, socket.AF_INET), 0x21: (16, socket.AF_INET6)}  # TCP over IPv4, IPv6
_VERSIONS: Final = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}


class BadHeader(ValueError):
    """What came is no header of the PROXY protocol; the text says why."""


class Peer(msgspec.Struct, frozen=True):
    """The client that a proxy speaks for."""

    ip: str
    port: int


def wanted(raw: bytes) -> int:
    """How many more octets may be read without going beyond the header; 0: it is complete. Raises BadHeader."""
    if not raw:
        return len(SIGNATURE)  # the shortest header is longer
    if raw.startswith(b"P"):
        if not b"PROXY ".startswith(raw[:6]):
            raise BadHeader("no PROXY header")
        if b"\n" in raw[:-1]:
            raise BadHeader("no PROXY header")
        if len(raw) > V1_BYTES or (len(raw) == V1_BYTES and not raw.endswith(b"\r\n")):
            raise BadHeader("the PROXY line is too long")
        if raw.endswith(b"\r\n"):
            return 0
        return 1 if raw.endswith(b"\r") or len(raw) == V1_BYTES - 1 else 2
    if not SIGNATURE.startswith(raw[: len(SIGNATURE)]):
        raise BadHeader("no PROXY header")
    if len(raw) < _V2_HEAD:
        return _V2_HEAD - len(raw)
    (length,) = struct.unpack_from(">H", raw, 14)
    if length > V2_EXTRA_BYTES:
        raise BadHeader("the PROXY header is too long")
    return int(_V2_HEAD + length - len(raw))


def parse(raw: bytes) -> Peer | None:
    """The client of a complete header; None where the proxy speaks for itself or does not know. Raises BadHeader."""
    return _parse_v2(raw) if raw.startswith(SIGNATURE) else _parse_v1(raw)


def _parse_v1(raw: bytes) -> Peer | None:
    words = raw[:-2].split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return None
    if len(words) != 6 or words[1] not in _VERSIONS:
        raise BadHeader("a PROXY line is: PROXY TCP4|TCP6 client server port port")
    try:
        family = _VERSIONS[words[1]]
        client, _ = (socket.inet_pton(family, word.decode("ascii")) for word in words[2:4])
        ports = [int(word) for word in words[4:6] if word.isdigit() and len(word) <= 5]
    except (OSError, ValueError) as error:
        raise BadHeader(f"an address of the PROXY line is none of {words[1].decode()}") from error
    if len(ports) != 2 or max(ports) > 65_535:
        raise BadHeader("a port of the PROXY line is none")
    return Peer(_address(family, client), ports[0])


def _parse_v2(raw: bytes) -> Peer | None:
    command, family = raw[12], raw[13]
    if command >> 4 != 2 or command & 15 > 1:
        raise BadHeader("a PROXY header of an unknown version or command")
    if command & 15 == 0 or family not in _FAMILIES:  # LOCAL: a proxy's own health check
        return None
    octets, address_family = _FAMILIES[family]
    if len(raw) < _V2_HEAD + 2 * octets + 4:
        raise BadHeader("the PROXY header has no room for its addresses")
    address = _address(address_family, raw[_V2_HEAD : _V2_HEAD + octets])
    (port,) = struct.unpack_from(">H", raw, _V2_HEAD + 2 * octets)
    return Peer(address, port)


def _address(family: socket.AddressFamily, raw: bytes) -> str:
    """As text; one of IPv4 as such, which a proxy that listens for both families has mapped: bans know it so."""
    mapped = raw[:12] == _MAPPED and len(raw) == 16
    return socket.inet_ntop(socket.AF_INET, raw[12:]) if mapped else socket.inet_ntop(family, raw)


async def read_header(loop: asyncio.AbstractEventLoop, sock: socket.socket, timeout_s: float) -> Peer | None:
    """Takes the header off a connected, non-blocking socket. Raises BadHeader, TimeoutError or OSError."""
    raw = _taken(sock, b"")
    if wanted(raw):
        async with asyncio.timeout(timeout_s):
            while (more := wanted(raw)) > 0:
                octets = await loop.sock_recv(sock, more)
                if not octets:
                    raise BadHeader(_ENDED)
                raw = _taken(sock, raw + octets)
    return parse(raw)


def _taken(sock: socket.socket, raw: bytes) -> bytes:
    """The header as far as it has come, in two calls of the system where it is whole. Raises BadHeader or OSError."""
    while wanted(raw):
        try:
            seen = sock.recv(_PEEKED, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            break
        if not seen:
            raise BadHeader(_ENDED)
        raw += sock.recv(_of_header(raw, seen))
    return raw


def _of_header(raw: bytes, seen: bytes) -> int:
    """How many of the octets that follow belong to the header. Raises BadHeader."""
    if not raw and seen.startswith(b"PROXY "):
        end = seen.find(b"\r\n", 0, V1_BYTES)
        if end > 0:
            return end + 2
    at = 0
    while at < len(seen) and (more := wanted(raw)) > 0:
        piece = seen[at : at + more]
        raw += piece
        at += len(piece)
    return at
