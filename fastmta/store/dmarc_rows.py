"""What strangers' mail came to under DMARC, counted for the aggregate reports that its domains ask for (RFC 9990)."""

from typing import Final

import msgspec

from fastmta.store.committing import Committer
from fastmta.store.day_rows import DayRows

PREFIX: Final = b"dmarc\0"


class Published(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The policy that was found."""

    p: str
    sp: str
    np: str
    adkim: str
    aspf: str
    testing: str


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is counted together: results are (domain, selector, result) and (domain, scope, result)."""

    source_ip: str
    disposition: str
    dkim: str
    spf: str
    header_from: str
    envelope_from: str
    dkim_auth: tuple[tuple[str, str, str], ...]
    spf_auth: tuple[tuple[str, str, str], ...]
    reasons: tuple[tuple[str, str], ...]


class DmarcRows(DayRows[Published, Row]):
    """The rows of all domains."""

    def __init__(self, store: Committer) -> None:
        super().__init__(store, PREFIX, Published("", "", "", "", "", ""), Row)
