"""What commands say of recipients that they have moved. Loads nothing that a small command does not need."""

from typing import Final

from fastmta.cli.failures import EX_TEMPFAIL, CommandFailed

DONE: Final = {
    "flush": "to be tried now",
    "hold": "held",
    "release": "released",
    "requeue": "requeued",
    "delete": "deleted",
}


def show_changed(move: str, changed: int) -> None:
    print(f"{changed} recipient{'' if changed == 1 else 's'} {DONE[move]}")


def require_none_left(move: str, in_flight: int) -> None:
    """CommandFailed where some were being sent."""
    if in_flight:
        some = "1 recipient is" if in_flight == 1 else f"{in_flight} recipients are"
        raise CommandFailed(f"{some} being sent at this moment, hence not {DONE[move]}; try again", EX_TEMPFAIL)
