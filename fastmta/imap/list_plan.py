"""What a LIST asks for: RFC 3501 §6.3.8 with the options of RFC 5258 and RFC 6154. Parsing only."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap import mailbox_name, metadata_entries
from fastmta.imap.mailbox_name import BadName
from fastmta.model.limits import IMAP_LIST_PATTERNS

if TYPE_CHECKING:
    from fastmta._imap import Cursor

_WILDCARDS: Final = re.compile(r"[*%]{2,}")
_SELECT: Final = frozenset({b"SUBSCRIBED", b"REMOTE", b"RECURSIVEMATCH", b"SPECIAL-USE"})
_RETURN: Final = frozenset({b"SUBSCRIBED", b"CHILDREN", b"SPECIAL-USE", b"STATUS", b"METADATA", b"MYRIGHTS"})
STATUS_FIELDS: Final = {
    b"MESSAGES": "exists",
    b"UIDNEXT": "uid_next",
    b"UIDVALIDITY": "uid_validity",
    b"UNSEEN": "unseen",
    b"HIGHESTMODSEQ": "highest_modseq",
    b"SIZE": "size_bytes",
    b"DELETED": "deleted_count",
}
_STATUS: Final = frozenset({*STATUS_FIELDS, b"RECENT", b"APPENDLIMIT", b"MAILBOXID", b"DELETED-STORAGE"})


class ListPlan(msgspec.Struct, frozen=True):
    """`patterns` have the reference in front; one nothing can match is left out. `extended`: options were given."""

    reference: str
    patterns: tuple[str, ...]
    asks_root: bool = False  # an empty pattern: what the separator and the reference's root are
    extended: bool = False
    select: frozenset[bytes] = frozenset()
    returns: frozenset[bytes] = frozenset()
    status: tuple[bytes, ...] = ()  # the items of RETURN (STATUS ...), RFC 5819
    metadata: tuple[bytes, ...] = ()  # the entries of RETURN (METADATA ...), RFC 9590

    def matches(self, name: str) -> bool:
        """Whether a mailbox of this name is asked for; INBOX in any case, so "inb*" finds it too."""
        return any(
            _imap.list_match(pattern, name) or (name == "INBOX" and _imap.list_match(pattern.upper(), name))
            for pattern in self.patterns
        )


def parse(cursor: Cursor, *, options: bool, utf8: bool = False) -> ListPlan:
    """The arguments of LIST, or of LSUB and XLIST, which take no `options`. BadSyntax."""
    cursor.sp()
    extended = False
    select: frozenset[bytes] = frozenset()
    returns: frozenset[bytes] = frozenset()
    status: list[bytes] = []
    metadata: list[bytes] = []
    if options and cursor.at(0x28):
        extended = True
        select = _options(cursor, _SELECT, "Unknown selection option")
        if b"RECURSIVEMATCH" in select and not select & {b"SUBSCRIBED", b"SPECIAL-USE"}:
            raise BadSyntax("RECURSIVEMATCH needs another selection option")  # RFC 5258 §3.1
        cursor.sp()
    raw_reference = cursor.astring()
    cursor.sp()
    raw_patterns: list[bytes] = []
    if options and cursor.try_open():
        extended = True
        while True:
            raw_patterns.append(cursor.list_mailbox())
            if len(raw_patterns) > IMAP_LIST_PATTERNS:
                raise BadSyntax("Too many patterns")
            if cursor.try_close():
                break
            cursor.sp()
    else:
        raw_patterns.append(cursor.list_mailbox())
    if options and cursor.try_sp():
        if cursor.atom() != b"RETURN":
            raise BadSyntax("RETURN expected")
        extended = True
        cursor.sp()
        returns = _options(cursor, _RETURN, "Unknown return option", status, metadata)
    cursor.end()
    reference, patterns = _names(raw_reference, raw_patterns, utf8=utf8)
    return ListPlan(
        reference, patterns, raw_patterns == [b""], extended, select, returns, tuple(status), tuple(metadata)
    )


def status_items(cursor: Cursor) -> list[bytes]:
    """A parenthesized list of status items, each once. BadSyntax."""
    items: list[bytes] = []
    cursor.open()
    while True:
        item = cursor.atom()
        if item not in _STATUS:
            raise BadSyntax("Unknown status item")
        if item not in items:
            items.append(item)
        if cursor.try_close():
            return items
        cursor.sp()


def _options(
    cursor: Cursor,
    known: frozenset[bytes],
    refusal: str,
    status: list[bytes] | None = None,
    metadata: list[bytes] | None = None,
) -> frozenset[bytes]:
    out: set[bytes] = set()
    cursor.open()
    while not cursor.try_close():
        if out:
            cursor.sp()
        option = cursor.atom()
        if option not in known:
            raise BadSyntax(refusal)
        out.add(option)
        if option == b"STATUS" and status is not None:
            cursor.sp()
            status += status_items(cursor)
        elif option == b"METADATA" and metadata is not None:
            cursor.sp()
            metadata += metadata_entries.entries(cursor)
    return frozenset(out)


def _names(raw_reference: bytes, raw_patterns: list[bytes], *, utf8: bool) -> tuple[str, tuple[str, ...]]:
    """Text of reference and patterns. What is not valid is no mailbox's name, so it matches nothing."""
    try:
        reference = mailbox_name.decode(raw_reference, utf8=utf8)
    except BadName:
        return "", ()
    patterns: list[str] = []
    for raw in raw_patterns:
        try:
            if raw:
                patterns.append(_collapsed(mailbox_name.canonical(reference + mailbox_name.decode(raw, utf8=utf8))))
        except BadName:
            continue
    return reference, tuple(patterns)


def _collapsed(pattern: str) -> str:
    """A run of wildcards is one: "*" where it has a "*", else "%". Matching costs time by the pattern's length."""
    return _WILDCARDS.sub(lambda run: "*" if "*" in run.group() else "%", pattern)
