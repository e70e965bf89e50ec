"""Who is connected now, over all workers: the acts `session.*`."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec

from fastmta.model.errors import ActFailed
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.values import account_address, stamp


class Session(msgspec.Struct):
    """A session. The octets are those of the wire, TLS among them."""

    id: str
    protocol: str
    login: str
    address: str
    since: str
    mailbox: str
    tls: bool
    received_bytes: int
    sent_bytes: int


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    login: Annotated[str, msgspec.Meta(description="Only those of this account.")] = ""
    address: Annotated[str, msgspec.Meta(description="Only those from this address or network.")] = ""
    protocol: Annotated[str, msgspec.Meta(description="Only those of imap, pop3, smtp, submission, lmtp.")] = ""


class Kill(msgspec.Struct, forbid_unknown_fields=True):
    ids: Annotated[tuple[str, ...], msgspec.Meta(extra={"argument": True, "metavar": "[ID]..."})] = ()
    login: Annotated[str, msgspec.Meta(description="All of this account.")] = ""
    address: Annotated[str, msgspec.Meta(description="All from this address or network.")] = ""
    protocol: Annotated[str, msgspec.Meta(description="Of these only those of this protocol.")] = ""


class Killed(msgspec.Struct):
    sessions: int


@rows("session.list")
async def list_(desk: Desk, asked: Asked) -> AsyncIterator[Session]:
    """List the sessions that are open in all workers: who, from where, since when, and how many octets."""
    wanted = _wanted(desk, asked.login, asked.address, asked.protocol)
    async for each in _found(desk, wanted):
        yield Session(
            each["id"],
            each["protocol"],
            each["login"],
            each["address"],
            stamp(each["since"]),
            each["mailbox"],
            each["tls"],
            each["received_bytes"],
            each["sent_bytes"],
        )


@act("session.kill", changes=True)
async def kill(desk: Desk, asked: Kill) -> Killed:
    """End sessions, by their ids, or all of an account or an address.

    The client is told (BYE, 421, -ERR); it may come again: disable the user or ban the address to keep it away.
    """
    if not (asked.ids or asked.login or asked.address):
        raise ActFailed("no session is named: give an id of `session list`, --login or --address", "usage")
    if not all(each.strip() for each in asked.ids):  # "" would stand for every session
        raise ActFailed("an id is empty", "usage")
    wanted = _wanted(desk, asked.login, asked.address, asked.protocol)
    killed: set[str] = set()
    for each_id in asked.ids or ("",):
        found = {each["id"] async for each in _found(desk, {**wanted, "id": each_id, "kill": True})}
        if each_id and not found:
            raise ActFailed(f"there is no session {each_id}", "no_user")
        killed |= found
        if found:
            desk.note(sessions=len(killed), ids=" ".join(asked.ids)[:1000] or None, login=asked.login or None)
            desk.note(address=asked.address or None)
    return Killed(len(killed))


def _wanted(desk: Desk, login: str, address: str, protocol: str) -> dict[str, Any]:
    import ipaddress

    if address:
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError as error:
            raise ActFailed(f"{address}: expected an address or a network", "usage") from error
    name = account_address(login, desk.config) if login else ""
    return {"login": name, "address": address, "protocol": protocol.lower()}


async def _found(desk: Desk, wanted: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """What the workers have, some at a time: what lies behind the first worker's last one is asked for again."""
    after: tuple[str, int] = ("", 0)
    while True:
        page = await desk.owners.sessions({**wanted, "after": after})
        if page is None:
            raise ActFailed("no server is running", "unavailable")
        page.sort(key=_place)
        cut = min((_place(each) for each in page if each.get("more")), default=None)
        for each in page:
            if cut is None or wanted.get("kill") or _place(each) <= cut:
                yield each
        if cut is None:
            return
        after = cut
        await desk.pause()


def _place(row: dict[str, Any]) -> tuple[str, int]:
    return row["protocol"], row["number"]
