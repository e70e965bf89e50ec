"""The DNS records that a domain's administrator publishes so that mail comes in, and what it sends is believed."""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Final

from fastmta.admin.client_setup import first_port
from fastmta.config.schema import Config
from fastmta.model.services import SERVICES

# Addresses of documentation (RFC 5737, RFC 3849): a datagram socket connected there sends nothing, but has chosen the
# address that this host would use.
_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1", "A"), (socket.AF_INET6, "2001:db8::1", "AAAA"))


def records(config: Config) -> Iterator[str]:
    """Lines as in a zone file, and comments on what only the administrator knows."""
    domain, host = config.mydomain, config.myhostname
    addresses = list(own_addresses())
    if not addresses:
        yield f"{host}. A ADDRESS                ; this server's public address"
    for kind, address, is_public in addresses:
        note = "" if is_public else "      ; a private address: publish the public one"
        yield f"{host}. {kind} {address}{note}"
    if host != domain:
        yield f'{host}. TXT "v=spf1 a -all"'
    yield f"{domain}. MX 10 {host}."
    yield f'{domain}. TXT "v=spf1 mx -all"           ; only this server sends mail of the domain'
    yield f'_dmarc.{domain}. TXT "v=DMARC1; p=none; rua=mailto:postmaster@{domain}"'
    for service in SERVICES:
        port = first_port(config, service)
        if service.srv_priority is not None and port:  # RFC 6186, RFC 8314
            yield f"_{service.name}._tcp.{domain}. SRV {service.srv_priority} 1 {port} {host}."
    yield f"; and ask who gave you the address for its reverse name: PTR {host}."


def own_addresses() -> Iterator[tuple[str, str, bool]]:
    """(record type, address, whether the world can reach it) of the addresses that mail would leave from."""
    for family, elsewhere, kind in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((elsewhere, 9))
                address = ipaddress.ip_address(sock.getsockname()[0])
        except OSError:
            continue
        if not address.is_loopback and not address.is_link_local:
            yield kind, str(address), address.is_global
