"""Bans: the acts `ban.*`. A running server obeys a change within a second; bans outlive restarts."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from fastmta.model.errors import ActFailed, Refused
from fastmta.model.limits import BANS
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.values import Nothing, stamp

_ADDRESS = msgspec.Meta(extra={"metavar": "ADDRESS"}, description="An address, or a network such as 192.0.2.0/24.")


class Banned(msgspec.Struct):
    """A ban as it is listed. `until` is "" where it is for ever; `by` is "" where failures made it."""

    address: str
    since: str
    until: str
    reason: str
    by: str


class AddBan(msgspec.Struct, forbid_unknown_fields=True):
    address: Annotated[str, _ADDRESS]
    time: Annotated[str, msgspec.Meta(description='How long, such as "1h" or "30d"; without it for ever.')] = ""
    reason: Annotated[str, msgspec.Meta(description="Why, for the list and the log.")] = ""


class RemoveBan(msgspec.Struct, forbid_unknown_fields=True):
    address: Annotated[str, _ADDRESS]


@rows("ban.list")
async def list_(desk: Desk, asked: Nothing) -> AsyncIterator[Banned]:
    """List the addresses and networks that are banned, with when, until when, and why."""
    now_ms = int(desk.clock.now() * 1000)
    for ban in desk.store.bans.all():
        if not ban.is_over(now_ms):
            until = stamp(ban.until_ms / 1000) if ban.until_ms else ""
            yield Banned(ban.network, stamp(ban.since_ms / 1000), until, ban.reason, ban.by)


@act("ban.add", changes=True)
async def add(desk: Desk, asked: AddBan) -> Banned:
    """Ban an address or a network: no service of this server talks to it any more, whoever it is."""
    network = _network(asked.address)
    seconds = _seconds(asked.time)
    until_ms = int((desk.clock.now() + seconds) * 1000) if seconds else 0
    try:
        ban = await desk.store.bans.add(network, until_ms, asked.reason[:200], desk.actor.user)
    except Refused as refused:
        raise ActFailed(f"{BANS} addresses are banned already; remove some, or ban networks", "invalid") from refused
    desk.note(address=network, seconds=seconds or None, reason=asked.reason[:200] or None)
    return Banned(network, stamp(ban.since_ms / 1000), stamp(until_ms / 1000) if until_ms else "", ban.reason, ban.by)


@act("ban.remove", changes=True)
async def remove(desk: Desk, asked: RemoveBan) -> None:
    """Let an address or a network in again."""
    network = _network(asked.address)
    ban = desk.store.bans.get(network)
    if ban is None or ban.is_over(int(desk.clock.now() * 1000)):
        raise ActFailed(f"{network} is not banned; fastmta ban list shows what is", "invalid")
    await desk.store.bans.remove([network])
    desk.note(address=network)


def _network(text: str) -> str:
    from fastmta.policy.bans import canonical

    try:
        return canonical(text)
    except ValueError as error:
        raise ActFailed(f"{text!r} is neither an address nor a network such as 192.0.2.0/24", "usage") from error


def _seconds(text: str) -> float:
    from fastmta.config.values import parse_time

    if not text:
        return 0.0
    try:
        seconds = parse_time(text, "s")
    except ValueError as error:
        raise ActFailed(f"--time {text}: expected {error}", "usage") from error
    if seconds <= 0:
        raise ActFailed(f"--time {text}: expected more than nothing", "usage")
    return seconds
