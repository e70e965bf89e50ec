"""Whose certificate it is: Postfix's strategies by which the names in a server's certificate are matched.

The strategies are `hostname` (the host that was connected to, a name that an MX record gave), `nexthop` (the domain or
relay that mail was to go to), `dot-nexthop` (what is below it), a domain, and ".domain" for what is below that one.
Level `secure` rests on names that no DNS answer can change, so its default leaves `hostname` out.

Left to others: whether the certificate was issued by somebody trusted, which the handshake itself has checked.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def matching(
    certificate: Mapping[str, Any], strategies: Sequence[str], *, hostname: str, nexthop: str
) -> tuple[str, str] | None:
    """(strategy, name in the certificate) of the first match; None where the certificate is somebody else's.

    `certificate` is what SSLObject.getpeercert gives after a handshake that verified it.
    """
    names = certificate_names(certificate)
    for strategy in strategies:
        below = strategy == "dot-nexthop" or strategy.startswith(".")
        if strategy == "hostname":
            wanted = hostname
        elif strategy in ("nexthop", "dot-nexthop"):
            wanted = nexthop
        else:
            wanted = strategy.removeprefix(".")
        wanted = wanted.lower().rstrip(".")
        for name in names:
            if wanted and _fits(name, wanted, below=below):
                return strategy, name
    return None


def certificate_names(certificate: Mapping[str, Any]) -> list[str]:
    """The DNS names and addresses of a certificate; its common name only where it has no DNS name (RFC 6125 §6.4.4)."""
    alternatives = certificate.get("subjectAltName", ())
    names = [value for kind, value in alternatives if kind in ("DNS", "IP Address")]
    if not any(kind == "DNS" for kind, _ in alternatives):
        for relative_name in certificate.get("subject", ()):
            names += [value for key, value in relative_name if key == "commonName"]
    return [name.lower().rstrip(".") for name in names if name.isprintable()]


def _fits(name: str, wanted: str, *, below: bool) -> bool:
    if below:  # a wildcard does as well as a name: all that it stands for lies below
        return name.endswith("." + wanted) and len(name) > len(wanted) + 1
    if name == wanted:
        return True
    # A wildcard is the whole first label and stands for exactly one (RFC 6125 §6.4.3); never for a part of an address.
    return (
        name.startswith("*.")
        and name.count(".") >= 2
        and wanted.partition(".")[2] == name[2:]
        and not wanted.replace(".", "").isdigit()
    )
