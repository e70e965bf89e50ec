"""Access lists (RFC 4314): what owners, and administrators, give others of their mailboxes."""

from collections.abc import Callable, Collection, Iterator
from typing import Final

import msgspec

from fastmta._store import TABLE_ACL
from fastmta._unit import Unit
from fastmta.model.errors import Refused
from fastmta.model.limits import ACL_ENTRIES
from fastmta.store.accounts import Accounts
from fastmta.store.acl_rows import (
    ANYONE,
    AUTHENTICATED,
    NOBODY,
    Entries,
    Entry,
    acl_key,
    decoded_list,
    given_to,
    read_list,
    write_list,
)
from fastmta.store.committing import Committer, commit_guarded
from fastmta.store.groups import Groups

_NAMES: Final = {ANYONE: "anyone", AUTHENTICATED: "authenticated"}
_NUMBERS: Final = {name: who for who, name in _NAMES.items()}
_NAME_CHARACTERS: Final = 320  # of one that no account has
_Changed = Callable[[Entries], Entries]
SET, ADD, TAKE = 0, 1, 2  # how SETACL changes rights


class Given(msgspec.Struct, frozen=True):
    """An entry as it is shown: `identifier` is an address, "$" and a group, "anyone" or "authenticated", with "-"
    before it where the rights are taken away.
    """

    identifier: str
    rights: int


class AccessLists:
    """The access lists of all mailboxes."""

    def __init__(self, store: Committer, accounts: Accounts, groups: Groups) -> None:
        self._store = store
        self._accounts = accounts
        self._groups = groups

    def rights(self, account_id: int, owner_id: int, mailbox_id: int) -> int:
        """What an account that is not the owner may do: anyone's, then authenticated's, then its groups', then its own
        entry adds its rights, and negative ones take them away (Dovecot's order).
        """
        entries = read_list(self._store.raw, owner_id, mailbox_id)
        rights = 0
        groups = self._groups_named(account_id, entries)
        for each in ((ANYONE,), (AUTHENTICATED,), groups, (account_id,)):
            for entry in entries:
                if entry.who in each and not entry.negative:
                    rights |= entry.rights
            for entry in entries:
                if entry.who in each and entry.negative:
                    rights &= ~entry.rights
        return rights

    def _groups_named(self, account_id: int, entries: Entries) -> Collection[int]:
        """Which of the groups in a list the account is in."""
        named = {entry.who for entry in entries if _is_group(entry)}
        if not named:
            return ()
        named.intersection_update(self._groups.of(account_id))
        return {
            entry.who for entry in entries if entry.who in named and self._groups.id_of(entry.name[1:]) == entry.who
        }

    def given_to(self, account_id: int) -> Iterator[list[tuple[int, int]]]:
        """(owner's account id, mailbox id) of what an account may have been given, some at a time, a mailbox perhaps
        several times; what it may do there, `rights` says.
        """
        for who in (account_id, *self._groups.of(account_id), AUTHENTICATED, ANYONE):
            yield from given_to(self._store.raw, who)

    def entries(self, owner_id: int, mailbox_id: int) -> list[Given]:
        """A mailbox's list in order of identifiers; accounts and groups that are gone are left out."""
        found = []
        for entry in read_list(self._store.raw, owner_id, mailbox_id):
            name = entry.name or self._name(entry.who)
            if name and not (_is_group(entry) and self._groups.id_of(name[1:]) != entry.who):
                found.append(Given("-" * entry.negative + name, entry.rights))
        return sorted(found, key=lambda each: (each.identifier.lstrip("-"), each.identifier.startswith("-")))

    def _name(self, who: int) -> str:
        if who in _NAMES:
            return _NAMES[who]
        account = self._accounts.by_id(who) if who >= 0 else None
        return account.address if account is not None else ""

    def who(self, identifier: str) -> tuple[int, bool]:
        """(who, negative) of an identifier. Refused("unknown") where nobody is called so."""
        negative = identifier.startswith("-")
        name = identifier.removeprefix("-")
        number = _NUMBERS.get(name.lower())
        if number is not None:
            return number, negative
        account = self._accounts.lookup(name.removeprefix("user="))
        if account is None:
            raise Refused("unknown", name)
        return account.id, negative

    async def change(
        self, owner_id: int, mailbox_id: int, identifier: str, rights: int, how: int = SET, *, any_name: bool = False
    ) -> None:
        """Sets, adds or takes rights of an identifier. Refused("unknown"), ("owner") or ("limit").

        With `any_name` a name that no account has is kept too, and gives nobody anything: who shares a mailbox does not
        learn who has one.
        """
        who, negative, name = self._subject(identifier, any_name)
        if who == owner_id:
            raise Refused("owner")
        mine = (who, negative, name)

        def changed(entries: Entries) -> Entries:
            old = next((each.rights for each in entries if (each.who, each.negative, each.name) == mine), 0)
            new = rights if how == SET else old | rights if how == ADD else old & ~rights
            given = self._name(who)  # an account may have got a name that nobody had
            rest = tuple(
                each
                for each in entries
                if (each.who, each.negative, each.name) != mine and (not given or each.name != given)
            )
            if len(rest) >= ACL_ENTRIES:
                raise Refused("limit")
            return (*rest, Entry(who, new, negative, name))

        await self._change(owner_id, mailbox_id, who, changed)

    def _subject(self, identifier: str, any_name: bool) -> tuple[int, bool, str]:
        """(who, negative, name) of an identifier. Refused("unknown")."""
        group = _group_named(identifier)
        if group:
            number = self._groups.id_of(group[1:])
            if not number:
                raise Refused("unknown", group)
            return number, identifier.startswith("-"), group
        try:
            return *self.who(identifier), ""
        except Refused:
            name = identifier.removeprefix("-").removeprefix("user=").lower()
            if not any_name or not 0 < len(name) <= _NAME_CHARACTERS or not name.isprintable() or name[0] == "$":
                raise
            return NOBODY, identifier.startswith("-"), name

    async def remove(self, owner_id: int, mailbox_id: int, identifier: str, *, any_name: bool = False) -> bool:
        """Takes an entry away; False where there was none. Refused("unknown")."""
        who, negative, name = self._subject(identifier, any_name)
        mine = (who, negative, name)
        found = False

        def changed(entries: Entries) -> Entries:
            nonlocal found
            rest = tuple(each for each in entries if (each.who, each.negative, each.name) != mine)
            found = len(rest) < len(entries)
            return rest

        await self._change(owner_id, mailbox_id, who, changed)
        return found

    async def _change(self, owner_id: int, mailbox_id: int, who: int, changed: _Changed) -> None:
        """Sessions of the one who is given something hear of it, and those that follow the owner's mailboxes."""
        key = acl_key(owner_id, mailbox_id)
        raw = self._store.raw

        def compose() -> Unit:
            value = raw.get(TABLE_ACL, key)
            old = decoded_list(raw, key, value)
            unit = raw.new_unit()
            unit.guard(TABLE_ACL, key, value)
            write_list(unit, key, old, changed(old))
            for account_id in {owner_id, who} - {*_NAMES, NOBODY}:
                unit.mailbox_list_changed(account_id)
            return unit

        await commit_guarded(self._store, compose)


def _is_group(entry: Entry) -> bool:
    return entry.name[:1] == "$"


def _group_named(identifier: str) -> str:
    """ "$" and the group that an identifier means, written as Dovecot's files or its IMAP have it; "" for none."""
    name = identifier.removeprefix("-").lower()
    if name.startswith("group="):
        return "$" + name.removeprefix("group=")
    return name if name.startswith("$") else ""
