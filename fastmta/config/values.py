"""The notation of single values: times, sizes, lists, endpoints, networks, maps.

Every function takes what TOML gave and returns the value, or raises ValueError whose text says what was expected;
config/load.py adds file, line and key.
"""

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from fastmta.config.map_types import FILE_TYPES, MAP_TYPES, fixed_value, inline_entries, split_braced
from fastmta.model.first_mailboxes import FIRST_MAILBOXES
from fastmta.model.quota import MailboxRule, QuotaRules

AUTOCREATED: Final = tuple(name for name, use in FIRST_MAILBOXES if use)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_TIME: Final = re.compile(r"(\d{1,12})\s*([smhdw]?)", re.IGNORECASE)
_SIZE: Final = re.compile(r"(\d{1,18})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_SOCKET_SETTINGS: Final = {"mode": re.compile(r"0?[0-7]{3}"), "user": _USER, "group": _USER}


class Endpoint(NamedTuple):
    """Where a service listens: a host and port, or the path of a unix socket."""

    host: str
    port: int
    path: str = ""
    mode: int = 0o666  # of a unix socket, as Dovecot's and Postfix's: who reaches it, its directory decides
    user: str = ""  # whose it is; "": who makes it
    group: str = ""


def parse_time(value: object, unit: str = "s") -> float:
    """Seconds from "5d", "300s" or a bare number, which counts in `unit` as in Postfix."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return float(value * _SECONDS[unit])
    match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a time such as "300s", "10m", "4h", "5d" or "1w"')
    return float(int(match[1]) * _SECONDS[match[2].lower() or unit])


def parse_size(value: object) -> int:
    """Bytes from "50M" (K, M, G, T: powers of 1024) or a bare number."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a size such as "50M", "2G" or a number of bytes')
    return int(match[1]) * _BYTES[match[2].upper()]


def parse_quota_rules(texts: Iterable[str]) -> QuotaRules:
    """Dovecot's rules: "*:storage=1G:messages=1000", "Trash:storage=+100M", "Archive/*:storage=+10%", "Spam:ignore".

    Storage counts in KiB, bytes in octets where no unit is given. As in Dovecot 2.3 a mailbox's rule is what its
    account may hold beyond its own limit, with or without the plus. ValueError.
    """
    octets = messages = 0
    mailboxes: list[MailboxRule] = []
    for text in filter(None, texts):
        mask, colon, rest = text.partition(":")
        if not mask or not colon or len(mask.encode()) > 400:
            raise ValueError('a rule such as "*:storage=1G:messages=1000" or "Trash:storage=+100M"')
        everything = mask in ("*", "?")
        if rest == "ignore" and not everything:
            if set(mask) & set("*?"):
                raise ValueError(f"ignore for one mailbox, not for {mask!r}")
            mailboxes.append(MailboxRule(_mask(mask), ignore=True))
            continue
        rule = MailboxRule(_mask(mask))
        for limit in rest.split(":"):
            rule = _with_limit(rule, limit, everything)
        if everything:
            octets, messages = rule.octets, rule.messages
        else:
            mailboxes.append(rule)
    return QuotaRules(octets, messages, tuple(mailboxes))


def _mask(text: str) -> str:
    return "INBOX" if text.upper() == "INBOX" else text


def _with_limit(rule: MailboxRule, limit: str, everything: bool) -> MailboxRule:
    name, _, number = limit.partition("=")
    match = re.fullmatch(r"([+-]?)\s*(\d+\s*[KMGT]?)(%{0,2})", number.strip(), re.I)
    if name not in ("storage", "bytes", "messages") or match is None or (everything and (match[1] or match[3])):
        raise ValueError(f"storage=SIZE, bytes=SIZE or messages=NUMBER, not {limit!r}")
    if name == "messages" or match[3]:
        if not match[2].isdigit():
            raise ValueError(f"a whole number in {limit!r}")
        value = int(match[2])
    else:
        value = parse_size(match[2]) * (1024 if name == "storage" and match[2].isdigit() else 1)
    if value >= (2**32 - 1 if name == "messages" else 2**53) or (match[3] and value > 10_000):
        raise ValueError(f"a smaller number in {limit!r}")
    value = -value if match[1] == "-" else value
    if name == "messages":
        return rule._replace(messages=value, percent_messages=bool(match[3]))
    return rule._replace(octets=value, percent=bool(match[3]))


def parse_mailbox_names(words: Iterable[str]) -> dict[str, str]:
    """What Drafts, Sent, Junk, Trash and Archive are called instead, of words such as "Sent=Gesendet". ValueError."""
    names: dict[str, str] = {}
    for word in words:
        usual, _, name = word.partition("=")
        if usual not in AUTOCREATED or usual in names:
            raise ValueError(f"one name for each of {', '.join(AUTOCREATED)}, not {word!r}")
        if not 0 < len(name.encode()) <= 200 or not name.isprintable() or set(name) & set("/*%") or name in (".", ".."):
            raise ValueError(f"a mailbox's name of one level behind {usual}=, not {name!r}")
        names[usual] = name
    given = [names.get(usual, usual).upper() for usual in ("INBOX", *AUTOCREATED)]
    if len(set(given)) < len(given):
        raise ValueError("names that differ from each other and from INBOX")
    return names


def parse_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in {"yes", "no", "true", "false"}:
        raise ValueError("true or false")
    return word in {"yes", "true"}


def parse_int(value: object, low: int, high: int) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,18}\s*", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        limit = f"at least {low}" if high >= 2**62 else f"from {low} to {high}"
        raise ValueError(f"a whole number, {limit}")
    return value


def split_list(text: str) -> list[str]:
    """Postfix's one-string form: items apart by commas and white space; what stands in braces belongs together."""
    return split_braced(text)


def parse_domain(text: str) -> str:
    """A domain name in lower case, without a trailing dot."""
    name = text.strip().rstrip(".").lower()
    if not name or len(name) > 255 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError("a domain name such as example.org (in its xn-- form where it isn't ASCII)")
    return name


def parse_domain_or_none(text: str) -> str:
    """As parse_domain; "" is none."""
    return parse_domain(text) if text.strip() else ""


def parse_match(text: str) -> str:
    """One of Postfix's strategies for matching a certificate's names, or a domain; ".domain" means those below."""
    word = text.strip().lower()
    if word in ("hostname", "nexthop", "dot-nexthop"):
        return word
    try:
        return "." + parse_domain(word[1:]) if word.startswith(".") else parse_domain(word)
    except ValueError:
        raise ValueError("hostname, nexthop, dot-nexthop, a domain, or a domain after a dot") from None


def parse_user(text: str) -> str:
    if not _USER.fullmatch(text):
        raise ValueError("the name of a system user")
    return text


def parse_network(text: str) -> str:
    """A network in Postfix's notation ("127.0.0.0/8", "[::1]/128", "[2001:db8::1]"), normalised to ipaddress's."""
    bare = re.sub(r"^\[([0-9a-fA-F:.]+)\]", r"\1", text.strip())
    try:
        return str(ipaddress.ip_network(bare, strict=True))
    except ValueError as error:
        if "host bits" in str(error):
            network = ipaddress.ip_network(bare, strict=False)
            raise ValueError(f"a network without host bits ({network}, probably)") from None
        raise ValueError('a network such as "192.0.2.0/24" or "[2001:db8::]/32"') from None


def parse_endpoint(text: str) -> Endpoint:
    """ "host:port", "[v6]:port", "unix:/path" or "unix:/path;mode=0660;user=NAME;group=NAME"."""
    if text.startswith("unix:"):
        path, _, settings = text[5:].partition(";")
        if not path or len(path.encode()) > 107 or "\0" in path:  # sun_path is 108 bytes with its NUL
            raise ValueError('a unix socket such as "unix:/run/fastmta/lmtp", at most 107 bytes')
        return Endpoint("", 0, path, *_socket_settings(settings))
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        _require_address(host, 6)
    elif ":" in host:
        raise ValueError('an IPv6 endpoint in brackets, such as "[::]:25"')
    if not colon or not host or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65_535:
        raise ValueError('an endpoint such as "0.0.0.0:25", "[::]:25" or "unix:/path"')
    if host == "*":
        host = "0.0.0.0"
    if not re.fullmatch(r"[0-9a-zA-Z:.-]+", host):
        raise ValueError("an address or host name before the port")
    return Endpoint(host, int(port))


def _socket_settings(text: str) -> tuple[int, str, str]:
    """(mode, user, group) of a unix socket, from "mode=0660;user=NAME;group=NAME", each of which may be left out."""
    found: dict[str, str] = {}
    for word in text.split(";") if text else ():
        name, _, value = word.partition("=")
        pattern = _SOCKET_SETTINGS.get(name)
        if name in found or pattern is None or not pattern.fullmatch(value):
            raise ValueError(f'";mode=0660", ";user=NAME" or ";group=NAME" behind the path, not "{word}"')
        found[name] = value
    return int(found.get("mode", "666"), 8), found.get("user", ""), found.get("group", "")


def parse_peer(text: str) -> Endpoint:
    """A service that is asked: "inet:host:port", "inet:[v6]:port" or "unix:/path"."""
    kind, _, rest = text.partition(":")
    if kind.lower() == "unix" and rest.startswith("/") and ";" not in rest:
        return parse_endpoint("unix:" + rest)
    if kind.lower() == "inet" and rest:
        endpoint = parse_endpoint(rest)
        if endpoint.port and not endpoint.path:
            return endpoint
    raise ValueError('a service such as "inet:127.0.0.1:10023" or "unix:/run/service"')


def parse_server(text: str) -> str:
    """A name server: "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:5353"."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    _require_address(host)
    if not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) <= 65_535:
        raise ValueError("a port from 1 to 65535 after the address")
    return text


def parse_map(text: str, base: Path) -> str:
    """ "hash:/path" and its like, the path made absolute; "inline:{...}" and "static:value" as they are."""
    kind, colon, path = text.partition(":")
    if not colon or kind not in MAP_TYPES or not path:
        raise ValueError(f"a map such as hash:/etc/fastmta/virtual (types: {', '.join(MAP_TYPES)})")
    if kind == "inline":
        inline_entries(path)
    elif kind == "static":
        fixed_value(path)
    return f"{kind}:{base / path}" if kind in FILE_TYPES else text


def _require_address(text: str, version: int = 0) -> None:
    try:
        found = ipaddress.ip_address(text).version
    except ValueError:
        raise ValueError("an IP address") from None
    if version and found != version:
        raise ValueError("an IPv6 address between the brackets")
