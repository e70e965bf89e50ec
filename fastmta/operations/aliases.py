"""Aliases kept in the store, which count beside the map files and need no file or reload: the acts `alias.*`."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from fastmta.model.errors import ActFailed
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.values import Nothing, Subject, alias_address, target_address

ALIASES_AT_ONCE = 200  # read before others get their turn


class Alias(msgspec.Struct):
    """An address and those for which it stands."""

    address: str
    targets: tuple[str, ...]


class AddAlias(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    targets: tuple[str, ...]
    replace: Annotated[bool, msgspec.Meta(description="Replace the alias if there is one.")] = False


@act("alias.add", changes=True)
async def add(desk: Desk, asked: AddAlias) -> None:
    """Add an alias for one or more addresses."""
    name = alias_address(asked.address, desk.config)
    wanted = tuple(target_address(item, desk.config) for text in asked.targets for item in text.split(",") if item)
    if not wanted:
        raise ActFailed(f"the alias {name} would stand for nobody", "invalid")
    if not asked.replace and desk.store.aliases.lookup(name) is not None:
        raise ActFailed(f"the alias {name} exists already (--replace)", "invalid")
    await desk.store.aliases.add(name, wanted)
    desk.note(address=name, targets=", ".join(wanted)[:1000])


@rows("alias.list", waits=False)
async def list_(desk: Desk, asked: Nothing) -> AsyncIterator[Alias]:
    """List the aliases."""
    after = b""
    while True:
        page, after = desk.store.aliases.page(after, ALIASES_AT_ONCE)
        for name, targets in page:
            yield Alias(name, targets)
        if not after:
            return
        await desk.pause()


@act("alias.show")
async def show(desk: Desk, asked: Subject) -> Alias:
    """Show one alias."""
    name = alias_address(asked.address, desk.config)
    targets = desk.store.aliases.lookup(name)
    if targets is None:
        raise ActFailed(f"no such alias: {name}", "no_user")
    return Alias(name, targets)


@act("alias.delete", changes=True)
async def delete(desk: Desk, asked: Subject) -> None:
    """Delete an alias."""
    found = await show(desk, asked)
    await desk.store.aliases.delete(found.address)
    desk.note(address=found.address)
