"""What accounts may hold that have no quota of their own, and what mailboxes of a name may beside: rules that the store
holds, so that the transaction which files a message obeys them, in every process.
"""

import struct
from typing import Final

from fastmta._store import TABLE_META
from fastmta._unit import Unit
from fastmta.model.quota import QuotaRules
from fastmta.store.committing import Committer

_KEY: Final = b"quota_rules"  # load_quota_rules in quota.pxi
_HEAD: Final = struct.Struct("<B3xIQ")  # QuotaRules of _store.pxd
_RULE: Final = struct.Struct("<BxH4xqq")  # QuotaRule, then its mask
_FORMAT: Final = 1
_IGNORE: Final = 1
_PERCENT: Final = 2
_PERCENT_MESSAGES: Final = 4


class KeptQuotaRules:
    """The rules of the store."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def change(self, rules: QuotaRules) -> Unit | None:
        """A unit that makes these the rules; None where they are."""
        record = _HEAD.pack(_FORMAT, rules.messages, rules.octets)
        for each in rules.mailboxes:
            kind = _IGNORE * each.ignore + _PERCENT * each.percent + _PERCENT_MESSAGES * each.percent_messages
            mask = each.mask.encode()
            record += _RULE.pack(kind, len(mask), each.octets, each.messages) + mask
        kept = self._store.raw.get(TABLE_META, _KEY)
        if kept == record or (kept is None and rules == QuotaRules()):
            return None
        unit = self._store.raw.new_unit()
        unit.put(TABLE_META, _KEY, record)
        return unit
