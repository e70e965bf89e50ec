"""What no single key can tell: values that are right by themselves and wrong together, and [transport]'s routes."""

import ipaddress
import re
import socket
from collections.abc import Iterator
from typing import Final

from fastmta.config.schema import TRANSPORTS, Config
from fastmta.config.tls_words import parse_protocols
from fastmta.config.values import parse_domain, parse_endpoint
from fastmta.model.services import NAMES, SERVICES, Tls

_DOMAIN_LISTS: Final = ("mydestination", "virtual_mailbox_domains", "virtual_alias_domains", "relay_domains")
_NEXT_HOP: Final = re.compile(r"(?:\[([0-9A-Za-z:._-]+)\]|([0-9A-Za-z._-]+))(?::([0-9A-Za-z._-]+))?")
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def inconsistencies(config: Config) -> Iterator[tuple[str, str]]:
    """Yields (dotted key, what is wrong)."""
    yield from _domains(config)
    yield from _listeners(config)
    for host in config.relayhost.removeprefix("smtp:").split(",") if config.relayhost else ():
        problem = next_hop_problem(host.strip())
        if problem:
            yield "relayhost", problem
            break
    if re.search(r"[\sA-Za-z0-9@\"<>]", config.recipient_delimiter):
        yield "recipient_delimiter", "may hold only characters such as + - = that are not letters or digits"
    yield from _logins(config)
    yield from _outgoing_tls(config)
    for name, version in (("smtp_bind_address", 4), ("smtp_bind_address6", 6)):
        text = getattr(config.delivery, name)
        if text and not (_is_address(text) and ipaddress.ip_address(text).version == version):
            yield f"delivery.{name}", f'"{text}" is not an IPv{version} address'
    for text in config.delivery.smtp_fallback_relay:
        problem = next_hop_problem(text, mx=True)
        if problem:
            yield "delivery.smtp_fallback_relay", problem
    for text in config.proxy_interfaces:
        if not _is_address(text):
            yield "proxy_interfaces", f'"{text}" is not an address'
    if config.delivery.smtp_line_length_limit == 1:
        yield "delivery.smtp_line_length_limit", "a line of 1 octet cannot be folded; 0 is no limit"
    if config.tls.key_file and not config.tls.cert_file:
        yield "tls.key_file", "needs tls.cert_file"
    if config.delivery.maximal_backoff_time < config.delivery.minimal_backoff_time:
        yield "delivery.maximal_backoff_time", "is below delivery.minimal_backoff_time"


def _logins(config: Config) -> Iterator[tuple[str, str]]:
    delivery = config.delivery
    if delivery.smtp_sasl_auth_enable and not delivery.smtp_sasl_password_maps:
        yield "delivery.smtp_sasl_auth_enable", "needs delivery.smtp_sasl_password_maps, where the logins stand"
    url, command = delivery.smtp_sasl_oauth_token_url, delivery.smtp_sasl_oauth_token_command
    if url and not re.fullmatch(r"https://[0-9A-Za-z.:\[\]-]+(?:/[!-~]*)?", url):
        yield "delivery.smtp_sasl_oauth_token_url", f"{url!r} is no https: URL"
    if url and command:
        yield "delivery.smtp_sasl_oauth_token_command", "and smtp_sasl_oauth_token_url exclude each other"
    if command and not command[0].startswith("/"):
        yield "delivery.smtp_sasl_oauth_token_command", "begins with the absolute path of a program"


def _outgoing_tls(config: Config) -> Iterator[tuple[str, str]]:
    delivery = config.delivery
    for name in ("smtp_tls_protocols", "smtp_tls_mandatory_protocols"):
        try:
            parse_protocols(getattr(delivery, name))
        except ValueError as error:
            yield f"delivery.{name}", str(error)
    level = delivery.smtp_tls_security_level
    if level == "fingerprint" and not delivery.smtp_tls_fingerprint_cert_match:
        yield "delivery.smtp_tls_security_level", "fingerprint needs delivery.smtp_tls_fingerprint_cert_match"
    strangers = [text for text in config.dns.nameservers if not _is_loopback(text)]
    if level in ("dane", "dane-only") and strangers and not config.dns.trust_ad:
        yield (
            "delivery.smtp_tls_security_level",
            f"{level} needs a validating resolver on loopback: what {strangers[0]} says of DNSSEC can be forged on the "
            "way; dns.trust_ad = true believes it",
        )


def _is_loopback(server: str) -> bool:
    host = server[1:].partition("]")[0] if server.startswith("[") else server
    host = host.partition(":")[0] if host.count(":") == 1 else host
    return ipaddress.ip_address(host).is_loopback


def next_hop_problem(text: str, *, mx: bool = True) -> str:
    """What keeps "[host]:port" or "domain:port" from being a next hop; "" where nothing does. `mx`: without brackets
    the MX of a domain is meant, so an address needs them.
    """
    match = _NEXT_HOP.fullmatch(text)
    if match is None:
        return f'"{text}" is not "[host]", "[host]:port", "domain" or "domain:port"'
    literal, domain, port = match.groups()
    host = (literal or domain).lower()
    is_address = _is_address(host.removeprefix("ipv6:"))
    if not is_address and (":" in host or host.replace(".", "").isdigit()):
        return f'"{text}": {host} is not an address'
    if not is_address and not all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split(".")):
        return f'"{text}": {host} is not the name of a host'
    if is_address and domain and mx:
        return f'"{text}": an address stands in brackets, as in [{host}]'
    if port and not _is_port(port):
        return f'"{text}": {port} is neither a port from 1 to 65535 nor the name of a service that this machine knows'
    return ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_port(text: str) -> bool:
    if text.isdigit():
        return len(text) <= 5 and 0 < int(text) <= 65_535
    try:
        return socket.getservbyname(text, "tcp") > 0
    except OSError:
        return False


def _domains(config: Config) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for name in _DOMAIN_LISTS:
        for domain in getattr(config, name):
            if seen.setdefault(domain, name) != name:
                yield name, f"{domain} is in {seen[domain]} too: a domain belongs to one of them"


def _listeners(config: Config) -> Iterator[tuple[str, str]]:
    seen: dict[object, str] = {}
    for service in NAMES:
        for text in config.listen.of(service):
            endpoint = parse_endpoint(text)
            if (endpoint.port or endpoint.path) and seen.setdefault(endpoint, service) != service:
                yield f"listen.{service}", f"{text} is listen.{seen[endpoint]}'s too"
    for name, *_ in (service for service in SERVICES if service.tls is Tls.IMPLICIT):
        if config.listen.of(name) and not config.tls.cert_file:
            yield f"listen.{name}", "needs a certificate: set tls.cert_file and tls.key_file"
    if config.listen.of("managesieve"):
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
            if not next_hop[5:].startswith("/"):
                return "an absolute path follows lmtp:unix:"
            return "" if len(next_hop[5:].encode()) <= 107 else "the path of a unix socket has at most 107 bytes"
        next_hop = next_hop.removeprefix("inet:")
    if transport in {"smtp", "relay", "lmtp", ""} and next_hop:
        for host in next_hop.split(","):
            problem = next_hop_problem(host.strip().removeprefix("inet:"), mx=transport != "lmtp")
            if problem:
                return problem
    return ""
