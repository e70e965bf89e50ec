"""The legal moves of a queued recipient, as the README beside tells them; the store's operation enforces the same."""

from typing import Final

from fastmta.model.envelope import RecipientState

_A, _D, _H = RecipientState.ACTIVE, RecipientState.DEFERRED, RecipientState.HELD
_DELIVERED, _BOUNCED = RecipientState.DELIVERED, RecipientState.BOUNCED

LIVE: Final = frozenset((_A, _D, _H))  # stored; the others end a recipient
INITIAL: Final = frozenset((_A, _D, _H))

LEGAL: Final = frozenset(
    {
        (_A, _D),
        (_A, _H),
        (_A, _DELIVERED),
        (_A, _BOUNCED),
        (_D, _A),
        (_D, _D),
        (_D, _H),
        (_D, _DELIVERED),
        (_D, _BOUNCED),
        (_H, _A),
        (_H, _D),
        (_H, _BOUNCED),
    }
)


def is_legal(before: RecipientState, after: RecipientState) -> bool:
    """Whether a recipient may go from one state to another."""
    return (before, after) in LEGAL
