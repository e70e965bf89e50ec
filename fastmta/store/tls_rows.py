"""How sessions with next hops went about TLS, counted for the reports that their domains ask for (RFC 8460)."""

from typing import Final

import msgspec

from fastmta.store.committing import Committer
from fastmta.store.day_rows import DayRows

PREFIX: Final = b"tlsrpt\0"


class TlsRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Sessions that are counted together. `policy_type`: tlsa, sts or no-policy-found; `result`: "" for success.

    `policy_domain` is the TLSA base domain for tlsa, else the recipients' domain (RFC 8460 §1.1).
    """

    policy_type: str
    policy_domain: str
    policy_string: tuple[str, ...] = ()
    mx_host: tuple[str, ...] = ()
    result: str = ""
    sending_ip: str = ""
    receiving_host: str = ""
    receiving_ip: str = ""
    reason: str = ""


class TlsRows(DayRows[str, TlsRow]):
    """The rows of all domains; nothing is kept of a domain itself."""

    def __init__(self, store: Committer) -> None:
        super().__init__(store, PREFIX, "", TlsRow)
