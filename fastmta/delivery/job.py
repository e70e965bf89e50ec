"""One message for some recipients of one hop, from the moment it is taken from the schedule to its committed result."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastmta._intake import Posting
from fastmta.delivery.seams import QueuedMessage, QueuedRecipient
from fastmta.model.events import Event
from fastmta.model.reply import Reply
from fastmta.queue.dsn import Notice, Outcome
from fastmta.smtp.transaction import Transaction

if TYPE_CHECKING:
    from fastmta.delivery.owner import HopOwner
    from fastmta.dns.mx import Address

# What is to be written of one recipient: n, new state, attempts, due_ms, last reply.
Move = tuple[int, int, int, int, bytes]


class Job(Transaction):
    """A transaction with all that delivery knows of it. `addresses`: those not tried yet, None: not looked up.

    `login`: the sender's own login of the relay host, "" for none; None: senders do not matter.
    """

    __slots__ = (
        "addresses",
        "began",
        "done",
        "events",
        "failure",
        "gone",
        "kept",
        "login",
        "mailboxes",
        "message",
        "moves",
        "owner",
        "plain_text",
        "postings",
        "recordings",
        "relay",
        "reports",
        "rows",
        "sessions",
        "site",
        "tls",
        "unreadable",
        "wants_front",
    )

    def __init__(self, owner: "HopOwner", message: QueuedMessage, rows: Sequence[QueuedRecipient]) -> None:
        super().__init__(message.envelope, [row.tail for row in rows])
        self.owner = owner
        self.message = message
        self.rows = rows
        self.addresses: list[Address] | None = None
        self.began = -1.0  # the present attempt, by the loop's clock; -1: it has not
        self.tls = ""  # of the session with `relay`
        self.sessions = 0  # with `site`
        self.site = ""  # which place of the route is being tried
        self.failure: Reply | None = None
        self.unreadable = False  # the store is damaged where its bytes lie
        self.login: str | None = None
        self.kept: list[Reply] = []  # each recipient's 4yz of the destination, while the fallback relay is tried
        self.gone = False  # the message was deleted while it was on its way
        self.relay = ""  # "host[address]:port" of the last server that was spoken to
        self.plain_text = False  # a TLS handshake failed where it is not required
        self.done: set[int] = set()  # numbers of recipients whose end is committed already
        self.moves: list[Move] = []
        self.reports: dict[Notice, list[Outcome]] | None = None
        self.events: list[tuple[int, Event]] = []  # by number: what is to be told once it is recorded
        self.postings: list[Posting] = []  # reports of the unit that is on its way
        self.mailboxes: dict[int, bytes] | None = None  # number of a recipient -> whose mailbox has the message
        self.recordings = 0
        self.wants_front = False  # it is passed on, and is to be sealed or signed before it leaves
        forwarding = owner.service.forwarding
        if forwarding is not None:
            forwarding.prepare(owner, self)

    @property
    def results_recorded(self) -> int:
        """What a unit of this job counts for among those that are on their way into the store."""
        return max(1, len(self.moves))

    def rest(self) -> "Job":
        """A new job for the recipients of `again`."""
        return self.part(self.again)

    def part(self, numbers: Sequence[int]) -> "Job":
        """A new job for some of the recipients, which sends what this one was to send."""
        made = Job(self.owner, self.message, [self.rows[n] for n in numbers])
        made.sender = self.sender
        made.front = self.front
        made.wants_front = self.wants_front
        return made

    def committed(self, unit: Any) -> None:
        """The store's callback."""
        self.owner.recorded(self, unit)
