"""`fastmta mailbox`: what accounts hold; mail in and out as mbox and Maildir."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastmta.cli.acts import tell
from fastmta.cli.derived import add_missing, command
from fastmta.cli.failures import EX_NOINPUT, EX_NOUSER, CommandFailed
from fastmta.cli.opened import run_with
from fastmta.cli.output import config_option, print_table, size
from fastmta.cli.performing import perform
from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.operations import mailboxes, users
from fastmta.operations.values import Subject, account_address

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


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _require(store: "MailStore", name: str) -> "Account":
    account = store.accounts.lookup(name)
    if account is None:
        raise CommandFailed(f"no such user: {name}", EX_NOUSER)
    return account


def _show(found: list[mailboxes.Mailbox]) -> None:
    rows = [(each.name, each.messages, each.unseen, size(each.size), each.special_use) for each in found]
    print_table(("MAILBOX", "MESSAGES", "UNSEEN", "SIZE", "USE"), rows, right=(1, 2, 3))


def _question(config_path: str | None, asked: mailboxes.Of) -> str:
    return f"Delete all mail of {perform(config_path, users.show, Subject(asked.user)).address}?"


mailbox.add_command(command(mailboxes.list_, show=_show, key=lambda each: (each.name != "INBOX", each.name)))
mailbox.add_command(command(mailboxes.purge, question=_question))
add_missing(mailbox, "mailbox")
