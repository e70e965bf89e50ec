"""The one grammar of routes and next hops, for `check`, the router, the owners of hops and the metrics' labels.

A route is `transport:argument`, as in Postfix's transport(5). A transport is one line of TRANSPORTS: how its argument
is read, and which class delivers. The class is a HopOwner (delivery/owner.py) of the module that the line names; the
module is loaded when the first recipient goes there.

Two kinds of text come here: what an administrator wrote, where each name must be one (`require_names`), and a
recipient's own domain, which may be anything and is the DNS's to judge.
"""

import ipaddress
import re
import socket
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from fastmta.model.reply import Reply

SMTP_PORT: Final = 25
LMTP_PORT: Final = 24
UNIX_PATH_BYTES: Final = 107  # sun_path is 108 bytes with its NUL
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_NO_HOST: Final = re.compile(r"[ \[\]@/]")
_PIPE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")


class Host(msgspec.Struct, frozen=True, gc=False):
    """One place of a next hop: a name or an address; `mx` says whether its MX records count. `path`: a unix socket.

    `text`: the place as it is written, by which maps know it.
    """

    name: str = ""
    port: int = 0
    mx: bool = False
    path: str = ""
    text: str = ""


class NextHop(msgspec.Struct, frozen=True):
    """A hop taken apart: the hosts to try in turn (smtp, lmtp), the reply that error: and retry: give, or the name of
    what delivers (pipe), with the next hop that it is told.
    """

    transport: str
    hosts: tuple[Host, ...] = ()
    reply: Reply | None = None
    name: str = ""
    next_hop: str = ""


def hop_named(text: str) -> bytes:
    """The hop that an administrator names: as listings show it ("smtp:[host]:25"), or a domain or host of smtp's."""
    written_out = ":" in text and not text.startswith("[")
    return (text if written_out else f"smtp:{text.removeprefix('@').lower()}").encode("utf-8", "surrogateescape")


class Transport(NamedTuple):
    """One way to deliver. `parse(argument, port)` gives the next hop, or raises ValueError with what is wrong."""

    name: str
    parse: Callable[[str, int], NextHop]
    owner: str  # "module:class" in fastmta/delivery
    label: str  # in metrics


# --- arguments ---


def _smtp(argument: str, port: int) -> NextHop:
    return NextHop("smtp", tuple(parse_host(each, port, mx=True) for each in _listed(argument)))


def _lmtp(argument: str, port: int) -> NextHop:
    return NextHop("lmtp", tuple(_lmtp_host(each) for each in _listed(argument)))


def _lmtp_host(text: str) -> Host:
    if not text.startswith("unix:"):
        return parse_host(text, LMTP_PORT, mx=False)
    path = text[5:]
    if not path.startswith("/"):
        raise ValueError("an absolute path follows lmtp:unix:")
    if len(path.encode("utf-8", "surrogateescape")) > UNIX_PATH_BYTES:
        raise ValueError(f"the path of a unix socket has at most {UNIX_PATH_BYTES} bytes")
    return Host(path=path, text=text)


def _error(argument: str, port: int) -> NextHop:
    return NextHop("error", reply=status_reply("error", argument))


def _retry(argument: str, port: int) -> NextHop:
    return NextHop("retry", reply=status_reply("retry", argument))


def _local(argument: str, port: int) -> NextHop:
    return NextHop("local")


def _discard(argument: str, port: int) -> NextHop:
    return NextHop("discard", reply=Reply(250, "2.0.0", "discarded"))


def _pipe(argument: str, port: int) -> NextHop:
    name, _, next_hop = argument.partition(":")
    if not _PIPE.fullmatch(name):
        raise ValueError("pipe: is followed by the name of a table [pipe.NAME], as in pipe:maildrop")
    return NextHop("pipe", name=name, next_hop=next_hop)


TRANSPORTS: Final = (
    Transport("smtp", _smtp, "remote:RemoteHop", "smtp"),
    Transport("lmtp", _lmtp, "remote:RemoteHop", "lmtp"),
    Transport("local", _local, "local:LocalHop", "local"),
    Transport("discard", _discard, "direct:DirectHop", "discard"),
    Transport("error", _error, "direct:DirectHop", "error"),
    Transport("retry", _retry, "direct:DirectHop", "error"),
    Transport("pipe", _pipe, "pipe:PipeHop", "pipe"),
)
BY_NAME: Final = {transport.name: transport for transport in TRANSPORTS}
NAMES: Final = (*BY_NAME, "hold")  # hold: is no transport; it stands before a route, or before nothing
ALIASES: Final = {"relay": "smtp", "virtual": "local"}  # Postfix's own names for services that are one here
ABSENT: Final = ("uucp", "cyrus")  # transports that a Postfix brings along and FastMTA does not have


# --- routes ---


def parse_route(text: str, default_port: int = SMTP_PORT) -> NextHop:
    """Takes a route or a hop apart; ValueError says in one line what is wrong with it."""
    name, colon, argument = text.partition(":")
    transport = BY_NAME.get(name)
    if transport is None or not colon:
        raise ValueError(f'"{text}" is not a route: it begins with one of {", ".join(f"{each}:" for each in NAMES)}')
    return transport.parse(argument, default_port)


def written_route(text: str, default_port: int = SMTP_PORT) -> str:
    """A line of [transport] as the router keeps it: names of Postfix's resolved, checked as `require_names` does.

    ":" is the default transport; "smtp:" and "lmtp:" go to the recipient's own domain; hold: may stand before each.
    """
    text = text.strip()
    name, colon, argument = text.partition(":")
    argument = argument.strip()
    if name in ABSENT:
        raise ValueError(f"FastMTA does not have the {name}: transport: remove it")
    if any(ord(character) < 32 for character in text):
        raise ValueError("a route is one line without control characters")
    if text == ":":
        return text
    if name == "hold" and colon:
        return "hold:" + (written_route(argument, default_port) if argument else "")
    name = ALIASES.get(name, name) or "smtp"
    written = f"{name}:{argument}" if colon else text
    if written not in ("smtp:", "lmtp:"):
        require_names(parse_route(written, default_port))
    return written


def written_filter(text: str, default_port: int = SMTP_PORT) -> str:
    """The route of a content filter, as the configuration and FILTER name it."""
    written = written_route(text, default_port)
    if written.partition(":")[0] not in ("smtp", "lmtp", "pipe"):
        raise ValueError(f'"{text}": a filter is reached by smtp:, lmtp: or pipe:, as in smtp:[127.0.0.1]:10025')
    return written


def is_pipe_name(text: str) -> bool:
    """Whether a table [pipe.NAME] may have this name."""
    return bool(_PIPE.fullmatch(text))


def written_relayhost(text: str, default_port: int = SMTP_PORT) -> str:
    """The route that relayhost means: hosts as behind smtp:, which may stand before them."""
    return written_route(f"smtp:{text.strip().removeprefix('smtp:')}", default_port)


def pipe_of(written: str) -> str:
    """The name of the pipe that a route leads to; "" where it leads to none."""
    route = written.removeprefix("hold:")
    return parse_route(route).name if route.startswith("pipe:") else ""


def of_domain(written: str, domain: str) -> str:
    """The route for one domain, where a written one leaves the next hop out; hold: and what is before it stays."""
    held = "hold:" if written.startswith("hold:") else ""
    name, _, argument = written.removeprefix("hold:").partition(":")
    if name in ("smtp", "lmtp") and not argument:
        return f"{held}{name}:{domain}"
    if name == "pipe" and ":" not in argument:
        return f"{held}pipe:{argument}:{domain}"
    return written


def require_names(next_hop: NextHop) -> None:
    """Raises ValueError where a host is neither a name nor an address, or lacks the brackets of an address."""
    for host in next_hop.hosts:
        if host.path:
            continue
        text, name = host.text, host.name
        is_address = written_address(name) is not None
        if not is_address and (":" in name or name.replace(".", "").isdigit()):
            raise ValueError(f'"{text}": {name} is not an address')
        if not is_address and not all(_LABEL.fullmatch(label) for label in name.split(".")):
            raise ValueError(f'"{text}": {name} is not the name of a host')
        if is_address and host.mx:
            raise ValueError(f'"{text}": an address stands in brackets, as in [{name}]')


def parse_host(text: str, default_port: int, *, mx: bool) -> Host:
    """ "[host]", "[host]:port", "host" or "host:port"; without brackets the MX of a domain is meant, where `mx`."""
    text = text.removeprefix("inet:")
    bracketed = text.startswith("[")
    if bracketed:
        name, closing, rest = text[1:].partition("]")
        good = bool(closing) and (not rest or rest.startswith(":"))
        port_text = rest[1:]
        name = literal_address(name) or name
    else:
        name, colon, port_text = text.partition(":")
        good = not colon or bool(port_text)
    if not good or not name or _NO_HOST.search(name + port_text):
        raise ValueError(f'"{text}" is not "[host]", "[host]:port", "domain" or "domain:port"')
    port = _port(port_text, text) if port_text else default_port
    return Host(name.lower().rstrip("."), port, mx and not bracketed, text=text)


def literal_address(literal: str) -> str | None:
    """The address in `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3), bare; None: not an address."""
    inner = literal.strip("[]")
    if inner[:5].lower() == "ipv6:":
        inner = inner[5:]
    return written_address(inner)


def written_address(text: str) -> str | None:
    """The address in its shortest spelling; None: not an address. (A new connection asks for the same one often.)"""
    try:
        socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        pass
    else:
        return text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def status_reply(transport: str, text: str) -> Reply:
    """The reply of `error:5.2.1 text`; the enhanced code may be absent, its class is fixed (Postfix's error(8))."""
    first, _, rest = text.strip().partition(" ")
    digit, code = ("5", 550) if transport == "error" else ("4", 450)
    parts = first.split(".")
    if len(parts) == 3 and all(part.isdigit() for part in parts):
        return Reply(code, f"{digit}.{parts[1]}.{parts[2]}", rest.strip() or "Mail is not delivered there")
    fallback = "mail for this destination is not accepted" if digit == "5" else "mail for this destination is deferred"
    return Reply(code, f"{digit}.0.0", text.strip() or fallback)


def _listed(argument: str) -> list[str]:
    if not argument.strip():
        raise ValueError("the next hop is empty")
    return [each.strip() for each in argument.split(",")]


def _port(text: str, whole: str) -> int:
    if text.isascii() and text.isdigit():
        port = int(text) if len(text) <= 5 else 0
    else:
        try:
            port = socket.getservbyname(text, "tcp")
        except OSError:
            port = 0
    if not 0 < port < 65536:
        raise ValueError(
            f'"{whole}": {text} is neither a port from 1 to 65535 nor the name of a service that this machine knows'
        )
    return port
