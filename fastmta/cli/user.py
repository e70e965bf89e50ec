"""`fastmta user`: accounts. They work with the server up or down; a running one sees a change within a second."""

import sys
from typing import TYPE_CHECKING

import click

from fastmta.cli.acts import tell
from fastmta.cli.address import account_address, is_local_domain
from fastmta.cli.confirm import confirm, yes_option
from fastmta.cli.failures import EX_DATAERR, EX_NOUSER, EX_USAGE, CommandFailed
from fastmta.cli.opened import run, run_with
from fastmta.cli.output import config_option, json_option, print_json, print_table, size, stamp
from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.config.values import parse_size
from fastmta.model.errors import Refused
from fastmta.model.limits import PASSWORD_BYTES

if TYPE_CHECKING:
    from fastmta.store import MailStore


@click.group(
    epilog="\b\nExamples:\n  fastmta user add bill@example.org\n  fastmta user add bill --password-stdin < secret\n"
    "  fastmta user quota bill@example.org 2G\n  fastmta user list --json"
)
def user() -> None:
    """Accounts. A bare name is one of $myorigin."""


@user.command()
@click.argument("address")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@click.option("--quota", help='What the mailboxes may hold, such as "2G"; without it there is no limit.')
@config_option
def add(address: str, password_stdin: bool, quota: str | None, config_path: str | None) -> None:
    """Add an account with the usual mailboxes."""
    config = load(config_path)
    name = account_address(address, config)
    quota_bytes = _size(quota) if quota else 0
    password_hash = _hash(read_password(password_stdin))

    async def work(_: Config, store: "MailStore") -> None:
        try:
            await store.accounts.add(name, password_hash, quota_bytes=quota_bytes)
        except Refused as refused:
            if refused.code != "exists":
                raise
            raise CommandFailed(f"{name} exists already", EX_DATAERR) from refused

    run_with(config, work)
    tell(config, "user.add", address=name, quota=quota_bytes or None)
    _note_foreign(name, config)


@user.command("list")
@json_option
@config_option
def list_(as_json: bool, config_path: str | None) -> None:
    """List the accounts."""

    async def work(_: Config, store: "MailStore") -> list[dict[str, object]]:
        out: list[dict[str, object]] = []
        for account in sorted(store.accounts.list(), key=lambda a: (a.address.rpartition("@")[2], a.address)):
            used, messages = store.accounts.usage(account.id)
            out.append(
                {
                    "address": account.address,
                    "enabled": account.enabled,
                    "quota_bytes": account.quota_bytes,
                    "used_bytes": used,
                    "messages": messages,
                    "created_at": stamp(account.created_at_s),
                }
            )
        return out

    found = run(config_path, work)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            a["address"],
            a["messages"],
            size(int(str(a["used_bytes"]))),
            _limit(int(str(a["quota_bytes"]))),
            a["created_at"],
            "" if a["enabled"] else "disabled",
        )
        for a in found
    ]
    print_table(("ADDRESS", "MESSAGES", "USED", "QUOTA", "CREATED", "STATE"), rows, right=(1, 2, 3))


@user.command()
@click.argument("address")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@config_option
def passwd(address: str, password_stdin: bool, config_path: str | None) -> None:
    """Change the password of an account."""
    config = load(config_path)
    name = account_address(address, config)
    password_hash = _hash(read_password(password_stdin))

    async def work(_: Config, store: "MailStore") -> None:
        _require(store, name)
        await store.accounts.set_password(name, password_hash)

    run_with(config, work)
    tell(config, "user.passwd", address=name)


@user.command()
@click.argument("address")
@click.argument("new_address")
@config_option
def rename(address: str, new_address: str, config_path: str | None) -> None:
    """Give an account another address; its mail, password and the aliases for it stay.

    Mail for the old address is refused from now on, unless an alias is made for it.
    """
    config = load(config_path)
    name, new_name = account_address(address, config), account_address(new_address, config)

    async def work(_: Config, store: "MailStore") -> None:
        _require(store, name)
        if store.aliases.lookup(new_name) is not None:
            raise CommandFailed(f"{new_name} is an alias already", EX_DATAERR)
        try:
            await store.accounts.rename(
                name, new_name, together=lambda unit: store.aliases.retarget(unit, name, new_name)
            )
        except Refused as refused:
            if refused.code != "exists":
                raise
            raise CommandFailed(f"{new_name} exists already", EX_DATAERR) from refused

    if name != new_name:
        run_with(config, work)
        tell(config, "user.rename", address=name, new_address=new_name)
    _note_foreign(new_name, config)


@user.command()
@click.argument("address")
@config_option
def disable(address: str, config_path: str | None) -> None:
    """Lock an account: no login, its sessions end, its mail is refused. What it holds stays."""
    _set_enabled(address, False, config_path)


@user.command()
@click.argument("address")
@config_option
def enable(address: str, config_path: str | None) -> None:
    """Open an account that was disabled."""
    _set_enabled(address, True, config_path)


def _set_enabled(address: str, enabled: bool, config_path: str | None) -> None:
    config = load(config_path)
    name = account_address(address, config)

    async def work(_: Config, store: "MailStore") -> None:
        _require(store, name)
        await store.accounts.set_enabled(name, enabled)

    run_with(config, work)
    tell(config, "user.enable" if enabled else "user.disable", address=name)


@user.command()
@click.argument("address")
@yes_option
@config_option
def delete(address: str, yes: bool, config_path: str | None) -> None:
    """Delete an account with all its mail."""
    config = load(config_path)
    name = account_address(address, config)

    async def messages(_: Config, store: "MailStore") -> int:
        return store.accounts.usage(_require(store, name)[0])[1]

    confirm(f"Delete {name} and its mail, {run_with(config, messages)} messages?", yes)

    async def work(_: Config, store: "MailStore") -> None:
        _require(store, name)
        await store.accounts.delete(name)

    run_with(config, work)
    tell(config, "user.delete", address=name)


@user.command()
@click.argument("address")
@click.argument("size_text", metavar="[SIZE]", required=False)
@json_option
@config_option
def quota(address: str, size_text: str | None, as_json: bool, config_path: str | None) -> None:
    """Set what an account may hold ("2G"; 0 is no limit), or show it."""
    config = load(config_path)
    name = account_address(address, config)
    wanted = _size(size_text) if size_text is not None else None

    async def work(_: Config, store: "MailStore") -> tuple[int, int]:
        account_id, quota_bytes = _require(store, name)
        if wanted is not None:
            await store.accounts.set_quota(name, wanted)
        return store.accounts.usage(account_id)[0], quota_bytes if wanted is None else wanted

    used, limit = run_with(config, work)
    if wanted is not None:
        tell(config, "user.quota", address=name, quota=wanted)
    if as_json:
        print_json({"address": name, "used_bytes": used, "quota_bytes": limit})
    elif wanted is None:
        print(f"{size(used)} of {_limit(limit)}")


def read_password(from_stdin: bool) -> str:
    """The first line of standard input, or what is typed twice at the terminal without being shown."""
    if from_stdin:
        raw = sys.stdin.buffer.readline(PASSWORD_BYTES + 3)
        password = raw.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        raise CommandFailed("no terminal to ask for a password at: use --password-stdin", EX_USAGE)
    if not password or "\0" in password:
        raise CommandFailed("the password is empty" if not password else "a password holds no NUL", EX_DATAERR)
    try:
        length = len(password.encode())
    except UnicodeEncodeError:
        raise CommandFailed("the password is not UTF-8", EX_DATAERR) from None
    if length > PASSWORD_BYTES:
        raise CommandFailed(f"the password is longer than {PASSWORD_BYTES} bytes", EX_DATAERR)
    return password


def _note_foreign(name: str, config: Config) -> None:
    if not is_local_domain(name, config):
        domain = name.rpartition("@")[2]
        print(f"fastmta: note: {domain} is not in mydestination or virtual_mailbox_domains", file=sys.stderr)


def _hash(password: str) -> str:
    from fastmta.auth.passwords import hash_password

    return hash_password(password)


def _require(store: "MailStore", name: str) -> tuple[int, int]:
    account = store.accounts.lookup(name)
    if account is None:
        raise CommandFailed(f"no such user: {name}", EX_NOUSER)
    return account.id, account.quota_bytes


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise CommandFailed(f"{text}: expected {error}", EX_USAGE) from error


def _limit(quota_bytes: int) -> str:
    return size(quota_bytes) if quota_bytes else "-"
