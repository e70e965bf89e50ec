"""`fastmta user`: accounts. They work with the server up or down; a running one sees a change within a second."""

import sys

import click
import msgspec

from fastmta.cli.derived import add_missing, command
from fastmta.cli.failures import EX_USAGE, CommandFailed
from fastmta.cli.output import config_option, json_option, print_json, size
from fastmta.cli.performing import perform
from fastmta.cli.user_listing import listed, order
from fastmta.model.limits import PASSWORD_BYTES
from fastmta.operations import totp as one_time
from fastmta.operations import users
from fastmta.operations.values import Subject


@click.group(
    epilog="\b\nExamples:\n  fastmta user add bill@example.org\n  fastmta user add bill --password-stdin < secret\n"
    "  fastmta user quota bill@example.org 2G --messages 100000\n  fastmta user list --json"
)
def user() -> None:
    """Accounts. A bare name is one of $myorigin."""


@user.command(help=users.add.__doc__)
@click.argument("address")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@click.option("--quota", help='What the mailboxes may hold, such as "2G"; without it quota_rule says it.')
@click.option("--messages", type=click.IntRange(0, users.QUOTA_MESSAGES), help="How many messages they may hold.")
@config_option
def add(address: str, password_stdin: bool, quota: str | None, messages: int | None, config_path: str | None) -> None:
    asked = users.AddUser(address, read_password(password_stdin), quota, messages)
    _note_foreign(perform(config_path, users.add, asked))


@user.command(help=users.passwd.__doc__)
@click.argument("address")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@config_option
def passwd(address: str, password_stdin: bool, config_path: str | None) -> None:
    perform(config_path, users.passwd, users.SetPassword(address, read_password(password_stdin)))


@user.command(help='Set what an account may hold ("2G"; 0 is no limit, "default" what quota_rule says), or show it.')
@click.argument("address")
@click.argument("size_text", metavar="[SIZE]", required=False)
@click.option("--messages", type=click.IntRange(0, users.QUOTA_MESSAGES), help="How many messages; 0 is no limit.")
@json_option
@config_option
def quota(address: str, size_text: str | None, messages: int | None, as_json: bool, config_path: str | None) -> None:
    changes = size_text is not None or messages is not None
    if changes:
        found = perform(config_path, users.quota, users.SetQuota(address, size_text, messages))
    else:
        known = perform(config_path, users.show, Subject(address))
        found = users.Quota(known.address, known.used_bytes, known.quota_bytes, known.messages, known.quota_messages)
    if as_json:
        print_json(msgspec.to_builtins(found))
    elif not changes:
        limit = f", {found.messages} of {found.quota_messages} messages" if found.quota_messages else ""
        print(f"{size(found.used_bytes)} of {size(found.quota_bytes) if found.quota_bytes else '-'}{limit}")


def read_password(from_stdin: bool) -> str:
    """The first line of standard input, or what is typed twice at the terminal without being shown."""
    if from_stdin:
        return sys.stdin.buffer.readline(PASSWORD_BYTES + 3).rstrip(b"\r\n").decode("utf-8", "surrogateescape")
    if not sys.stdin.isatty():
        raise CommandFailed("no terminal to ask for a password at: use --password-stdin", EX_USAGE)
    typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return typed


def _note_foreign(known: users.Known) -> None:
    if known.note:
        print(f"fastmta: note: {known.note}", file=sys.stderr)


def _all_its_mail(config_path: str | None, asked: Subject) -> str:
    known = perform(config_path, users.show, asked)
    return f"Delete {known.address} and its mail, {known.messages} messages?"


user.add_command(command(users.list_, show=listed, key=order))
user.add_command(command(users.rename, show=_note_foreign))
user.add_command(command(users.delete, question=_all_its_mail))
add_missing(user, "user")


@user.group(
    epilog="\b\nExamples:\n  fastmta user totp add bill@example.org\n  fastmta user totp remove bill@example.org"
)
def totp() -> None:
    """One-time codes behind an account's password (RFC 6238)."""


def _show_secret(made: one_time.Made) -> None:
    print(f"{made.secret}\n{made.uri}")


totp.add_command(command(one_time.add, show=_show_secret))
add_missing(totp, "user.totp")


@user.group(
    epilog="\b\nExamples:\n  fastmta user group add sales bill@example.org ann@example.org\n"
    "  fastmta mailbox share add bill@example.org Projects group=sales lrs\n  fastmta user group list sales"
)
def group() -> None:
    """Groups of accounts that mailboxes can be shared with."""


add_missing(group, "user.group")
