"""`fastmta alias`: aliases in the store, which count beside virtual_alias_maps and need no file or reload."""

from typing import TYPE_CHECKING

import click

from fastmta.cli.acts import tell
from fastmta.cli.address import alias_address, target_address
from fastmta.cli.confirm import confirm, yes_option
from fastmta.cli.failures import EX_DATAERR, EX_NOUSER, CommandFailed
from fastmta.cli.opened import run, run_with
from fastmta.cli.output import config_option, json_option, print_json, print_table
from fastmta.config.load import load
from fastmta.config.schema import Config

if TYPE_CHECKING:
    from fastmta.store import MailStore


@click.group(
    epilog="\b\nExamples:\n  fastmta alias add sales@example.org bill@example.org ann@example.org\n"
    "  fastmta alias add @example.org bill@example.org\n  fastmta alias delete sales@example.org"
)
def alias() -> None:
    """Aliases kept in the store. `@domain` takes what nobody else in a domain has."""


@alias.command()
@click.argument("address")
@click.argument("targets", nargs=-1, required=True)
@click.option("--replace", is_flag=True, help="Replace the alias if there is one.")
@config_option
def add(address: str, targets: tuple[str, ...], replace: bool, config_path: str | None) -> None:
    """Add an alias for one or more addresses."""
    config = load(config_path)
    name = alias_address(address, config)
    wanted = tuple(target_address(item, config) for text in targets for item in text.split(",") if item)
    if not wanted:
        raise CommandFailed(f"the alias {name} would stand for nobody", EX_DATAERR)

    async def work(_: Config, store: "MailStore") -> None:
        if not replace and store.aliases.lookup(name) is not None:
            raise CommandFailed(f"the alias {name} exists already (--replace)", EX_DATAERR)
        await store.aliases.add(name, wanted)

    run_with(config, work)
    tell(config, "alias.add", address=name, targets=", ".join(wanted)[:1000])


@alias.command("list")
@json_option
@config_option
def list_(as_json: bool, config_path: str | None) -> None:
    """List the aliases."""

    async def work(_: Config, store: "MailStore") -> list[tuple[str, tuple[str, ...]]]:
        return sorted((name, tuple(targets)) for name, targets in store.aliases.list())

    found = run(config_path, work)
    if as_json:
        print_json([{"address": name, "targets": list(targets)} for name, targets in found])
    else:
        print_table(("ALIAS", "TARGETS"), [(name, ", ".join(targets)) for name, targets in found])


@alias.command()
@click.argument("address")
@yes_option
@config_option
def delete(address: str, yes: bool, config_path: str | None) -> None:
    """Delete an alias."""
    config = load(config_path)
    name = alias_address(address, config)

    async def targets(_: Config, store: "MailStore") -> tuple[str, ...]:
        found = store.aliases.lookup(name)
        if found is None:
            raise CommandFailed(f"no such alias: {name}", EX_NOUSER)
        return found

    confirm(f"Delete the alias {name} of {', '.join(run_with(config, targets))}?", yes)

    async def work(_: Config, store: "MailStore") -> None:
        await store.aliases.delete(name)

    run_with(config, work)
    tell(config, "alias.delete", address=name)
