"""What happens to a recipient: one kind of event, whoever lets it happen, told after the commit (`_intake.Teller`)."""

from typing import Literal

import msgspec

Happening = Literal[
    "delivered", "deferred", "bounced", "held", "deleted", "expanded", "released", "flushed", "requeued"
]


class Actor(msgspec.Struct, frozen=True):
    """Who does what an administrator may do, by the kernel's word; `sudo_user` by root's."""

    uid: int
    user: str
    sudo_user: str | None = None


class Moves(msgspec.Struct, gc=False):
    """One thing that an administrator's act did to some recipients: (queue id, n, forward path)."""

    happened: Happening
    act: str  # such as "queue.hold"
    by: Actor
    recipients: list[tuple[int, int, bytes]]
