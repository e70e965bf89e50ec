"""What next hops have said of addresses (reject_unverified_*): the acts `verified.*`. What is cleared is asked anew."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from fastmta.model.errors import ActFailed
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.values import stamp

STATUSES = ("ok", "deferred", "bounced")
ALL = "ALL"

_WHICH = msgspec.Meta(extra={"metavar": "ADDRESS|@DOMAIN|ALL"}, description="An address, @ and a domain, or ALL.")


class VerifiedAddress(msgspec.Struct):
    """An answer as it is listed; `status` is "ok", "deferred" or "bounced", `at` when it was given."""

    address: str
    status: str
    at: str
    reply: str


class ListVerified(msgspec.Struct, forbid_unknown_fields=True):
    domain: Annotated[str, msgspec.Meta(description="Only addresses of this domain.")] = ""
    status: Annotated[str | None, msgspec.Meta(extra={"choices": STATUSES}, description="Only these.")] = None


class ClearVerified(msgspec.Struct, forbid_unknown_fields=True):
    which: Annotated[str, _WHICH]


class Cleared(msgspec.Struct):
    """How many addresses will be asked about anew."""

    cleared: int


@rows("verified.list")
async def list_(desk: Desk, asked: ListVerified) -> AsyncIterator[VerifiedAddress]:
    """List the addresses that next hops were asked about, with what they said and when."""
    if asked.status and asked.status not in STATUSES:
        raise ActFailed(f"--status {asked.status}: expected {', '.join(STATUSES)}", "usage")
    end = f"@{asked.domain.lower()}" if asked.domain else ""
    async for page in desk.store.verified.pages():
        for row in page:
            if row.address.endswith(end) and asked.status in (None, row.status):
                reply = f"{row.enhanced} {row.text}".strip()
                yield VerifiedAddress(row.address, row.status, stamp(row.at_ms / 1000), reply)


@act("verified.clear", changes=True)
async def clear(desk: Desk, asked: ClearVerified) -> Cleared:
    """Forget what is known of an address, of a domain's, or of all: the next client's is asked about anew."""
    which = asked.which.lower()
    if asked.which == ALL:
        gone = await desk.store.verified.forget(lambda row: True)
    elif which.startswith("@") and len(which) > 1:
        gone = await desk.store.verified.forget(lambda row: row.address.endswith(which))
    elif "@" in which.strip("@"):
        gone = await desk.store.verified.forget_one(which)
    else:
        raise ActFailed(f"{asked.which!r} is neither an address, nor @ and a domain, nor {ALL}", "usage")
    desk.note(which=asked.which, cleared=gone)
    return Cleared(gone)
