"""What no single key can tell: values that are right by themselves and wrong together, and [transport]'s routes."""

import ipaddress
import re
from collections.abc import Container, Iterator
from typing import Final

from fastmta.config.kinds import REWRITE_CLIENTS
from fastmta.config.reading_keys import QUOTA_RULES
from fastmta.config.restrictions import CLOSING, closes
from fastmta.config.schema import Config
from fastmta.config.tls_words import parse_protocols
from fastmta.config.values import parse_domain, parse_endpoint, parse_mailbox_names, parse_quota_rules
from fastmta.model.mechanisms import EXTERNAL, TOKENS
from fastmta.model.routes import pipe_of, written_filter, written_relayhost, written_route
from fastmta.model.services import NAMES, SERVICES, Tls

_DOMAIN_LISTS: Final = ("mydestination", "virtual_mailbox_domains", "virtual_alias_domains", "relay_domains")

_KEYWORD: Final = r"[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]*"  # RFC 9051 §9: atom, or nothing


def own_domains(config: Config) -> tuple[str, ...]:
    """All domains whose mail comes to us: local ones, virtual ones, and those that we relay to."""
    return tuple(domain for name in _DOMAIN_LISTS for domain in getattr(config, name))


def inconsistencies(config: Config) -> Iterator[tuple[str, str]]:
    """Yields (dotted key, what is wrong)."""
    yield from _domains(config)
    yield from _listeners(config)
    if config.relayhost:
        try:
            written_relayhost(config.relayhost)
        except ValueError as error:
            yield "relayhost", str(error)
    if config.content_filter:
        yield from _content_filter(config)
    if re.search(r"[\sA-Za-z0-9@\"<>]", config.recipient_delimiter):
        yield "recipient_delimiter", "may hold only characters such as + - = that are not letters or digits"
    yield from _logins(config)
    yield from _client_logins(config)
    yield from _relaying(config)
    yield from _outgoing_tls(config)
    if config.pop3_delete_type == "flag" and not config.pop3_deleted_flag:
        yield "pop3_delete_type", "flag needs pop3_deleted_flag"
    for name in QUOTA_RULES:
        try:
            parse_quota_rules([getattr(config, name)])
        except ValueError as error:
            yield name, f'"{getattr(config, name)}": expected {error}'
    try:
        parse_mailbox_names(config.autocreated_mailbox_names)
    except ValueError as error:
        yield "autocreated_mailbox_names", f"expected {error}"
    if not re.fullmatch(_KEYWORD, config.pop3_deleted_flag):
        yield "pop3_deleted_flag", f'"{config.pop3_deleted_flag}" is not a keyword, such as $$POP3Deleted'
    for name, version in (("smtp_bind_address", 4), ("smtp_bind_address6", 6)):
        text = getattr(config.delivery, name)
        if text and not (_is_address(text) and ipaddress.ip_address(text).version == version):
            yield f"delivery.{name}", f'"{text}" is not an IPv{version} address'
    for text in config.delivery.smtp_fallback_relay:
        try:
            written_relayhost(text)
        except ValueError as error:
            yield "delivery.smtp_fallback_relay", str(error)
    for text in config.proxy_interfaces:
        if not _is_address(text):
            yield "proxy_interfaces", f'"{text}" is not an address'
    for text in config.local_header_rewrite_clients:
        if ":" not in text and text not in REWRITE_CLIENTS:
            yield (
                "local_header_rewrite_clients",
                f'"{text}" is none of {", ".join(REWRITE_CLIENTS)}, and no table "type:/path"',
            )
    if not config.delivery.smtp_host_lookup:
        yield "delivery.smtp_host_lookup", "is empty; use dns, native, or both"
    if config.delivery.smtp_line_length_limit == 1:
        yield "delivery.smtp_line_length_limit", "a line of 1 octet cannot be folded; 0 is no limit"
    if config.tls.key_file and not config.tls.cert_file:
        yield "tls.key_file", "needs tls.cert_file"
    if config.tls.smtpd_tls_eckey_file and not config.tls.smtpd_tls_eccert_file:
        yield "tls.smtpd_tls_eckey_file", "needs tls.smtpd_tls_eccert_file"
    if config.tls.smtp_tls_key_file and not config.tls.smtp_tls_cert_file:
        yield "tls.smtp_tls_key_file", "needs tls.smtp_tls_cert_file"
    if config.tls.smtpd_tls_eccert_file and not config.tls.cert_file:
        yield "tls.smtpd_tls_eccert_file", "stands beside tls.cert_file: name a lone certificate there"
    if config.delivery.maximal_backoff_time < config.delivery.minimal_backoff_time:
        yield "delivery.maximal_backoff_time", "is below delivery.minimal_backoff_time"


def _relaying(config: Config) -> Iterator[tuple[str, str]]:
    lists = (config.smtpd_relay_restrictions, config.smtpd_recipient_restrictions)
    if not any(closes(words, config.smtpd_restriction_classes) for words in lists):
        yield (
            "smtpd_relay_restrictions",
            "neither this nor smtpd_recipient_restrictions refuses strangers: name one of "
            + ", ".join(sorted(CLOSING)),
        )


def _client_logins(config: Config) -> Iterator[tuple[str, str]]:
    auth, tls = config.auth, config.tls
    if tls.ssl_verify_client_cert and not tls.ssl_ca:
        yield "tls.ssl_verify_client_cert", "needs tls.ssl_ca, the authorities that vouch for clients"
    if EXTERNAL in auth.mechanisms and not (tls.ssl_verify_client_cert and tls.auth_ssl_username_from_cert):
        yield (
            "auth.mechanisms",
            "EXTERNAL needs tls.ssl_verify_client_cert and tls.auth_ssl_username_from_cert",
        )
    offered = [name for name in TOKENS if name in auth.mechanisms]
    every = ("oauth2_jwks_file", "oauth2_jwks_url", "oauth2_introspection_url")
    sources = [name for name in every if getattr(auth, name)]
    if offered and not sources:
        yield (
            "auth.mechanisms",
            f"{offered[0]} needs one of {', '.join(every)}",
        )
    if len(sources) > 1:
        yield f"auth.{sources[1]}", f"and {sources[0]} exclude each other"
    for name in ("oauth2_jwks_url", "oauth2_introspection_url"):
        url = getattr(auth, name)
        if url and not url.startswith("https://"):
            yield f"auth.{name}", f"{url!r} is no https: URL"
    if auth.auth_master_user_separator and not auth.auth_master_users:
        yield "auth.auth_master_user_separator", "needs auth.auth_master_users, the accounts that may open others"
    if any(letter.isalnum() or letter in "@ ." for letter in auth.auth_master_user_separator):
        yield "auth.auth_master_user_separator", "may hold no letters, digits, points, spaces or @"


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
    if delivery.smtp_tls_wrappermode and level in ("none", "may"):
        yield (
            "delivery.smtp_tls_wrappermode",
            f"needs delivery.smtp_tls_security_level encrypt or a stricter one, and not {level}",
        )
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


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _domains(config: Config) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for name in _DOMAIN_LISTS:
        for domain in getattr(config, name):
            if seen.setdefault(domain, name) != name:
                yield name, f"{domain} is in {seen[domain]} too: a domain belongs to one of them"


def _content_filter(config: Config) -> Iterator[tuple[str, str]]:
    try:
        name = pipe_of(written_filter(config.content_filter))
    except ValueError as error:
        yield "content_filter", str(error)
        return
    if name and name not in config.pipe:
        yield "content_filter", f"there is no table [pipe.{name}]"


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


def route_problem(key: str, route: str, pipes: Container[str] = ()) -> str:
    """What is wrong with a line of [transport] such as "example.org" = "smtp:[192.0.2.1]:25"; "" where nothing is."""
    if key != "*":
        try:
            parse_domain(key.rpartition("@")[2].removeprefix("."))
        except ValueError as error:
            return f'expected "*", "domain", ".domain" (its subdomains) or "user@domain", the domain being {error}'
    try:
        written = written_route(route)
    except ValueError as error:
        return str(error)
    name = pipe_of(written)
    return f"there is no table [pipe.{name}]" if name and name not in pipes else ""
