"""What has changed in an account since a moment, over all of its mailboxes: what a client asks that keeps one state.

From level 4 on modseqs are the account's: each change in any of its mailboxes takes the next one, so one number tells
states of all mailboxes apart. Whoever asks takes `modseq` first and the changes since his last one afterwards: what
comes meanwhile is told twice at most, never not at all.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from fastmta._store import TABLE_USAGE, changed_mailboxes, expunged_ids, usage_counter
from fastmta.model.errors import Refused
from fastmta.store.committing import Committer
from fastmta.store.email_ids import email_id
from fastmta.store.record_keys import id_key

LOOKED: Final = 1000  # mailboxes of a page, 0.14 ms where they are in memory


class Expunged(NamedTuple):
    """A message that is no longer in its mailbox; it may be in another one under the same id."""

    uid: int
    email_id: bytes  # what FETCH EMAILID gave (RFC 8474)


class AccountChanges:
    """The changes of all accounts."""

    def __init__(self, store: Committer) -> None:
        self._raw = store.raw

    def modseq(self, account_id: int) -> int | None:
        """The modseq of an account's last change; None while its store has records of the level before."""
        modseq, _, is_settled = self._counter(account_id)
        return modseq if is_settled else None

    def mailboxes(self, account_id: int, since_modseq: int, after: bytes = b"") -> tuple[list[int], bytes]:
        """The ids of the mailboxes in which something has changed, and a token for the next page, b"" behind the last.

        Refused("missing") where it is not known any more what was expunged since then: begin anew. What has changed in
        each say `Mailboxes.changed_uids` and `expunged`, with the same modseq.
        """
        _, floor, is_settled = self._counter(account_id)
        if not is_settled or since_modseq < floor:
            raise Refused("missing")
        found, token = changed_mailboxes(self._raw, account_id, since_modseq, after, LOOKED)
        if any(since_modseq < forgotten for _, _, forgotten in found):
            raise Refused("missing")
        return [mailbox_id for mailbox_id, _, _ in found], token

    def _counter(self, account_id: int) -> tuple[int, int, bool]:
        record = self._raw.get(TABLE_USAGE, id_key(account_id))
        return (0, 0, False) if record is None else usage_counter(record)

    def expunged(self, mailbox_id: int, since_modseq: int, limit: int) -> tuple[Sequence[Expunged], int]:
        """About `limit` messages that were expunged from a mailbox after a modseq, in that order; and the modseq up to
        which they are all, 0: there are no more.
        """
        found, until = expunged_ids(self._raw, mailbox_id, since_modseq, limit)
        return [Expunged(uid, email_id(blob_id, digest)) for uid, blob_id, digest in found], until
