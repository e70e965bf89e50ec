"""Leave to destroy: asked at a terminal, refused without one, given in advance by --yes. A pipe is no terminal."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fastmta.cli.failures import EX_USAGE, CommandFailed

F = TypeVar("F", bound=Callable[..., Any])


def yes_option(function: F) -> F:
    return click.option("--yes", is_flag=True, help="Do not ask.")(function)


def confirm(question: str, yes: bool) -> None:
    """Returns where the answer is yes; click.Abort where it is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandFailed("there is no terminal to confirm this at; --yes does it without asking", EX_USAGE)
    click.confirm(question, abort=True, err=True)
