"""Which octets an authorized URL names (RFC 4467): what URLFETCH and BURL (RFC 4468) ask before they read.

A URL is authorized by a token, made with a key of the mailbox that it leads to. What is wrong with one is not told.
"""

from __future__ import annotations

import hmac
import re
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from fastmta.imap import url as urls
from fastmta.imap.mailbox_name import BadName
from fastmta.model import rights
from fastmta.model.errors import Refused
from fastmta.model.limits import IMAP_URL_BYTES

if TYPE_CHECKING:
    from fastmta.imap.seams import Access, Mailboxes, UrlKeys

#: What stands before it is the URL of the message (RFC 4467 §9).
AUTHORIZED: Final = re.compile(
    rb"(imap://[^/]+/.*?)(?:;EXPIRE=([^;]+))?;URLAUTH=(?:(user|submit)\+([^:;]+)|(authuser|anonymous))",
    re.IGNORECASE,
)
_TOKEN: Final = re.compile(rb"(.*):INTERNAL:([0-9a-f]{64})", re.IGNORECASE)


class Keeper(Protocol):
    """Where mail and keys are."""

    @property
    def access(self) -> Access: ...
    @property
    def mailboxes(self) -> Mailboxes: ...
    @property
    def url_keys(self) -> UrlKeys: ...


def expires_at(raw: bytes) -> float | None:
    """An instant of RFC 3339, with its offset, in seconds; None for what is none."""
    try:
        moment = datetime.fromisoformat(raw.decode("ascii"))
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None


def token(key: bytes, rump: bytes) -> bytes:
    return hmac.digest(key, rump, "sha256").hex().encode()


def resolve(keeper: Keeper, raw: bytes, address: str, now: float, *, submits: bool = False) -> urls.Source | None:
    """The octets of a URL that whoever has logged in as `address` may read by its token; None for any other. "submit+"
    is for who `submits` alone.
    """
    signed = _TOKEN.fullmatch(raw) if len(raw) <= IMAP_URL_BYTES else None
    match = AUTHORIZED.fullmatch(signed[1]) if signed is not None else None
    if signed is None or match is None:
        return None
    base, expires, kind, name, _anybody = match.groups()
    url = urls.parse(base)
    if url is None or not url.user or not url.mailbox:
        return None
    owner = keeper.access.owner_named(url.user)
    if owner is None:
        return None
    try:
        box = keeper.access.resolve(owner, url.mailbox, rights.READ)
    except (Refused, BadName):
        return None
    key = keeper.url_keys.get(owner.account_id, box.id)
    if box.account_id != owner.account_id or not key:
        return None
    if not hmac.compare_digest(token(key, signed[1]), signed[2].lower()):
        return None
    if expires is not None and (expires_at(expires) or 0.0) < now:
        return None
    named = name is None or urls.unquoted(name).lower() == address.lower()
    if not named or (kind is not None and kind.lower() == b"submit" and not submits):
        return None
    found = urls.resolve_in(keeper.mailboxes, box, url)
    return found if isinstance(found, urls.Source) else None
