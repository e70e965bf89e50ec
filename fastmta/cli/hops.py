"""Next hops as commands see them: which hop a name means, which are suspended, and what a running server does there."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fastmta.cli.failures import EX_DATAERR, EX_TEMPFAIL, CommandFailed
from fastmta.config.schema import Config

if TYPE_CHECKING:
    pass


def shown(hop: bytes) -> str:
    return hop.decode("utf-8", "backslashreplace")


def hop_of(config: Config, name: str) -> bytes:
    """The hop that a domain's mail takes by today's routes, or the hop that is written out ("smtp:[host]:25").

    CommandFailed where mail of the domain has no hop of its own.
    """
    from fastmta.delivery.routing import Router, hop_key, parse_hop

    if ":" in name and not name.startswith("["):
        try:
            parse_hop(name.encode("utf-8", "surrogateescape"), config.delivery.smtp_tcp_port)
        except ValueError as error:
            raise CommandFailed(f"{name}: no next hop: {error}", EX_DATAERR) from error
        return hop_key(name)
    router = Router(config)
    domain = name.removeprefix("@").encode("utf-8", "surrogateescape")
    route = router.hop_for(domain)
    if not route.hop:
        raise CommandFailed(f"{name}: not a domain", EX_DATAERR)
    if route.hop == b"local:":
        raise CommandFailed(f"{name} is local: its mail takes no next hop", EX_DATAERR)
    full = router.full_hop(route.hop, b"postmaster@" + domain)
    if router.named_by(full, b"postmaster@" + domain) == "relayhost":
        raise CommandFailed(
            f"mail for {name} goes by relayhost with all other mail; name that hop instead: {shown(route.hop)}",
            EX_DATAERR,
        )
    return route.hop


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
