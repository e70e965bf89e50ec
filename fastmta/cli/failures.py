"""What a failed command says and returns: one plain line, and a code of sysexits(3). Loads nothing that a small
command does not need.
"""

import os
import sys
from collections.abc import Callable
from typing import Final

from fastmta.model.errors import FailureKind, FastMTAError, classified

EX_USAGE: Final = 64
EX_DATAERR: Final = 65
EX_NOINPUT: Final = 66
EX_NOUSER: Final = 67
EX_UNAVAILABLE: Final = 69
EX_SOFTWARE: Final = 70
EX_CANTCREAT: Final = 73
EX_IOERR: Final = 74
EX_TEMPFAIL: Final = 75
EX_NOPERM: Final = 77
EX_CONFIG: Final = 78
CODES: Final[dict[FailureKind, int]] = {
    "usage": EX_USAGE,
    "invalid": EX_DATAERR,
    "no_input": EX_NOINPUT,
    "no_user": EX_NOUSER,
    "cannot_create": EX_CANTCREAT,
    "busy": EX_TEMPFAIL,
    "unavailable": EX_UNAVAILABLE,
    "not_permitted": EX_NOPERM,
    "config": EX_CONFIG,
    "damaged": EX_IOERR,
    "storage": EX_TEMPFAIL,
    "bug": EX_SOFTWARE,
}


class CommandFailed(FastMTAError):
    """A command cannot do what was asked; `code` is its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def guarded(name: str, work: Callable[[], object]) -> int:
    """Runs `work`; its int is the exit code, None is success, and a failure is reported under the program's name."""
    try:
        result = work()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        return report(name, error)
    return result if isinstance(result, int) else 0


def report(name: str, error: Exception) -> int:
    """Writes the line for an error and gives the code; a bug's traceback goes to standard error too."""
    message, code = describe(error)
    if name == "sendmail" and code == EX_IOERR:
        code = EX_TEMPFAIL  # the caller keeps the message
    if code == EX_SOFTWARE:
        import traceback

        traceback.print_exception(error)
    one_line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    print(f"{name}: {one_line}", file=sys.stderr)
    return code


def describe(error: Exception) -> tuple[str, int]:
    """The line and the exit code of an error."""
    if isinstance(error, CommandFailed):
        return str(error), error.code
    if type(error).__name__ == "DirectoryBusy":  # runtime/lock.py, which most commands never import
        return str(error), EX_TEMPFAIL
    message, kind = classified(error)
    return message, CODES[kind]
