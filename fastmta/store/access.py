"""Which mailboxes an actor may name, which one a name means to him, and what he may do there.

Everything that a peer does to mailboxes by their names goes through here, with the actor who does it; what is done to a
mailbox by its id follows on a `resolve`, which says the right that it needs. An actor has all rights on his own
mailboxes. Others' are under OTHERS and the owner's address; those of the public account, where there is one, under
PUBLIC. What he may do there their access lists say (store/acl.py); one that he has no right on does not exist for him.
A mailbox of his own whose name begins like theirs, from before, goes before theirs.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from fastmta.model import rights
from fastmta.model.actor import Actor
from fastmta.model.errors import Refused
from fastmta.store.accounts import Accounts
from fastmta.store.acl import SET, AccessLists, Given
from fastmta.store.mailbox_names import DELIMITER, LISTED, Mailbox
from fastmta.store.mailboxes import Mailboxes

OTHERS: Final = "Other Users"
PUBLIC: Final = "Shared"
_OTHERS: Final = OTHERS + DELIMITER
_PUBLIC: Final = PUBLIC + DELIMITER


class _Place(msgspec.Struct, frozen=True, gc=False):
    """Where a name lies: whose, as the owner calls it ("": all of them), behind what the actor writes in front."""

    owner_id: int
    name: str
    lead: str = ""


class Access:
    """The mailboxes of all accounts, as their actors name them."""

    def __init__(self, mailboxes: Mailboxes, accounts: Accounts, lists: AccessLists) -> None:
        self._mailboxes = mailboxes
        self._accounts = accounts
        self._lists = lists
        self.public_address = ""  # of the account whose mailboxes are under PUBLIC

    # --- places ---

    def has_public(self) -> bool:
        """Whether there are names under PUBLIC."""
        return bool(self._public())

    def _public(self) -> int:
        account = self._accounts.lookup(self.public_address) if self.public_address else None
        return account.id if account is not None else 0

    def _places(self, actor: Actor, name: str) -> Iterator[_Place]:
        """Where a name may lie, the actor's own first; an address may have DELIMITER in it."""
        yield _Place(actor.account_id, name)
        if name.startswith(_PUBLIC) and (public := self._public()):
            yield _Place(public, _canonical(name.removeprefix(_PUBLIC)), _PUBLIC)
        elif name.startswith(_OTHERS):
            rest = name.removeprefix(_OTHERS)
            at = rest.find("@")
            while at >= 0:
                end = rest.find(DELIMITER, at)
                address = rest if end < 0 else rest[:end]
                account = self._accounts.lookup(address)
                if account is not None and account.id != self._public():
                    inner = "" if end < 0 else _canonical(rest[end + 1 :])
                    yield _Place(account.id, inner, _OTHERS + account.address + DELIMITER)
                at = rest.find("@", at + 1)

    def _foreign(self, actor: Actor, name: str) -> _Place | None:
        """Where somebody else's mailbox of this name lies; None for a name that can only be the actor's own."""
        if not name.startswith((_OTHERS, _PUBLIC)):
            return None
        return next((place for place in self._places(actor, name) if place.lead), None)

    def _seen(self, actor: Actor, box: Mailbox, lead: str) -> Mailbox:
        """Somebody's mailbox as the actor has it. It is special to its owner alone."""
        if box.account_id != actor.account_id:
            box.rights = self._lists.rights(actor.account_id, box.account_id, box.id)
            if box.name == "INBOX":
                box.rights &= ~rights.DELETE  # its owner cannot either
        if lead:
            box.name = lead + box.name
            box.special_use = ""
        return box

    # --- reading ---

    def resolve(self, actor: Actor, name: str, right: int) -> Mailbox:
        """The mailbox that a name means to the actor, who wants to use this right of model/rights.py there.

        Refused("missing") where there is none that he may know of, ("forbidden") where he has another right on it.
        """
        own = self._mailboxes.get(actor.account_id, name)
        if own is not None:
            return own
        if name.startswith((_OTHERS, _PUBLIC)):
            for place in self._places(actor, name):
                box = self._mailboxes.get(place.owner_id, place.name) if place.lead and place.name else None
                if box is None:
                    continue
                box = self._seen(actor, box, place.lead)
                if box.rights & right:
                    return box
                raise Refused("forbidden" if box.rights & rights.LOOKUP else "missing", name)
        raise Refused("missing", name)

    def rights(self, actor: Actor, owner_id: int, mailbox_id: int) -> int:
        """What the actor may do in a mailbox that he has resolved before."""
        if owner_id == actor.account_id:
            return rights.ALL
        return self._lists.rights(actor.account_id, owner_id, mailbox_id)

    def by_id(self, actor: Actor, mailbox_id: int) -> Mailbox | None:
        """A mailbox that the actor has resolved before, as he names it now and with the rights that he has now."""
        box = self._mailboxes.by_id(mailbox_id)
        if box is None or box.account_id == actor.account_id:
            return box
        lead = self._lead(box.account_id)
        return self._seen(actor, box, lead) if lead else None

    def _lead(self, owner_id: int) -> str:
        """What others write in front of the names of an account's mailboxes; "" where it is gone."""
        if owner_id == self._public():
            return _PUBLIC
        owner = self._accounts.by_id(owner_id)
        return _OTHERS + owner.address + DELIMITER if owner is not None else ""

    def pages(self, actor: Actor) -> Iterator[Sequence[Mailbox]]:
        """The mailboxes that the actor may list, LISTED at most at a time, each once; his own first."""
        yield from self._own_pages(actor.account_id, "")
        yield from self._shared_pages(actor)

    def _own_pages(self, owner_id: int, under: str) -> Iterator[Sequence[Mailbox]]:
        after = ""
        while page := self._mailboxes.page(owner_id, after, under=under):
            after = page[-1].name
            yield page

    def _shared_pages(self, actor: Actor) -> Iterator[Sequence[Mailbox]]:
        seen: set[int] = set()
        leads: dict[int, str] = {}
        for given in self._lists.given_to(actor.account_id):
            for start in range(0, len(given), LISTED):
                yield [box for each in given[start : start + LISTED] if (box := self._given(actor, *each, seen, leads))]

    def _given(
        self, actor: Actor, owner_id: int, mailbox_id: int, seen: set[int], leads: dict[int, str]
    ) -> Mailbox | None:
        if owner_id == actor.account_id or mailbox_id in seen:
            return None
        seen.add(mailbox_id)
        box = self._mailboxes.by_id(mailbox_id)
        if box is None or box.account_id != owner_id:
            return None
        if owner_id not in leads:
            leads[owner_id] = self._lead(owner_id)
        if not leads[owner_id]:
            return None
        box = self._seen(actor, box, leads[owner_id])
        if not box.rights & rights.LOOKUP or self._mailboxes.get(actor.account_id, box.name) is not None:
            return None
        return box

    def inferiors(self, actor: Actor, name: str) -> Iterator[Sequence[Mailbox]]:
        """The mailboxes under a name, which need not be one, that the actor may list, LISTED at most at a time."""
        yield from self._own_pages(actor.account_id, name + DELIMITER)
        if name in (OTHERS, PUBLIC):
            for page in self._shared_pages(actor):
                yield [box for box in page if box.name.startswith(name + DELIMITER)]
        place = self._foreign(actor, name)
        if place is not None:
            under = place.name + DELIMITER if place.name else ""
            for page in self._own_pages(place.owner_id, under):
                boxes = [self._seen(actor, box, place.lead) for box in page]
                yield [box for box in boxes if box.rights & rights.LOOKUP]

    def has_inferiors(self, actor: Actor, name: str) -> bool:
        """Whether he may list mailboxes under this name, which need not be one itself."""
        if self._mailboxes.has_inferiors(actor.account_id, name):
            return True
        return name.startswith((OTHERS, PUBLIC)) and any(self.inferiors(actor, name))

    def subscriptions(self, actor: Actor, after: str = "", limit: int = LISTED) -> Sequence[str]:
        """At most `limit` of the names that he subscribes to, in order, behind the name `after`."""
        return self._mailboxes.subscriptions(actor.account_id, after, limit)

    def is_subscribed(self, actor: Actor, name: str) -> bool:
        """Whether he subscribes to this name."""
        return self._mailboxes.is_subscribed(actor.account_id, name)

    def list(self, actor: Actor, name: str) -> list[Given]:
        """The access list of a mailbox, without its owner. Refused as `resolve` with the right to administer it."""
        box = self.resolve(actor, name, rights.ADMIN)
        return self._lists.entries(box.account_id, box.id)

    def owner_named(self, address: str) -> Actor | None:
        """Whoever has this address, where the account is open."""
        account = self._accounts.lookup(address)
        return Actor(account.id) if account is not None and account.enabled else None

    def owner_address(self, box: Mailbox) -> str:
        """Whose mailbox it is."""
        owner = self._accounts.by_id(box.account_id)
        return owner.address if owner is not None else ""

    # --- writing ---

    async def subscribe(self, actor: Actor, name: str) -> None:
        """Adds a name to his subscriptions."""
        await self._mailboxes.subscribe(actor.account_id, name)

    async def unsubscribe(self, actor: Actor, name: str) -> None:
        """Takes a name away from his subscriptions."""
        await self._mailboxes.unsubscribe(actor.account_id, name)

    async def create(self, actor: Actor, name: str, special_use: str = "") -> Mailbox:
        """Makes a mailbox and its missing superiors; Refused as Mailboxes.create, and ("forbidden") where he may not
        make one there.
        """
        place = self._new_place(actor, name)
        return self._seen(actor, await self._mailboxes.create(place.owner_id, place.name, special_use), place.lead)

    async def rename(self, actor: Actor, old: str, new: str) -> None:
        """Renames a mailbox and its inferiors; Refused as Mailboxes.rename, ("forbidden") where he may not take it away
        from here or put it there, and ("elsewhere") where the new name is another account's.
        """
        place = self._old_place(actor, old)
        target = self._new_place(actor, new)
        if place.owner_id != target.owner_id:
            raise Refused("elsewhere", new)
        await self._mailboxes.rename(place.owner_id, place.name, target.name)

    async def give(self, actor: Actor, name: str, identifier: str, given: int, how: int = SET) -> None:
        """Changes what somebody may do in a mailbox. Refused as `resolve` and AccessLists.change."""
        box = self.resolve(actor, name, rights.ADMIN)
        await self._lists.change(box.account_id, box.id, identifier, given, how, any_name=True)

    async def take(self, actor: Actor, name: str, identifier: str) -> bool:
        """Takes an entry away; False where there was none. Refused as `resolve`, and ("unknown")."""
        box = self.resolve(actor, name, rights.ADMIN)
        return await self._lists.remove(box.account_id, box.id, identifier, any_name=True)

    def _new_place(self, actor: Actor, name: str) -> _Place:
        """Where a mailbox of a new name goes. Somebody else's needs the right on the nearest one above it."""
        place = self._foreign(actor, name)
        if place is not None and place.owner_id == actor.account_id:
            name = place.name
            place = self._foreign(actor, name)
            if not name or place is not None:  # what is his own does not look like others'
                raise Refused("forbidden", name)
        if place is None:
            root = name.partition(DELIMITER)[0]
            if root == OTHERS and self._mailboxes.get(actor.account_id, OTHERS) is None:
                raise Refused("forbidden", name)
            return _Place(actor.account_id, name)
        superior = place.name
        while superior:
            superior = superior.rpartition(DELIMITER)[0]
            box = self._mailboxes.get(place.owner_id, superior) if superior else None
            if box is not None:
                if self.rights(actor, place.owner_id, box.id) & rights.CREATE:
                    return place
                break
        raise Refused("forbidden", name)

    def _old_place(self, actor: Actor, name: str) -> _Place:
        place = self._foreign(actor, name)
        if place is None or self._mailboxes.get(actor.account_id, name) is not None:
            return _Place(actor.account_id, name)
        if not self._mailboxes.get(place.owner_id, place.name):
            raise Refused("missing", name)  # a name with inferiors alone is its owner's to rename
        self.resolve(actor, name, rights.DELETE)
        return place


def _canonical(name: str) -> str:
    """INBOX is one name in any case, also as the parent of others."""
    head, separator, rest = name.partition(DELIMITER)
    return "INBOX" + separator + rest if head.upper() == "INBOX" else name
