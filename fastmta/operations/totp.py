"""One-time codes behind an account's password: the acts `user.totp.*`. A running server knows of a change at once."""

import os

import msgspec

from fastmta.auth import totp
from fastmta.model.errors import ActFailed, Refused
from fastmta.operations.acts import act
from fastmta.operations.desk import Desk
from fastmta.operations.users import required
from fastmta.operations.values import Subject, account_address


class Made(msgspec.Struct):
    """What an authenticator program is given: it is shown this once."""

    secret: str
    uri: str


@act("user.totp.add", changes=True)
async def add(desk: Desk, asked: Subject) -> Made:
    """Ask for a one-time code behind an account's password, and show what an authenticator program makes codes of.

    From then on the password is taken with the six digits behind it, in PLAIN, LOGIN, USER and PASS; programs that keep
    a password get an app password, which needs no code.
    """
    account = required(desk, account_address(asked.address, desk.config))
    secret = os.urandom(totp.SECRET_BYTES)
    try:
        await desk.store.credentials.add_totp(account.id, secret)
    except Refused as refused:
        if refused.code != "exists":
            raise
        raise ActFailed(f"{account.address} has one-time codes: remove them first", "invalid") from refused
    desk.note(address=account.address)
    return Made(totp.secret_text(secret), totp.uri(secret, account.address, desk.config.mydomain))


@act("user.totp.remove", changes=True)
async def remove(desk: Desk, asked: Subject) -> None:
    """Let the password alone open an account again."""
    account = required(desk, account_address(asked.address, desk.config))
    try:
        await desk.store.credentials.remove_totp(account.id)
    except Refused as refused:
        if refused.code != "missing":
            raise
        raise ActFailed(f"{account.address} has no one-time codes", "no_user") from refused
    desk.note(address=account.address)
