"""DMARC policy records (RFC 9989 §4.7): text to values. Unknown tags, and the removed pct, rf and ri, mean nothing."""

import re
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from fastmta.model.limits import DMARC_KEPT_BYTES, DMARC_KEPT_RECORDS, DMARC_RECORD_BYTES

Policy = Literal["none", "quarantine", "reject"]
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+\Z")
_POLICIES: Final = {b"none": "none", b"quarantine": "quarantine", b"reject": "reject"}


class DmarcRecord(NamedTuple):
    """A policy record. None in `sp` and `np`: not said."""

    p: Policy | None  # None: nothing is asked for, as if there were no record (but psd= and what is said of reports)
    sp: Policy | None
    np: Policy | None
    strict_dkim: bool
    strict_spf: bool
    psd: Literal["y", "n", "u"]
    testing: bool
    rua: tuple[str, ...]
    broken: bool  # p= is missing, or p=, sp= or np= is none of the three words


def parse_record(raw: bytes) -> DmarcRecord | None:
    """The record, or None where the text is none: "v=DMARC1" comes first, and its case counts. Kept by its text."""
    return _kept_record(raw) if len(raw) <= DMARC_KEPT_BYTES else _parse(raw)


def _parse(raw: bytes) -> DmarcRecord | None:
    raw = raw[:DMARC_RECORD_BYTES]
    head = raw.partition(b";")[0]
    name, equals, version = head.partition(b"=")
    if name.strip(b" \t") != b"v" or not equals or version.strip(b" \t") != b"DMARC1":
        return None
    tags = _tags(raw)
    rua = tuple(word.strip().decode("utf-8", "replace") for word in tags.get("rua", b"").split(b",") if word.strip())
    policies = {name: _POLICIES.get(tags[name].lower()) for name in ("p", "sp", "np") if name in tags}
    broken = "p" not in policies or None in policies.values()
    if broken:  # RFC 9989 §4.10.1
        policies = {"p": "none"} if any(map(_URI.match, rua)) else {}
    psd = tags.get("psd", b"u").lower()
    return DmarcRecord(
        policies.get("p"),  # type: ignore[arg-type]
        policies.get("sp"),  # type: ignore[arg-type]
        policies.get("np"),  # type: ignore[arg-type]
        tags.get("adkim", b"r").lower() == b"s",
        tags.get("aspf", b"r").lower() == b"s",
        "y" if psd == b"y" else "n" if psd == b"n" else "u",
        tags.get("t", b"n").lower() == b"y",
        rua,
        broken,
    )


_kept_record: Final = lru_cache(DMARC_KEPT_RECORDS)(_parse)


def _tags(raw: bytes) -> dict[str, bytes]:
    """The pairs, names in lower case, the first of a name. What is malformed is passed over (RFC 9989 §4.7)."""
    tags: dict[str, bytes] = {}
    for part in raw.split(b";"):
        name, equals, value = part.partition(b"=")
        text = name.strip().lower()
        if equals and text.isalnum() and text.isascii():
            tags.setdefault(text.decode("ascii"), value.strip())
    return tags


def policy_for(record: DmarcRecord, *, own: bool, exists: bool) -> Policy | None:
    """The policy of a record for the author domain (RFC 9989 §4.10.1).

    `own`: the record stands at the author domain itself, and p= holds. Else np= for a name that does not exist, sp= for
    one that does, each with the next weaker tag behind it. None: there is as good as no record.
    """
    if own:
        return record.p
    return (None if exists else record.np) or record.sp or record.p
