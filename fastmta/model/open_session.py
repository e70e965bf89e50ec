"""A session that is open, as its protocol's server tells of it."""

from collections.abc import Callable
from typing import Any

import msgspec


class OpenSession(msgspec.Struct, frozen=True, gc=False):
    """`number` grows with each session of a service; `age_s`: since the connection came; `login` is "" before one.

    `end` says the protocol's farewell with this text, and closes: at once, but for a message that is being committed.
    """

    service: str
    number: int
    client: str
    login: str
    account_id: int
    mailbox: int | str  # its name, or id; "" or 0: none
    tls: bool
    age_s: float
    transport: Any
    end: Callable[[str], object]
