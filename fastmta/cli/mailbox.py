"""`fastmta mailbox`: what accounts hold; mail in and out as mbox and Maildir."""

from typing import TYPE_CHECKING, Any

import click

from fastmta.cli.derived import add_missing, command
from fastmta.cli.output import print_table, size
from fastmta.cli.performing import perform
from fastmta.operations import mailbox_files, mailboxes, undeleting, users
from fastmta.operations.values import Subject

if TYPE_CHECKING:
    pass


@click.group(
    epilog="\b\nExamples:\n  fastmta mailbox list bill@example.org\n"
    "  fastmta mailbox export bill@example.org /backup/bill --format maildir\n"
    "  fastmta mailbox import bill@example.org old.mbox --mailbox Archive\n"
    "  fastmta mailbox undelete bill@example.org --mailbox INBOX --since 2d\n"
    "  fastmta mailbox share add bill@example.org Projects ann@example.org lrs"
)
def mailbox() -> None:
    """Mailboxes of an account."""


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _show(found: list[mailboxes.Mailbox]) -> None:
    rows = [(each.name, each.messages, each.unseen, size(each.size), each.special_use) for each in found]
    print_table(("MAILBOX", "MESSAGES", "UNSEEN", "SIZE", "USE"), rows, right=(1, 2, 3))


def _question(config_path: str | None, asked: mailboxes.Of) -> str:
    return f"Delete all mail of {perform(config_path, users.show, Subject(asked.user)).address}?"


def _show_expunged(found: list[undeleting.Expunged]) -> None:
    rows = [(each.expunged, each.mailbox, each.sender, each.subject, size(each.size)) for each in found]
    print_table(("EXPUNGED", "MAILBOX", "FROM", "SUBJECT", "SIZE"), rows, right=(4,))


def _undelete() -> click.Command:
    """The command of the act, with --list for what `expunged` lists."""
    found = command(undeleting.undelete, show=lambda done: print(f"{_messages(done.messages)} brought back"))
    listing, acting = command(undeleting.expunged, show=_show_expunged).callback, found.callback
    assert listing is not None and acting is not None

    def either(only_list: bool, **given: Any) -> Any:
        return (listing if only_list else acting)(**given)

    found.callback = either
    found.params.append(click.Option(["--list", "only_list"], is_flag=True, help="Only list what would come back."))
    return found


mailbox.add_command(command(mailboxes.list_, show=_show, key=lambda each: (each.name != "INBOX", each.name)))
mailbox.add_command(command(mailboxes.purge, question=_question))
mailbox.add_command(
    command(mailbox_files.export, show=lambda done: print(f"{_messages(done.messages)} written to {done.path}"))
)
mailbox.add_command(
    command(mailbox_files.import_, show=lambda done: print(f"{_messages(done.messages)} read from {done.path}"))
)
mailbox.add_command(command(undeleting.expunged, show=_show_expunged))
mailbox.add_command(_undelete())
add_missing(mailbox, "mailbox")


@mailbox.group(
    epilog="\b\nExamples:\n  fastmta mailbox share add bill@example.org Projects ann@example.org lrs\n"
    "  fastmta mailbox share add bill@example.org Projects anyone lookup,read\n"
    "  fastmta mailbox share list bill@example.org\n"
    "  fastmta mailbox share remove bill@example.org Projects ann@example.org"
)
def share() -> None:
    """Who else may read and change an account's mailboxes. They have them under Other Users/ADDRESS/."""


add_missing(share, "mailbox.share")
