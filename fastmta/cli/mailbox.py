"""`fastmta mailbox`: what accounts hold; mail in and out as mbox and Maildir."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastmta.cli.acts import tell
from fastmta.cli.address import account_address
from fastmta.cli.confirm import confirm, yes_option
from fastmta.cli.failures import EX_NOINPUT, EX_NOUSER, CommandFailed
from fastmta.cli.opened import run_with
from fastmta.cli.output import config_option, json_option, print_json, print_table, size
from fastmta.config.load import load
from fastmta.config.schema import Config

if TYPE_CHECKING:
    from fastmta.store import Account, MailStore

_FORMATS = click.Choice(["auto", "mbox", "maildir"])


@click.group(
    epilog="\b\nExamples:\n  fastmta mailbox list bill@example.org\n"
    "  fastmta mailbox export bill@example.org /backup/bill --format maildir\n"
    "  fastmta mailbox import bill@example.org old.mbox --mailbox Archive"
)
def mailbox() -> None:
    """Mailboxes of an account."""


@mailbox.command("list")
@click.argument("user")
@json_option
@config_option
def list_(user: str, as_json: bool, config_path: str | None) -> None:
    """List the mailboxes of an account."""
    config = load(config_path)
    name = account_address(user, config)

    async def work(_: Config, store: "MailStore") -> list[dict[str, Any]]:
        account = _require(store, name)
        return [
            {
                "name": each.name,
                "messages": each.exists,
                "unseen": each.unseen,
                "size": each.size_bytes,
                "special_use": each.special_use,
                "uid_validity": each.uid_validity,
                "uid_next": each.uid_next,
            }
            for each in sorted(store.mailboxes.list(account.id), key=lambda each: (each.name != "INBOX", each.name))
        ]

    found = run_with(config, work)
    if as_json:
        print_json(found)
        return
    rows = [(each["name"], each["messages"], each["unseen"], size(each["size"]), each["special_use"]) for each in found]
    print_table(("MAILBOX", "MESSAGES", "UNSEEN", "SIZE", "USE"), rows, right=(1, 2, 3))


@mailbox.command()
@click.argument("user")
@yes_option
@config_option
def purge(user: str, yes: bool, config_path: str | None) -> None:
    """Empty every mailbox of an account; the account stays."""
    config = load(config_path)
    name = account_address(user, config)
    run_with(config, _known(name))  # whether there is such an account is told before anything is asked
    confirm(f"Delete all mail of {name}?", yes)

    async def work(_: Config, store: "MailStore") -> None:
        await store.mailboxes.purge(_require(store, name).id)

    run_with(config, work)
    tell(config, "mailbox.purge", address=name)


@mailbox.command("export")
@click.argument("user")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--format", "format_", type=_FORMATS, default="auto", help="auto: a directory is a Maildir.")
@click.option("--mailbox", "name", help="This mailbox only.")
@config_option
def export(user: str, path: Path, format_: str, name: str | None, config_path: str | None) -> None:
    """Write an account's mail to an mbox file or a Maildir."""
    from fastmta.cli.mailbox_io import export_mailboxes

    config = load(config_path)
    address = account_address(user, config)

    async def work(_: Config, store: "MailStore") -> int:
        return await export_mailboxes(store, _require(store, address), path, format=format_, mailbox=name)

    count = run_with(config, work)
    tell(config, "mailbox.export", address=address, path=str(path), messages=count)
    print(f"{_messages(count)} written to {path}")


@mailbox.command("import")
@click.argument("user")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--format", "format_", type=_FORMATS, default="auto", help="auto: a directory is a Maildir.")
@click.option("--mailbox", "name", help="Into this mailbox, which is made if need be; default: INBOX.")
@config_option
def import_(user: str, path: Path, format_: str, name: str | None, config_path: str | None) -> None:
    """Read an mbox file or a Maildir into an account."""
    from fastmta.cli.mailbox_io import import_mailboxes

    if not path.exists():
        raise CommandFailed(f"{path}: No such file or directory", EX_NOINPUT)
    config = load(config_path)
    address = account_address(user, config)

    async def work(_: Config, store: "MailStore") -> int:
        return await import_mailboxes(store, _require(store, address), path, format=format_, mailbox=name)

    count = run_with(config, work)
    tell(config, "mailbox.import", address=address, path=str(path), messages=count)
    print(f"{_messages(count)} read from {path}")


def _known(name: str) -> "Callable[[Config, MailStore], Awaitable[None]]":
    async def work(_: Config, store: "MailStore") -> None:
        _require(store, name)

    return work


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _require(store: "MailStore", name: str) -> "Account":
    account = store.accounts.lookup(name)
    if account is None:
        raise CommandFailed(f"no such user: {name}", EX_NOUSER)
    return account
