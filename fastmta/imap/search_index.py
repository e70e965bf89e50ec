"""What the text index says of a search's BODY and TEXT keys: which messages need not be looked through.

The index is never believed more than it says: a message that it does not have, or that it names, is looked at as if
there were none, so a search finds the same with it and without it, while it is built and when it is gone.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from fastmta import _imap
from fastmta.model.limits import INDEX_BEHIND, INDEX_WORD_CHARS, INDEX_WORDS

if TYPE_CHECKING:
    from fastmta.imap.seams import TextIndex
    from fastmta.imap.search_keys import Text
    from fastmta.model.found import Found

_OR, _WITHOUT = 1, 2
_MIN_CHARS: Final = 3  # of a word that the index can look up


class Hints:
    """The index's answer to one search of one mailbox."""

    def __init__(self, found: Found, keys: list[Text]) -> None:
        self._covered = array("I", (1, found.until))
        self._skipped = _imap.uid_pairs(found.skipped)
        self._words = {
            id(key): (_imap.uid_pairs(uids), exact)
            for key, uids, exact in zip(keys, found.words, found.exact, strict=True)
            if uids is not None
        }

    def bounds(self, key: Text, uids: array[int]) -> tuple[bytes, bytes]:
        """(which of these messages match, which may)."""
        none, every = bytes(len(uids)), b"\1" * len(uids)
        known = self._words.get(id(key))
        if known is None:
            return none, every
        covered = _imap.mask_ranges(uids, self._covered)
        if self._skipped:
            covered = _imap.mask_combine(covered, _imap.mask_ranges(uids, self._skipped), _WITHOUT)
        named = _imap.mask_ranges(uids, known[0])
        may = _imap.mask_combine(named, _imap.mask_combine(every, covered, _WITHOUT), _OR)
        return named if known[1] else none, may


async def ask(index: TextIndex, mailbox_id: int, keys: list[Text], uids: array[int]) -> Hints | None:
    """What the index knows of these keys; None where it has nothing of this mailbox, or all is quickly looked through.

    Where many messages are not in it, it is told so.
    """
    if len(uids) <= INDEX_BEHIND:
        return None
    asked = [key for key in keys if len(key.needle) >= _MIN_CHARS][:INDEX_WORDS]
    found = await index.find(mailbox_id, [(key.needle[:INDEX_WORD_CHARS], key.with_header) for key in asked])
    until = 0 if found is None else found.until
    if len(uids) - bisect_right(uids, until) > INDEX_BEHIND:
        index.wanted(mailbox_id)
    return Hints(found, asked) if found is not None and until else None
