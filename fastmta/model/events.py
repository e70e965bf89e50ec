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


class Event(msgspec.Struct, gc=False):
    """One thing that happened to one recipient. A message's acceptance is told for all its recipients at once, and what
    an administrator does to many as `Moves`.
    """

    happened: Happening
    transport: str  # a label of the metrics: of model/routes.TRANSPORTS
    queue_id: int
    recipient: bytes
    next_hop: str
    relay: str = "none"  # "host[address]:port" of who answered; "local": a mailbox; "none": nobody
    delay_s: float = 0.0  # since the message came
    dsn: str = ""  # enhanced status code
    reply: str = ""
    original: bytes = b""  # where an alias made another of it
    mailbox: bytes = b""  # whose, of a local delivery
    took_s: float = -1.0  # the attempt, from looking for an address to the last answer; -1: there was none
    tls: str = ""  # of the attempt's session: version, cipher, and by what the server was verified


class Moves(msgspec.Struct, gc=False):
    """One thing that an administrator's act did to some recipients: (queue id, n, forward path)."""

    happened: Happening
    act: str  # such as "queue.hold"
    by: Actor
    recipients: list[tuple[int, int, bytes]]
