"""What no single key can tell: values that are right by themselves and wrong together, and [transport]'s routes."""

import re
from collections.abc import Iterator
from typing import Final

from fastmta.config.schema import SERVICES, TRANSPORTS, Config
from fastmta.config.values import parse_domain, parse_endpoint

_DOMAIN_LISTS: Final = ("mydestination", "virtual_mailbox_domains", "virtual_alias_domains", "relay_domains")
_TLS_SERVICES: Final = ("submissions", "imaps", "pop3s")
_HOST: Final = r"(?:\[[0-9A-Za-z:._-]+\]|[0-9A-Za-z._-]+)"
_NEXT_HOP: Final = re.compile(rf"{_HOST}(?::([0-9]{{1,5}}|smtp|smtps|submission|submissions|lmtp))?")


def inconsistencies(config: Config) -> Iterator[tuple[str, str]]:
    """Yields (dotted key, what is wrong)."""
    yield from _domains(config)
    yield from _listeners(config)
    if config.relayhost and not all(is_next_hop(host.strip()) for host in config.relayhost.split(",")):
        yield "relayhost", f'"{config.relayhost}" is not "[host]", "[host]:port", "domain" or "domain:port"'
    if re.search(r"[\sA-Za-z0-9@\"<>]", config.recipient_delimiter):
        yield "recipient_delimiter", "may hold only characters such as + - = that are not letters or digits"
    if config.tls.key_file and not config.tls.cert_file:
        yield "tls.key_file", "needs tls.cert_file"
    if config.delivery.maximal_backoff_time < config.delivery.minimal_backoff_time:
        yield "delivery.maximal_backoff_time", "is below delivery.minimal_backoff_time"


def is_next_hop(text: str) -> bool:
    match = _NEXT_HOP.fullmatch(text)
    return match is not None and (not (match[1] or "").isdigit() or 0 < int(match[1]) <= 65_535)


def _domains(config: Config) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for name in _DOMAIN_LISTS:
        for domain in getattr(config, name):
            if seen.setdefault(domain, name) != name:
                yield name, f"{domain} is in {seen[domain]} too: a domain belongs to one of them"


def _listeners(config: Config) -> Iterator[tuple[str, str]]:
    seen: dict[object, str] = {}
    for service in SERVICES:
        for text in getattr(config.listen, service):
            endpoint = parse_endpoint(text)
            if (endpoint.port or endpoint.path) and seen.setdefault(endpoint, service) != service:
                yield f"listen.{service}", f"{text} is listen.{seen[endpoint]}'s too"
    for service in _TLS_SERVICES:
        if getattr(config.listen, service) and not config.tls.cert_file:
            yield f"listen.{service}", "needs a certificate: set tls.cert_file and tls.key_file"
    if config.listen.managesieve:
        yield "listen.managesieve", "FastMTA does not have ManageSieve: remove it"


def route_problem(domain: str, route: str) -> str:
    """What is wrong with a line of [transport] such as "example.org" = "smtp:[192.0.2.1]:25"; "" where nothing is."""
    if domain != "*":
        try:
            parse_domain(domain.rpartition("@")[2].removeprefix("."))
        except ValueError as error:
            return f'expected "*", "domain", ".domain" (its subdomains) or "user@domain", the domain being {error}'
    transport, colon, next_hop = route.strip().partition(":")
    if transport in {"pipe", "uucp", "cyrus"}:
        return f"FastMTA does not have the {transport}: transport: remove it"
    if not colon or transport not in (*TRANSPORTS, "relay", "virtual", ""):
        return f'"{route}" is not a route: it begins with one of {", ".join(f"{name}:" for name in TRANSPORTS)}'
    if any(ord(character) < 32 for character in next_hop):
        return "a route is one line without control characters"
    if transport == "hold":
        return route_problem("*", next_hop) if next_hop else ""
    if transport == "lmtp":
        if next_hop.startswith("unix:"):
            return "" if next_hop[5:].startswith("/") else "an absolute path follows lmtp:unix:"
        next_hop = next_hop.removeprefix("inet:")
    if transport in {"smtp", "relay", "lmtp", ""} and next_hop:
        hosts = [host.strip() for host in next_hop.split(",")]
        if not all(is_next_hop(host) for host in hosts):
            return f'"{route}": expected {transport}:[host]:port or {transport}:domain'
    return ""
