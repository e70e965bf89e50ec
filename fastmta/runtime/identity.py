"""Whom the workers run as: the one rule that `init`, `check`, every command and the supervisor follow.

Started as root, workers run as `default_user` and never as root, unless the file says `workers_may_be_root = true`: a
forgotten or mistyped user must not hand the network's input to root. Started as anybody else, they are that user's.
"""

import grp
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from fastmta.model.errors import ConfigError

MAY_BE_ROOT: Final = "workers_may_be_root = true"
FIXED: Final = "default_user, workers_may_be_root: a change of them needs a restart"


class WorkersUser(NamedTuple):
    """The system user that workers become."""

    name: str
    uid: int
    gid: int


class UserSettings(Protocol):
    @property
    def default_user(self) -> str: ...
    @property
    def workers_may_be_root(self) -> bool: ...


def workers_user(config: UserSettings) -> WorkersUser | None:
    """Whom workers become; None where they stay who we are. ConfigError where they would be root and may not be."""
    if os.geteuid() != 0 or config.workers_may_be_root:
        return None
    name = config.default_user
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(
            f"default_user: there is no user {name} on this machine; make it with "
            f"`{useradd_command(name)}`, or set workers_may_be_root = true"
        ) from None
    if entry.pw_uid == 0 or entry.pw_gid == 0:
        kind = "user" if entry.pw_uid == 0 else "group"
        raise ConfigError(
            f"default_user: {name} has the {kind} id of root, and workers run as root only with "
            "workers_may_be_root = true; name a user of the mail system's own, such as fastmta"
        )
    return WorkersUser(name, entry.pw_uid, entry.pw_gid)


def unreadable_program(user: WorkersUser, directory: "os.PathLike[str]") -> str:
    """What to say where the workers' user may not read the program."""
    return f"default_user: {user.name} may not read the program in {directory}"


class CommandUser(NamedTuple):
    """Whom a command of [pipe.NAME] runs as."""

    uid: int
    gid: int
    groups: list[int]


def command_user(text: str) -> CommandUser:
    """The user of "name" or "name:group". ValueError: this machine has none of that name."""
    name, _, group = text.partition(":")
    try:
        entry = pwd.getpwnam(name)
        gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
    except KeyError:
        raise ValueError(f'there is no user or group "{text}" on this machine') from None
    return CommandUser(entry.pw_uid, gid, os.getgrouplist(name, gid))


def command_user_problem(text: str, workers: WorkersUser | None) -> str:
    """Why a command may not run as this user; "" where it may. As pipe(8): neither as root nor as the user of the mail
    system, who may read all mail. A server that is not root can only run commands as itself.
    """
    try:
        found = command_user(text)
    except ValueError as error:
        return str(error)
    if os.geteuid() != 0:
        own = found.uid == os.geteuid()
        return "" if own else f"{text}: a server that is not started as root runs commands as its own user only"
    if found.uid == 0 or found.gid == 0:
        return f"{text} has the rights of root: name another user"
    if workers is not None and workers.uid == found.uid:
        return f"{text} is the mail system's own user, who may read all mail: name another one"
    return ""


def useradd(name: str) -> list[str]:
    """The command that makes a user for the workers: no login, no home that anybody makes."""
    options = "--system --user-group --no-create-home --home-dir /var/lib/fastmta --shell /usr/sbin/nologin"
    return ["useradd", *options.split(), name]


def useradd_command(name: str) -> str:
    return " ".join(useradd(name))


@contextmanager
def acting_as(uid: int, gid: int, groups: list[int]) -> Iterator[None]:
    """For as long as it lasts, root has another user's rights: what is made is that user's, and what may be reached is
    what that user may reach. OSError where the system forbids it.
    """
    saved_groups, saved_gid = os.getgroups(), os.getegid()
    try:
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(saved_gid)
        os.setgroups(saved_groups)


@contextmanager
def acting_as_workers(user: WorkersUser | None) -> Iterator[None]:
    """`acting_as` for the workers' user; nothing changes for None."""
    if user is None:
        yield
        return
    with acting_as(user.uid, user.gid, os.getgrouplist(user.name, user.gid)):
        yield


def user_name(uid: int) -> str:
    """The name of a user, or his number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
