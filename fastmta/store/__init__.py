"""What the server keeps, as messages, mailboxes, accounts and a queue: the only room that knows `_store`'s records."""

from fastmta._store import MINFREE_FLOOR
from fastmta.store.mailstore import MailStore

__all__ = ["MINFREE_FLOOR", "MailStore"]
