"""What a failed command says and returns: one plain line, and a code of sysexits(3). Loads nothing that a small
command does not need.
"""

import os
import sys
from collections.abc import Callable
from typing import Final

from fastmta.model.errors import ConfigError, FastMTAError, NotPermitted, StorageFailure, StoreDamaged, StoreUnreadable

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
    if isinstance(error, CommandFailed):
        return str(error), error.code
    if isinstance(error, ConfigError):
        return str(error), EX_CONFIG
    if isinstance(error, StoreDamaged | StoreUnreadable):
        return str(error), EX_IOERR
    if isinstance(error, StorageFailure):
        return f"the store could not keep it: {error}", EX_TEMPFAIL
    if type(error).__name__ == "DirectoryBusy":  # runtime/lock.py, which most commands never import
        return str(error), EX_TEMPFAIL
    if isinstance(error, NotPermitted):
        return str(error), EX_NOPERM
    if isinstance(error, FastMTAError):
        return str(error), EX_UNAVAILABLE
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        # Only the caller's octets become surrogates: an argument, or a name in a directory.
        return f"{error.object!a}: not UTF-8", EX_DATAERR
    if isinstance(error, PermissionError):
        return f"{error.filename or 'not permitted'}: {error.strerror}", EX_NOPERM
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}", EX_IOERR
    return f"internal error: {type(error).__name__}: {error}", EX_SOFTWARE
