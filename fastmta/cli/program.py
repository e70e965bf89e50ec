"""The entry point of `fastmta`: calls that must be cheap are done at once, all others load the whole program."""

import gc
import sys
from collections.abc import Sequence
from typing import Final

QUICK: Final = frozenset({"list", "stats", "shape", "top", "flush", "hold", "release", "requeue", "delete"})


def main(argv: Sequence[str] | None = None) -> int:
    """Gives the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not QUICK.isdisjoint(arguments):
        if "queue" in arguments and "list" in arguments:
            from fastmta.cli.queue_quick import quick
        else:
            from fastmta.cli.quick_acts import quick
        if argv is None:
            gc.disable()  # what goes round in circles goes with the process, which is short
        code = quick(arguments)
        if code is not None:
            return code
        gc.enable()
    if "serve" in arguments:
        from fastmta.cli.becoming import plain_serve

        plain_serve(arguments)
    from fastmta.cli.main import main as whole

    return whole(arguments)
