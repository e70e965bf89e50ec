"""What `fastmta check` warns of in the settings of outgoing mail: logins at relay hosts, and TLS by destination."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from fastmta.cli.startable import Problem
from fastmta.config.schema import Config
from fastmta.delivery.outgoing_checks import tables_of
from fastmta.delivery.tls_policy import parse_entry
from fastmta.directory.maps import Table
from fastmta.directory.source import parse_map
from fastmta.model.errors import ConfigError
from fastmta.policy.contents import parse_outgoing

ENTRIES: Final = 10_000  # of each map that are looked at
_LOGINS, _POLICIES = "delivery.smtp_sasl_password_maps", "delivery.smtp_tls_policy_maps"


def outgoing_doubts(config: Config) -> Iterator[Problem]:
    """Every warning. No password is in any of them."""
    delivery = config.delivery
    for key, names in ((_LOGINS, delivery.smtp_sasl_password_maps), (_POLICIES, delivery.smtp_tls_policy_maps)):
        for table in map(Table, names):
            if table.problem:
                yield Problem(key, f"{table.problem}; until this is mended, mail that asks it waits")
    for place, value in _entries(delivery.smtp_tls_policy_maps):
        try:
            parse_entry(delivery, value)
        except ValueError as error:
            yield Problem(_POLICIES, f"{place}: {error}; mail for it waits")
    yield from _content_tables(config)
    for name in delivery.smtp_sasl_password_maps:
        yield from _open_map(Path(name.partition(":")[2]))
    for place, value in _entries(delivery.smtp_sasl_password_maps):
        if ":" not in value:
            yield Problem(_LOGINS, f"{place}: an entry is user:password")
    if delivery.smtp_sasl_auth_enable and "noplaintext" in delivery.smtp_sasl_tls_security_options:
        yield Problem(
            "delivery.smtp_sasl_tls_security_options",
            "noplaintext forbids PLAIN, LOGIN and tokens over TLS too; most relay hosts have nothing else: "
            'set it to "noanonymous"',
        )


def _content_tables(config: Config) -> Iterator[Problem]:
    for transport in ("smtp", "lmtp"):
        for kind, names in tables_of(config.delivery, transport).items():
            key = f"delivery.{transport}_{kind}"
            for name in names:
                table = Table(name)
                if table.problem:
                    yield Problem(key, f"{table.problem}; until this is mended, mail that leaves waits")
                    continue
                for value in dict.fromkeys(islice(table.values(), ENTRIES)):
                    try:
                        parse_outgoing(kind, value)
                    except ValueError as error:
                        yield Problem(key, f"{name}: {error}")


def _open_map(path: Path) -> Iterator[Problem]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # told already
    if mode & 0o007:
        yield Problem(_LOGINS, f"{path} is open to every user of this machine; close it with `chmod o= {path}`")


def _entries(names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(place, value) of the sources, as far as they can be read."""
    for name in names:
        path = Path(name.partition(":")[2])
        try:
            for entry in islice(parse_map(path.read_text("utf-8", "surrogateescape"), str(path)), ENTRIES):
                yield f"{path}:{entry.line}: {entry.key}", entry.value
        except (OSError, ConfigError):
            continue  # told already
