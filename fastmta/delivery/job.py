"""One message for some recipients of one hop, from the moment it is taken from the schedule to its committed result."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fastmta._intake import Event, Posting
from fastmta.delivery.seams import QueuedMessage, QueuedRecipient
from fastmta.model.ids import queue_id_text
from fastmta.model.reply import Reply
from fastmta.queue.dsn import Notice, Outcome
from fastmta.smtp.transaction import Transaction

if TYPE_CHECKING:
    from fastmta.delivery.outgoing_checks import Changed
    from fastmta.delivery.owner import HopOwner
    from fastmta.delivery.shaping import Grant
    from fastmta.dns.mx import Address

# What is to be written of one recipient: n, new state, attempts, due_ms, last reply.
Move = tuple[int, int, int, int, bytes]


class Job(Transaction, eq=False, kw_only=True):
    """A transaction with all that delivery knows of it. `addresses`: those not tried yet, None: not looked up.

    `login`: the sender's own login of the relay host, "" for none; None: senders do not matter.
    """

    owner: "HopOwner"
    message: QueuedMessage
    rows: Sequence[QueuedRecipient]
    addresses: "list[Address] | None" = None
    began: float = -1.0  # the present attempt, by the loop's clock; -1: it has not
    tls: str = ""  # of the session with `relay`
    sessions: int = 0  # with `site`
    site: str = ""  # which place of the route is being tried
    failure: Reply | None = None
    fresh: bool = False  # it came a moment ago: its octets are in memory as they were written
    unreadable: bool = False  # the store is damaged where its bytes lie
    spent: "Address | None" = None  # where a kept connection led that failed, while nobody has looked for others
    login: str | None = None
    # Each recipient's 4yz of the destination, while the fallback relay is tried.
    kept: list[Reply] = msgspec.field(default_factory=list)
    gone: bool = False  # the message was deleted while it was on its way
    relay: str = ""  # "host[address]:port" of the last server that was spoken to
    relaxed: bool = False  # its sender said so, and a policy of the domain could not be met
    grant: "Grant | None" = None  # of traffic rules, until a connection has it
    plain_text: bool = False  # a TLS handshake failed where it is not required
    done: set[int] = msgspec.field(default_factory=set)  # numbers of recipients whose end is committed already
    moves: list[Move] = msgspec.field(default_factory=list)
    reports: dict[Notice, list[Outcome]] | None = None
    # By number: what is to be told once it is recorded.
    events: list[tuple[int, Event]] = msgspec.field(default_factory=list)
    postings: list[Posting] = msgspec.field(default_factory=list)  # reports of the unit that is on its way
    mailboxes: dict[int, bytes] | None = None  # number of a recipient -> whose mailbox has the message
    recordings: int = 0
    heard: frozenset[int] = frozenset()  # numbers of those that a server has taken which answers for each
    checked: bool = False  # the checks of outgoing mail have looked at it
    kept_back: bool = False  # by them: what is decided is none of the server's words

    changed: "Changed | None" = None  # by them
    in_making: bool = False  # a task makes it ready for a connection, or did when that ended
    wants_front: bool = False  # it is passed on, and is to be sealed or signed before it leaves

    @property
    def ident(self) -> str:
        return queue_id_text(self.message.queue_id)

    @classmethod
    def of(cls, owner: "HopOwner", message: QueuedMessage, rows: Sequence[QueuedRecipient]) -> "Job":
        """A job for these recipients of a message, as its forwarding has it."""
        made = cls(message.envelope, [row.tail for row in rows], owner=owner, message=message, rows=rows)
        forwarding = owner.service.forwarding
        if forwarding is not None:
            forwarding.prepare(owner, made)
        return made

    @property
    def requires_tls(self) -> bool:
        """Whether it may go to nobody but a server that has proved who it is (RFC 8689); not within this site."""
        terms = self.envelope.terms
        return terms is not None and terms.requiretls and self.owner.transport == "smtp"

    def results_recorded(self) -> int:
        """What a unit of this job counts for among those that are on their way into the store."""
        return max(1, len(self.moves))

    def rest(self) -> "Job":
        """A new job for the recipients of `again`."""
        return self.part(self.again)

    def part(self, numbers: Sequence[int]) -> "Job":
        """A new job for some of the recipients, which sends what this one was to send."""
        made = Job.of(self.owner, self.message, [self.rows[n] for n in numbers])
        made.sender = self.sender
        made.front = self.front
        made.wants_front = self.wants_front
        made.checked, made.changed = self.checked, self.changed
        made.paths = None if self.paths is None else [self.paths[n] for n in numbers]
        made.growth, made.bits = self.growth, self.bits
        return made

    def committed(self, unit: Any) -> None:
        """The store's callback."""
        self.owner.recorded(self, unit)
