"""The DNS record by which a domain asks for TLS reports (RFC 8460 §3)."""

import re
from collections.abc import Iterable

from fastmta.model.limits import REPORT_TARGETS

_VERSION = re.compile(rb"v=TLSRPTv1[ \t]*;")


def report_uris(texts: Iterable[bytes]) -> tuple[str, ...]:
    """The mailto: and https: URIs of the TXT records at _smtp._tls; empty where none, or more than one, asks."""
    ours = [text for text in texts if _VERSION.match(text)]
    if len(ours) != 1:
        return ()
    for field in ours[0].decode("ascii", "replace").split(";")[1:]:
        name, equals, value = field.partition("=")
        if equals and name.strip() == "rua":
            uris = (uri.strip() for uri in value.split(","))
            return tuple(uri for uri in uris if uri.lower().startswith(("mailto:", "https:")))[:REPORT_TARGETS]
    return ()
