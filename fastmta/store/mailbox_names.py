"""The mailboxes of accounts by name: the list, subscriptions, making, renaming and removing them (RFC 3501 §6.3)."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from fastmta._store import (
    TABLE_ANNOTATION,
    TABLE_MAILBOX,
    TABLE_MAILBOX_NAME,
    TABLE_SUBSCRIPTION,
    TABLE_USAGE,
    mailbox_fields,
    mailbox_list,
    mailbox_named,
    usage_fields,
)
from fastmta._unit import Unit
from fastmta.model import rights
from fastmta.model.errors import Refused, StorageFailure
from fastmta.model.first_mailboxes import FIRST_MAILBOXES
from fastmta.model.limits import MAILBOXES
from fastmta.store.acl_rows import Entries, acl_key, forget_list, read_list, write_list
from fastmta.store.committing import GUARDED_RUNS, Committer, commit_guarded
from fastmta.store.pace import others_turn
from fastmta.store.record_keys import id_key

DELIMITER: Final = "/"  # between the levels of a mailbox name
LISTED: Final = 250  # mailboxes, or subscriptions, read in one piece: half a millisecond
RENAMED: Final = 200  # mailboxes of one unit: two milliseconds
KEY_BYTES: Final = 500  # of a key, the account's number left out
_Names = list[tuple[int, str]]  # of mailboxes: the id, and what follows the part that they share
NO_USES: Final[Mapping[str, str]] = {}
NAME_BYTES: Final = 440  # of a mailbox name in UTF-8: with the account it is a key


class Mailbox(msgspec.Struct, gc=False):
    """A mailbox and its counts as of one moment; `recent_uid` is the first uid that nobody has seen as \\Recent.

    `name` is the one that the asker knows it by, and `rights` are what he may do there (model/rights.py).
    """

    id: int
    account_id: int
    uid_validity: int
    uid_next: int
    highest_modseq: int
    floor_modseq: int
    exists: int
    unseen: int
    recent_uid: int
    size_bytes: int
    deleted_count: int
    name: str
    special_use: str
    rights: int = rights.ALL


def canonical_name(name: str) -> str:
    """INBOX is one name in any case (RFC 3501 §5.1); every other is kept as given."""
    return "INBOX" if name.upper() == "INBOX" else name


def _mailbox(mailbox_id: int, record: bytes) -> Mailbox:
    fields = mailbox_fields(record)
    return Mailbox(mailbox_id, *fields[:10], fields[10].decode(), fields[11].decode())


class MailboxNames:
    """The mailboxes of all accounts, apart from what is in them. Nothing here costs what an account has of them, but
    for `list`; long walks are in pages.
    """

    def __init__(self, store: Committer) -> None:
        self._store = store
        self._raw = store.raw

    def list(self, account_id: int) -> list[Mailbox]:
        """An account's mailboxes in order of name, with counts of one moment."""
        return [self._mailbox(mailbox_id, record) for mailbox_id, record in mailbox_list(self._raw, account_id)]

    def page(self, account_id: int, after: str = "", limit: int = LISTED, *, under: str = "") -> Sequence[Mailbox]:
        """At most `limit` of an account's mailboxes, in order of name, behind the name `after`; or of those whose name
        begins with `under`. Each with its counts of a moment of its own; [] behind the last.
        """
        prefix = id_key(account_id) + under.encode()
        start = id_key(account_id) + after.encode() + b"\0" if after else b""
        out: list[Mailbox] = []
        while len(out) < limit and (rows := self._raw.scan(TABLE_MAILBOX_NAME, prefix, start, limit - len(out))):
            for key, value in rows:
                record = self._raw.get(TABLE_MAILBOX, value[::-1])
                if record is not None:
                    out.append(self._mailbox(int.from_bytes(value, "little"), record))
                elif self._raw.get(TABLE_MAILBOX_NAME, key) == value:  # else it was deleted meanwhile
                    raise self._raw.damaged("mailbox", value[::-1], "the mailbox that a name leads to is not there")
            start = rows[-1][0] + b"\0"
        return out

    def has_inferiors(self, account_id: int, name: str) -> bool:
        """Whether mailboxes lie under this name, which need not be one itself."""
        lead = (name + DELIMITER).encode()
        return len(lead) < KEY_BYTES and bool(self._raw.scan(TABLE_MAILBOX_NAME, id_key(account_id) + lead, b"", 1))

    def _mailbox(self, mailbox_id: int, record: bytes) -> Mailbox:
        try:
            return _mailbox(mailbox_id, record)
        except ValueError as error:  # UnicodeDecodeError is one
            raise self._raw.damaged("mailbox", id_key(mailbox_id), "the record cannot be decoded") from error

    def get(self, account_id: int, name: str) -> Mailbox | None:
        """The mailbox of this name, or None."""
        raw_name = canonical_name(name).encode()
        if len(raw_name) > NAME_BYTES:
            return None
        found = mailbox_named(self._raw, account_id, raw_name)
        return self._mailbox(*found) if found is not None else None

    def junk_of(self, account_id: int) -> int:
        """The mailbox of an account that has the special use \\Junk (RFC 6154); 0 where none has."""
        usual = self.get(account_id, "Junk")
        if usual is not None and usual.special_use == "\\Junk":
            return usual.id
        return next((each.id for each in self.list(account_id) if each.special_use == "\\Junk"), 0)

    def quarantine_of(self, account_id: int, name: str) -> int:
        """The mailbox of that name, or where it is "" the one for junk; 0 where there is none."""
        if not name:
            return self.junk_of(account_id)
        found = self.get(account_id, name)
        return found.id if found is not None else 0

    def by_id(self, mailbox_id: int) -> Mailbox | None:
        """The mailbox with this identifier, or None."""
        record = self._raw.get(TABLE_MAILBOX, id_key(mailbox_id))
        return self._mailbox(mailbox_id, record) if record is not None else None

    def subscriptions(self, account_id: int, after: str = "", limit: int = LISTED) -> Sequence[str]:
        """At most `limit` of the names an account subscribes to, in order, behind the name `after`; a mailbox of that
        name need not exist.
        """
        lead = id_key(account_id)
        start = lead + after.encode() + b"\0" if after else b""
        return [key[8:].decode() for key, _ in self._raw.scan(TABLE_SUBSCRIPTION, lead, start, limit)]

    def is_subscribed(self, account_id: int, name: str) -> bool:
        """Whether an account subscribes to this name."""
        raw_name = canonical_name(name).encode()
        return len(raw_name) <= NAME_BYTES and (
            self._raw.get(TABLE_SUBSCRIPTION, id_key(account_id) + raw_name) is not None
        )

    async def subscribe(self, account_id: int, name: str) -> None:
        """Adds a name to the account's subscriptions."""
        unit = self._raw.new_unit()
        unit.put(TABLE_SUBSCRIPTION, id_key(account_id) + _bounded(name), b"")
        unit.mailbox_list_changed(account_id)
        await self._store.commit(unit)

    async def unsubscribe(self, account_id: int, name: str) -> None:
        """Takes a name away from the account's subscriptions; one that is not there is no error."""
        unit = self._raw.new_unit()
        unit.delete(TABLE_SUBSCRIPTION, id_key(account_id) + _bounded(name))
        unit.mailbox_list_changed(account_id)
        await self._store.commit(unit)

    async def create(self, account_id: int, name: str, special_use: str = "") -> Mailbox:
        """Makes a mailbox and its missing superiors; Refused("exists"), ("limit") for a name that is too long, or
        ("many") where the account has MAILBOXES.

        Without a special use, the name of one of the first mailboxes has that one's, unless another serves for it.
        """
        name = canonical_name(name)
        mailbox_id = self._raw.new_id()

        def compose() -> Unit:
            unit = self._raw.new_unit()
            self._new(unit, account_id, name, mailbox_id, special_use)
            return unit

        await commit_guarded(self._store, compose)
        mailbox = self.by_id(mailbox_id)
        if mailbox is None:
            raise Refused("missing", name)  # deleted again by somebody else before we looked
        return mailbox

    def _new(self, unit: Unit, account_id: int, name: str, mailbox_id: int, special_use: str = "") -> None:
        """Adds to a unit what makes a mailbox with its missing superiors (RFC 3501 §6.3.3), as the list is read now."""
        raw_name = _bounded(name)
        self._take_list(unit, account_id, grows=True)
        free = self._free_uses(account_id, name)
        given = self._inherited(account_id, name)
        self._superiors(unit, account_id, name, free, given)
        use = special_use or free.get(name, "")
        unit.mailbox_new(mailbox_id, account_id, raw_name, use.encode(), int(self._store.clock.now()))
        write_list(unit, acl_key(account_id, mailbox_id), (), given)

    def _take_list(self, unit: Unit, account_id: int, *, grows: bool) -> None:
        """Has the unit refused where the list has changed until then; Refused("many") where it is full and `grows`."""
        version = usage_fields(self._raw.get(TABLE_USAGE, id_key(account_id)))[3]
        unit.mailbox_list_version(account_id, version)
        # Every mailbox has raised the version: nearly nobody's have to be counted.
        if grows and version >= MAILBOXES:
            found = self._raw.scan(TABLE_MAILBOX_NAME, id_key(account_id), b"", MAILBOXES)
            if len(found) >= MAILBOXES:
                raise Refused("many", f"an account has at most {MAILBOXES} mailboxes")

    def _inherited(self, account_id: int, name: str) -> Entries:
        """The access list of the nearest mailbox above a name: a new one begins with it, as Dovecot's do."""
        superior, _, _ = name.rpartition(DELIMITER)
        while superior:
            box = self.get(account_id, superior)
            if box is not None:
                return read_list(self._raw, account_id, box.id)
            superior, _, _ = superior.rpartition(DELIMITER)
        return ()

    def _free_uses(self, account_id: int, name: str) -> Mapping[str, str]:
        """The special uses that a name and its superiors would have, since no mailbox serves for them."""
        own = {
            first: use
            for first, use in FIRST_MAILBOXES
            if use and (name + DELIMITER).startswith(first + DELIMITER) and not self._exists(account_id, first)
        }
        if not own:
            return NO_USES
        taken = {mailbox.special_use for mailbox in self.list(account_id)}
        return {first: use for first, use in own.items() if use not in taken}

    def _exists(self, account_id: int, name: str) -> bool:
        return self._raw.get(TABLE_MAILBOX_NAME, id_key(account_id) + name.encode()) is not None

    def _superiors(
        self,
        unit: Unit,
        account_id: int,
        name: str,
        uses: Mapping[str, str] = NO_USES,
        given: Entries = (),
    ) -> None:
        levels = name.split(DELIMITER)
        for depth in range(1, len(levels)):
            superior = DELIMITER.join(levels[:depth])
            if superior and not self._exists(account_id, superior):
                use = uses.get(superior, "").encode()
                now_s, mailbox_id = int(self._store.clock.now()), self._raw.new_id()
                unit.mailbox_new(mailbox_id, account_id, superior.encode(), use, now_s)
                write_list(unit, acl_key(account_id, mailbox_id), (), given)

    async def delete(self, mailbox_id: int) -> None:
        """Removes a mailbox and all in it; the bytes go through the trash. Subscriptions stay (RFC 3501 §6.3.4)."""
        unit = self._raw.new_unit()
        unit.mailbox_gone(mailbox_id)
        mailbox = self.by_id(mailbox_id)
        if mailbox is not None:
            forget_list(self._raw, unit, acl_key(mailbox.account_id, mailbox_id))
            for key, _ in self._raw.scan(TABLE_ANNOTATION, id_key(mailbox.account_id) + id_key(mailbox_id), b"", 1000):
                unit.delete(TABLE_ANNOTATION, key)
        await self._store.commit(unit)

    async def rename_tree(self, account_id: int, old: str, new: str) -> None:
        """Renames a mailbox and its inferiors, and makes missing superiors (RFC 3501 §6.3.5).

        More than RENAMED mailboxes are renamed in several units
        (adr/0053): whether all can be is looked at before, and if one can't after all, all are as they were.
        """
        old, new = canonical_name(old), canonical_name(new)
        done: _Names = []
        try:
            for _ in range(GUARDED_RUNS):
                wanted = await self._to_rename(account_id, old, new)
                if not wanted:
                    break
                await self._rename_these(account_id, wanted, old, new, done)
        except (Refused, StorageFailure):
            with contextlib.suppress(Refused):
                await self._rename_these(account_id, done, new, old, [])
            raise
        if not done:
            raise Refused("missing", old)

    async def _to_rename(self, account_id: int, old: str, new: str) -> _Names:
        """(id, what follows the old name) of a mailbox and its inferiors. Refused where one can't have its new name."""
        own = self.get(account_id, old)
        out = [] if own is None else [(own.id, "")]
        after = ""
        while page := self.page(account_id, after, under=old + DELIMITER):
            after = page[-1].name
            out += [(mailbox.id, mailbox.name[len(old) :]) for mailbox in page]
            await others_turn()
        for number, (_, rest) in enumerate(out, 1):
            _bounded(new + rest)
            if self._exists(account_id, new + rest):
                raise Refused("exists", new + rest)
            if number % LISTED == 0:
                await others_turn()
        return out

    async def _rename_these(
        self,
        account_id: int,
        wanted: _Names,
        old: str,
        new: str,
        done: _Names,
    ) -> None:
        """RENAMED of them in a unit. Where somebody has changed one of them meanwhile, the rest waits."""
        for start in range(0, len(wanted), RENAMED):
            part = wanted[start : start + RENAMED]

            def compose(part: _Names = part) -> Unit:
                unit = self._raw.new_unit()
                grows = DELIMITER in new and not self._exists(account_id, new.rpartition(DELIMITER)[0])
                self._take_list(unit, account_id, grows=grows)
                self._superiors(unit, account_id, new, given=self._inherited(account_id, new))
                for mailbox_id, rest in part:
                    unit.mailbox_rename(mailbox_id, (old + rest).encode(), _bounded(new + rest))
                return unit

            try:
                await commit_guarded(self._store, compose)
            except Refused as refusal:
                if refusal.code not in ("changed", "missing"):
                    raise
                return
            done += part


def _bounded(name: str) -> bytes:
    raw_name = canonical_name(name).encode()
    if not 0 < len(raw_name) <= NAME_BYTES:
        raise Refused("limit", "a mailbox name has 1 to 440 bytes")
    return raw_name
