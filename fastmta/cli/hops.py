"""Next hops as commands see them: what a running server does there."""

from collections.abc import Iterable
from typing import Any

from fastmta.cli.failures import EX_TEMPFAIL, CommandFailed
from fastmta.config.schema import Config
from fastmta.operations.listing import text as shown

__all__ = ["shown", "states"]


def states(config: Config, hops: Iterable[bytes] = ()) -> list[dict[str, Any]] | None:
    """What a running server's workers have in hand for these hops, or for the busiest; None where no server runs.

    They have read what is suspended before they answer.
    """
    from fastmta.admin.control import NotRunning, request

    named = [hop.decode("utf-8", "surrogateescape") for hop in hops]
    try:
        answer = request(config, {"do": "hops", "hops": named})
    except NotRunning:
        return None
    if not answer.get("ok"):
        raise CommandFailed(str(answer.get("error", "the server refused")), EX_TEMPFAIL)
    found: list[dict[str, Any]] = answer["hops"]
    return found
