"""The table of acts: what an administrator can do, each one typed function in one of this room's files.

    @act("user.show")
    async def show(desk: Desk, asked: Address) -> Account:
        \"\"\"Show one account.\"\"\"

The decorator makes a row of the table of it: the name, the request's type (what comes in, and what the command line
and the control socket take), the result's, whether it changes anything (then a line `admin.NAME` of the log tells of
it, with who did it), and who may ask. Who takes a BareDesk needs no store. An async generator gives its rows one by
one. A further act in a file that is named in FAMILIES needs no line anywhere else; a further file needs one there.

Nothing here is loaded before it is asked for: a command loads the family it needs, a worker the same.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib import import_module
from typing import Any, Final, Generic, Literal, TypeVar, get_args

import msgspec

from fastmta.operations.desk import BareDesk, Desk

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R")

Who = Literal["owner", "everybody"]  # owner: root and the server's own user; everybody: who has a login here

FAMILIES: Final = {  # the part of an act's name before the point -> its files
    "user": ("fastmta.operations.users", "fastmta.operations.totp", "fastmta.operations.groups"),
    "app-password": ("fastmta.operations.app_passwords",),
    "dmarc": ("fastmta.operations.dmarc",),
    "tlsrpt": ("fastmta.operations.tlsrpt",),
    "quarantine": ("fastmta.operations.quarantine",),
    "index": ("fastmta.operations.indexes",),
    "session": ("fastmta.operations.sessions",),
    "ban": ("fastmta.operations.bans",),
    "verified": ("fastmta.operations.verified",),
    "alias": ("fastmta.operations.aliases",),
    "mailbox": (
        "fastmta.operations.mailboxes",
        "fastmta.operations.mailbox_files",
        "fastmta.operations.sharing",
        "fastmta.operations.undeleting",
    ),
    "queue": (
        "fastmta.operations.moves",
        "fastmta.operations.listing",
        "fastmta.operations.hops",
        "fastmta.operations.waiting",
    ),
    "dkim": ("fastmta.operations.keys",),
    "store": ("fastmta.operations.care",),
    "server": ("fastmta.operations.server",),
    "mail": ("fastmta.operations.mail", "fastmta.operations.tracing"),
}


class Act(Generic[Q, R]):
    """One row of the table. Called with a desk and a request it does the act."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        request: type[Q],
        result: Any,
        changes: bool,
        who: Who,
        caller: bool = False,
        opens: bool = True,
        waits: bool = True,
    ) -> None:
        self.name = name
        self.function = function
        self.request = request
        self.result = result  # of one row where it gives rows
        self.changes = changes
        self.who: Who = who
        self.opens = opens  # it is given the store
        self.caller = caller or not opens  # it reads or writes files with the rights of whoever asks: in his process
        self.waits = waits  # for anything but the store and a command's owners, which block where there is no loop
        self.file = function.__module__
        self.__doc__ = function.__doc__

    def __call__(self, desk: Desk, asked: Q) -> Awaitable[R]:
        found: Awaitable[R] = self.function(desk, asked)
        return found


class Rows(Act[Q, R]):
    """An act that gives its rows one by one, however many there are; they are passed on `at_once`."""

    at_once = 100

    def rows(self, desk: Desk, asked: Q) -> AsyncIterator[R]:
        found: AsyncIterator[R] = self.function(desk, asked)
        return found


def act(
    name: str, *, changes: bool = False, who: Who = "owner", caller: bool = False, waits: bool = True
) -> Callable[[Callable[[Desk, Q], Awaitable[R]]], Act[Q, R]]:
    """Makes a function a row of the table; its annotations are the types of request and result."""

    def made(function: Callable[[Desk, Q], Awaitable[R]]) -> Act[Q, R]:
        request, result = _types(function)
        opens = function.__annotations__["desk"] is not BareDesk
        return Act(name, function, request, result, changes, who, caller, opens, waits)

    return made


def rows(
    name: str, *, who: Who = "owner", at_once: int = Rows.at_once, waits: bool = True
) -> Callable[[Callable[[Desk, Q], AsyncIterator[R]]], Rows[Q, R]]:
    """The same for an async generator, which changes nothing."""

    def made(function: Callable[[Desk, Q], AsyncIterator[R]]) -> Rows[Q, R]:
        request, result = _types(function)
        found: Rows[Q, R] = Rows(name, function, request, get_args(result)[0], False, who, waits=waits)
        found.at_once = at_once
        return found

    return made


def _types(function: Callable[..., Any]) -> tuple[Any, Any]:
    request = next(kind for name, kind in function.__annotations__.items() if name not in ("desk", "return"))
    return request, function.__annotations__["return"]


def find(name: str) -> Act[Any, Any] | None:
    """The act of that name, or None."""
    return next((each for each in in_family(name.partition(".")[0]) if each.name == name), None)


def in_family(family: str) -> Iterator[Act[Any, Any]]:
    """The acts whose names begin so, in the order of their files."""
    for module in FAMILIES.get(family, ()):
        for each in vars(import_module(module)).values():
            if isinstance(each, Act) and each.file == module:
                yield each


def every() -> list[Act[Any, Any]]:
    """All acts. Loads all of their files."""
    return [each for family in FAMILIES for each in in_family(family)]
