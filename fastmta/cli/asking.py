"""What every command that asks the server sends along and shows. Loads nothing that a small command does not need."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastmta.operations.desk import Progress


def sudo_user() -> dict[str, str]:
    """Who stands behind root, where sudo says it."""
    behind = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    return {"sudo_user": behind[:100]} if behind else {}


@contextmanager
def shown_progress(name: str) -> "Iterator[Progress]":
    """What is told of progress: on a terminal one line that is written over."""
    is_shown = False

    def show(done: int, total: int, what: str = "", /) -> None:
        nonlocal is_shown
        if done and sys.stderr.isatty():
            is_shown = True
            of = f" of {total}" if total else ""
            print(f"\r{name}: {what and what + ' '}{done}{of}\033[K", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
