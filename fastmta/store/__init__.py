"""What the server keeps, as messages, mailboxes, accounts and a queue: the only room that knows `_store`'s records."""

from fastmta._store import MINFREE_FLOOR
from fastmta.store.accounts import Account, Accounts
from fastmta.store.aliases import Aliases
from fastmta.store.mailbox_names import Mailbox
from fastmta.store.mailboxes import Mailboxes, MessageRow
from fastmta.store.mailstore import MailStore
from fastmta.store.queue import Outcome, Queue, QueuedMessage, QueuedRecipient, Selection

__all__ = [
    "MINFREE_FLOOR",
    "Account",
    "Accounts",
    "Aliases",
    "MailStore",
    "Mailbox",
    "Mailboxes",
    "MessageRow",
    "Outcome",
    "Queue",
    "QueuedMessage",
    "QueuedRecipient",
    "Selection",
]
