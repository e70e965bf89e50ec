"""Who reads or changes mailboxes."""

from typing import Final

import msgspec


class Actor(msgspec.Struct, frozen=True, gc=False):
    """Somebody who has logged in, by his account. What he may name is the store's to say (store/access.py)."""

    account_id: int


NOBODY: Final = Actor(0)  # before a login: no account has this number
