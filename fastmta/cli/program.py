"""The entry point of `fastmta`: calls that must be cheap are done at once, all others load the whole program."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Gives the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "list" in arguments:
        if "queue" in arguments:
            from fastmta.cli.queue_quick import quick
        else:
            from fastmta.cli.quick_acts import quick
        code = quick(arguments)
        if code is not None:
            return code
    if "serve" in arguments:
        from fastmta.cli.becoming import plain_serve

        plain_serve(arguments)
    from fastmta.cli.main import main as whole

    return whole(arguments)
