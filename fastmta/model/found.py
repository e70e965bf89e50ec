"""What a text index says of a mailbox."""

from array import array
from collections.abc import Sequence

import msgspec

Word = tuple[str, bool]  # what is looked for, its case folded; whether in the message's own header too


class Found(msgspec.Struct, frozen=True):
    """Of each word the uids, ascending, of messages that may have it; no other message up to `until` has it, but for
    those in `skipped`, which are not in the index. `exact`: they have it, and need not be looked at. None for a word
    that was not looked up.
    """

    until: int
    skipped: "array[int]"
    words: Sequence["array[int] | None"]
    exact: Sequence[bool]
