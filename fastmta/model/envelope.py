"""What a queued message and its recipients are, apart from the message's bytes.

`Envelope` and `RecipientTail` are msgspec arrays, so fields may only be appended, each with a default.
"""

import datetime
from enum import IntEnum
from typing import Final

import msgspec

from fastmta.model.reply import Reply


class RecipientState(IntEnum):
    """The states of a queued recipient; the legal moves stand in fastmta/queue/README.md."""

    ACTIVE = 1
    DEFERRED = 2
    HELD = 3
    DELIVERED = 4
    BOUNCED = 5


class Lane(IntEnum):
    """The schedule's lanes of one next hop, served in weighted turns."""

    SMALL = 0
    NORMAL = 1
    BULK = 2


# Arrival bits of a blob, found while it was received.
HAS_DOT_LINE: Final = 1  # a line begins with ".": the body must be stuffed on its way out (RFC 5321 §4.5.2)
HAS_8BIT: Final = 2
HAS_LONG_LINE: Final = 4  # a line longer than 998 octets (RFC 5322 §2.1.1)
NO_FINAL_CRLF: Final = 8
HAS_BARE_NEWLINE: Final = 16  # a bare CR or LF; only where smtpd_forbid_bare_newline allows
HAS_NUL: Final = 32


class Terms(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a client has demanded of a message's delivery beyond its coming: kept, and passed on where that is due."""

    requiretls: bool = False  # RFC 8689: only over TLS to servers that prove who they are and promise the same
    deliver_by_ms: int = 0  # RFC 2852: until when; 0: not demanded
    by_mode: str = (
        ""  # "R": else it comes back; "N": else the sender is told; with "T" behind it where relaying is told
    )
    release_at_ms: int = 0  # RFC 4865: not before; 0: at once

    @property
    def returns(self) -> bool:
        """Whether the message comes back when its time is over."""
        return self.by_mode.startswith("R")


def told_terms(terms: Terms) -> dict[str, str | None]:
    """For the log and for listings: each demand, None where there is none; instants in UTC."""

    def moment(at_ms: int) -> str:
        return f"{datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"

    return {
        "requiretls": "yes" if terms.requiretls else None,
        "deliver_by": f"{moment(terms.deliver_by_ms)} {terms.by_mode}" if terms.by_mode else None,
        "release_at": moment(terms.release_at_ms) if terms.release_at_ms else None,
    }


class Envelope(msgspec.Struct, array_like=True, gc=False):
    """A message in the queue. Paths are without angle brackets; the null reverse path is b""."""

    reverse_path: bytes
    received_at_ms: int
    size_bytes: int
    bits: int
    client: str = ""  # "name[address]" of who handed it in, as logged
    authenticated_as: str = ""
    envid: bytes = b""  # RFC 3461 §4.4, xtext decoded
    ret: str = ""  # "FULL", "HDRS" or ""
    smtputf8: bool = False
    protocol: str = "ESMTP"
    terms: Terms | None = None
    tenant: str = ""  # whose mail it is by who sends it (directory/tenants.py); _store's ENVELOPE_TENANT is its place

    @property
    def began_ms(self) -> int:
        """When its delivery could begin: what its age is counted from."""
        return self.received_at_ms if self.terms is None else max(self.received_at_ms, self.terms.release_at_ms)


class RecipientTail(msgspec.Struct, array_like=True, gc=False):
    """The part of a queued recipient that operations never change."""

    forward_path: bytes
    orcpt: bytes = b""  # RFC 3461 §4.2, "rfc822;user@example.org"
    notify: int = 0  # NOTIFY_* bits, 0: not given
    original: bytes = b""  # the recipient before aliasing, where it differs
    tenant: str = ""  # whose mail it is by who gets it; _store's TAIL_TENANT is its place


def tenant_of(envelope: Envelope, tail: RecipientTail) -> str:
    """Whose mail a queued recipient's is: whoever sends it, else whoever gets it; "" nobody's."""
    return envelope.tenant or tail.tenant


NOTIFY_NEVER: Final = 1
NOTIFY_SUCCESS: Final = 2
NOTIFY_FAILURE: Final = 4
NOTIFY_DELAY: Final = 8


class LocalTarget(msgspec.Struct, frozen=True, gc=False):
    """A mailbox that takes the message in the accepting transaction."""

    account_id: int
    mailbox_id: int
    address: bytes  # final address after aliasing: goes into Delivered-To
    mailbox: bytes = b""  # whose it is, the account's own address, for the log


class QueuedTarget(msgspec.Struct, frozen=True, gc=False):
    """A recipient that goes into the queue under a next hop such as b"smtp:example.org" or b"smtp:[127.0.0.1]:2526"."""

    forward_path: bytes
    hop: bytes
    held: bool = False


class Resolution(msgspec.Struct, frozen=True, gc=False):
    """What becomes of one RCPT: a refusal, or the targets it stands for after aliasing."""

    refusal: Reply | None = None
    targets: tuple[LocalTarget | QueuedTarget, ...] = ()
    tenant: str = ""  # whose mail it is, where its sender is nobody's
