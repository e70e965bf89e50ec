"""Which mailboxes an actor may name, and which one a name means to him.

Everything that a peer does to mailboxes by their names goes through here, with the actor who does it; what is done to a
mailbox by its id follows on a `resolve`. The only rule today: an actor's names are those of his own account, and he
may do everything there. Shared mailboxes and access lists (RFC 4314) are rules of `_owner` and `resolve`.
"""

from collections.abc import Sequence

from fastmta.model.actor import Actor
from fastmta.model.errors import Refused
from fastmta.store.mailbox_names import LISTED, Mailbox
from fastmta.store.mailboxes import Mailboxes


class Access:
    """The mailboxes of all accounts, as their actors name them."""

    def __init__(self, mailboxes: Mailboxes) -> None:
        self._mailboxes = mailboxes

    def _owner(self, actor: Actor) -> int:
        """The account whose list of mailboxes the actor's names are looked up in."""
        return actor.account_id

    # --- reading ---

    def resolve(self, actor: Actor, name: str) -> Mailbox:
        """The mailbox that a name means to the actor. Refused("missing") where there is none that he may know of."""
        mailbox = self.find(actor, name)
        if mailbox is None:
            raise Refused("missing", name)
        return mailbox

    def find(self, actor: Actor, name: str) -> Mailbox | None:
        """As `resolve`, but None for a refusal."""
        return self._mailboxes.get(self._owner(actor), name)

    def page(self, actor: Actor, after: str = "", limit: int = LISTED, *, under: str = "") -> Sequence[Mailbox]:
        """At most `limit` of the mailboxes that the actor may list, in order of name, behind the name `after`; or of
        those whose name begins with `under`. [] behind the last.
        """
        return self._mailboxes.page(self._owner(actor), after, limit, under=under)

    def has_inferiors(self, actor: Actor, name: str) -> bool:
        """Whether he may list mailboxes under this name, which need not be one itself."""
        return self._mailboxes.has_inferiors(self._owner(actor), name)

    def subscriptions(self, actor: Actor, after: str = "", limit: int = LISTED) -> Sequence[str]:
        """At most `limit` of the names that he subscribes to, in order, behind the name `after`."""
        return self._mailboxes.subscriptions(actor.account_id, after, limit)

    def is_subscribed(self, actor: Actor, name: str) -> bool:
        """Whether he subscribes to this name."""
        return self._mailboxes.is_subscribed(actor.account_id, name)

    # --- writing ---

    async def subscribe(self, actor: Actor, name: str) -> None:
        """Adds a name to his subscriptions."""
        await self._mailboxes.subscribe(actor.account_id, name)

    async def unsubscribe(self, actor: Actor, name: str) -> None:
        """Takes a name away from his subscriptions."""
        await self._mailboxes.unsubscribe(actor.account_id, name)

    async def create(self, actor: Actor, name: str, special_use: str = "") -> Mailbox:
        """Makes a mailbox and its missing superiors; Refused as Mailboxes.create."""
        return await self._mailboxes.create(self._owner(actor), name, special_use)

    async def rename(self, actor: Actor, old: str, new: str) -> None:
        """Renames a mailbox and its inferiors; Refused as Mailboxes.rename."""
        await self._mailboxes.rename(self._owner(actor), old, new)
