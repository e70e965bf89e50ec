"""The stages of a session at which somebody may be asked, in their order, and the bits that say so.

A session's `stages` is a set of `bit(stage)`: with none of them a stage costs one test of one bit.
"""

from enum import IntEnum
from typing import Final


class Stage(IntEnum):
    """A check's verdict is about what these commands bring."""

    CONNECT = 0
    HELO = 1
    AUTH = 2
    MAIL = 3
    RCPT = 4
    DATA = 5
    END = 6  # the whole message has come


def bit(stage: Stage) -> int:
    """The stage's place in a set of stages."""
    return 1 << stage


# A session's `relays`: whether a list has said who may relay to the recipient that is named.
RELAYS_AS_KNOWN: Final = 0  # no list: who is in mynetworks or has logged in
RELAYS: Final = 1
RELAYS_NOT: Final = 2

# What of a transaction was given without a domain, and has ours.
BARE_SENDER: Final = 1
BARE_RECIPIENT: Final = 2

AHEAD: Final = 1 << 8  # at MAIL somebody begins to ask what the end of the message will need, and nobody waits for it
COUNTED: Final = 1 << 7  # beside the stages: MAIL and RCPT are limited by address, which the rules ask for
