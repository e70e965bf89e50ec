"""What a check says about a client, a sender, a recipient or a message, and what all checks of a message come to."""

from enum import IntEnum
from typing import Any, Final

import msgspec

from fastmta.model.reply import Reply


class Action(IntEnum):
    """NONE leaves the matter to the next check; ACCEPT, REJECT, DEFER and DISCARD end a list, the others do not."""

    NONE = 0
    ACCEPT = 1  # no further check of this list
    REJECT = 2
    DEFER = 3
    DISCARD = 4  # accepted, and gone
    HOLD = 5  # accepted, and kept in the queue until an administrator has looked
    QUARANTINE = 6  # into the Junk mailbox of each recipient here
    REDIRECT = 7  # to `target` instead of its recipients


DECISIVE: Final = frozenset({Action.ACCEPT, Action.REJECT, Action.DEFER, Action.DISCARD})


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """One check's answer. What it adds to the message counts whatever its action is, unless that refuses it."""

    action: Action = Action.NONE
    reply: Reply | None = None  # of REJECT and DEFER
    recipients: tuple[int, ...] = ()  # numbers of those that it is about; empty: all of them
    fields: tuple[bytes, ...] = ()  # whole header fields, each with its CRLF, for the top of the message
    cuts: tuple[tuple[int, int], ...] = ()  # (offset, octets) in what came, not to be shown
    copies: tuple[bytes, ...] = ()  # addresses that get one too, and nobody hears of it
    results: tuple[str, ...] = ()  # parts of Authentication-Results
    removed: tuple[int, ...] = ()  # numbers of recipients who get nothing, and nobody hears of it
    sender: bytes | None = None  # the new reverse path
    body: Any = None  # policy.new_body.NewBody: the message with another body
    through: str = ""  # the route that the message takes first, whatever its recipients
    target: bytes = b""  # of REDIRECT, or of HOLD beside it
    reason: str = ""  # for the log
    is_late: bool = False  # a time-out or failure of ours, which is no error of the client's
    permits: bool = False  # beside another action: ACCEPT too
    if_reject: Reply | None = None  # at RCPT: what is said instead where somebody refuses for good
    if_permit: Reply | None = None  # up to RCPT: what puts a recipient off whom nobody refuses
    is_behind: bool = False  # other words of its list have been asked before the one that refuses
    if_alone: Reply | None = None  # up to RCPT: what puts a recipient off unless an earlier list's `if_permit` does


PASS: Final = Verdict()


def standing(verdict: Verdict, put_off: Reply | None) -> Verdict:
    """What a verdict comes to beside the `if_permit` of the lists before it."""
    if verdict.if_alone is None or put_off is not None:
        return verdict
    return Verdict(Action.DEFER, verdict.if_alone, reason=verdict.reason)


class Outcome(msgspec.Struct, gc=False):
    """What becomes of a message after its last check."""

    reply: Reply | None = None  # refused as a whole
    is_late: bool = False
    refused: dict[int, Reply] = {}  # number of a recipient -> why not to it
    discard: bool = False
    hold: bool = False
    quarantine: bool = False
    redirect: bytes = b""
    through: str = ""
    copies: tuple[bytes, ...] = ()
    removed: tuple[int, ...] = ()
    sender: bytes | None = None
    body: Any = None
    head: bytes = b""  # fields for the top
    cuts: tuple[tuple[int, int], ...] = ()

    def filter_over(self, default: str) -> str:
        """The content filter of a message whose service has `default`. None for what is sent elsewhere or is filed
        into Junk: the first is what somebody wanted to see, the second nobody has to ask about.
        """
        return "" if self.redirect or self.quarantine else self.through or default

    @property
    def wants_more(self) -> bool:
        """Whether a message that is not refused is to be taken otherwise than as it came."""
        return bool(
            self.discard
            or self.hold
            or self.quarantine
            or self.redirect
            or self.through
            or self.copies
            or self.removed
            or self.sender is not None
            or self.body is not None
            or self.head
            or self.cuts
        )
