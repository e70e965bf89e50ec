"""A message on its way into a mailbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from fastmta._unit import Blob


class Appended(msgspec.Struct, gc=False):
    """One message of an append, whole. `structure` is what `_mime` has made of it."""

    blob: Blob
    structure: bytes
    internal_date_s: int
    tz_minutes: int = 0
    flags: int = 0
    keywords: bytes = b""
    prefix: bytes = b""
    uidl: bytes = b""  # what POP3 shall call it; b"": by our own form
