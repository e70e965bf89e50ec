"""What `fastmta check` warns of: a server with these runs, but not as its administrator thinks.

Certificates that peers will refuse, networks that make an open relay, aliases that lead nowhere, a postmaster without
a home. Reads at most a stated number of alias entries, and changes nothing.
"""

import datetime
import ipaddress
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastmta.cli.outgoing_doubts import outgoing_doubts
from fastmta.cli.startable import Problem
from fastmta.config.restrictions import OF_CERTIFICATES, WORDS, parse
from fastmta.config.schema import Config, leaves
from fastmta.delivery.routing import Router
from fastmta.directory.aliases import TargetKind, parse_targets, split_targets
from fastmta.directory.domains import DomainClass
from fastmta.directory.maps import Table, alias_tables
from fastmta.directory.recipients import Directory
from fastmta.directory.source import parse_aliases, parse_map
from fastmta.model.envelope import Resolution
from fastmta.model.errors import ConfigError
from fastmta.model.services import NAMES
from fastmta.policy.checks.access import AccessTables
from fastmta.policy.contents import Kind, problem_of
from fastmta.runtime.clock import SystemClock
from fastmta.tls.problems import certificate_doubts

if TYPE_CHECKING:
    from fastmta.store import MailStore

ENTRIES: Final = 10_000  # of each map that are followed; a check is no audit of a million aliases
DEAD_SHOWN: Final = 20  # dead targets told of each source, the rest counted
_WIDEST: Final = {4: 16, 6: 32}  # a public network of more addresses than these is hardly one administrator's
_ROLES: Final = ("postmaster", "abuse")


def doubts(config: Config, store: "MailStore | None", *, none_yet: bool = False) -> Iterator[Problem]:
    """Every warning, in the order of importance. `store` is None where none can be read; `none_yet`: there is none."""
    yield from _open_networks(config)
    if config.tls.cert_file:
        now = datetime.datetime.now(datetime.UTC)
        for name in ("cert_file", "smtpd_tls_eccert_file"):
            path = getattr(config.tls, name)
            for text in certificate_doubts(path, config.myhostname, now) if path else ():
                yield Problem(f"tls.{name}", text)
        yield from _key_mode(config)
    if not any(config.listen.of(service) for service in NAMES):
        yield Problem("listen", "no service listens: nothing can reach this server")
    yield from _certificates_nobody_asks_for(config)
    yield from _map_contents(config)
    yield from outgoing_doubts(config)
    if store is not None:
        yield from _dead_ends(config, store)
    elif none_yet and config.mailbox_domains:
        yield Problem(
            "", "there is no account yet, and so nobody who gets the postmaster's mail: `fastmta user add NAME`"
        )


def _certificates_nobody_asks_for(config: Config) -> Iterator[Problem]:
    tls = config.tls
    for leaf in leaves():
        if leaf.key.kind != "restrictions":
            continue
        for each in parse(getattr(config, leaf.name)):
            if each.name in OF_CERTIFICATES and not tls.asks_clients:
                yield Problem(leaf.dotted, f"{each.name}: no client is asked; set smtpd_tls_ask_ccert in [tls]")
            elif each.name == "permit_tls_clientcerts" and not config.relay_clientcerts:
                yield Problem(leaf.dotted, f"{each.name}: relay_clientcerts is empty, so nobody is let in by it")
    authorities = tls.smtpd_tls_CAfile or tls.smtpd_tls_CApath or tls.ssl_ca
    if tls.smtpd_tls_req_ccert and not authorities:
        yield Problem("tls.smtpd_tls_req_ccert", "no authority is set in smtpd_tls_CAfile, so nobody can submit mail")


def _open_networks(config: Config) -> Iterator[Problem]:
    for text in config.mynetworks:
        network = ipaddress.ip_network(text)
        if network.prefixlen == 0:
            yield Problem("mynetworks", f"{text} is everybody: this server is an open relay")
        elif network.prefixlen < _WIDEST[network.version] and not network.is_private:
            count = f"2^{network.max_prefixlen - network.prefixlen}"
            yield Problem("mynetworks", f"{text} lets {count} addresses relay through this server: are they all yours?")


def _key_mode(config: Config) -> Iterator[Problem]:
    path = config.tls.key_file or config.tls.cert_file
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return
    if mode & 0o007:
        yield Problem("tls.key_file", f"{path} is open to every user of this machine; close it with `chmod o= {path}`")


def _map_contents(config: Config) -> Iterator[Problem]:
    for key in ("virtual_alias_maps", "smtpd_sender_login_maps"):
        for table in map(Table, getattr(config, key)):
            if table.problem:
                yield Problem(key, f"{table.problem}; until this is mended, mail for it gets a temporary failure")
    for problem in alias_tables(config.alias_maps).problems():
        yield Problem("alias_maps", f"{problem}; until this is mended, mail for it gets a temporary failure")
    yield from _content_tables(config)
    yield from _access_tables(config)
    for place, _, value in _entries(config, "alias_maps"):
        for target in parse_targets(value):
            if target.kind is TargetKind.COMMAND or (target.kind is TargetKind.FILE and target.text != "/dev/null"):
                yield Problem("alias_maps", f"{place}: FastMTA does not deliver to {target.kind.value}s")


def _content_tables(config: Config) -> Iterator[Problem]:
    """Tables that look into messages, which answer 451 to all mail where they cannot be obeyed."""
    told: set[tuple[str, str]] = set()
    asked = [(str(kind), kind, getattr(config, kind)) for kind in Kind]
    for key, kind, names in (*asked, ("milter_header_checks", Kind.HEADER, config.milter_header_checks)):
        inherited = asked[0][2] if key != asked[0][0] else ()
        for name in names:
            if name in inherited:
                continue  # named already; what it cannot change in attached messages is in the log
            table = Table(name)
            if table.problem:
                yield Problem(key, f"{table.problem}; until this is mended, all mail gets a temporary failure")
                continue
            for value in islice(table.values(), ENTRIES):
                problem = problem_of(kind, value)
                if problem and (name, problem) not in told:
                    told.add((name, problem))
                    yield Problem(key, f"{name}: {problem}")


def _access_tables(config: Config) -> Iterator[Problem]:
    """Results of access tables that nobody can obey: who meets one is put off (451)."""
    tables = AccessTables(config, SystemClock())
    told: set[str] = set()
    lists = [(leaf.dotted, getattr(config, leaf.name)) for leaf in leaves() if leaf.key.kind == "restrictions"]
    lists += [("smtpd_restriction_classes", words) for words in config.smtpd_restriction_classes.values()]
    for key, words in lists:
        for each in parse(words):
            word = WORDS.get(each.name)
            if word is None or word.given != "map" or each.argument in told:
                continue
            told.add(each.argument)
            table = Table(each.argument)
            if table.problem:
                yield Problem(key, f"{table.problem}; until this is mended, whom it is asked about is put off")
                continue
            for problem in dict.fromkeys(map(tables.problem, islice(table.values(), ENTRIES))):
                if problem:
                    yield Problem(key, f"{each.argument}: {problem}")


def _dead_ends(config: Config, store: "MailStore") -> Iterator[Problem]:
    try:
        told: list[tuple[str, str]] = []
        directory = Directory(
            config, store, Router(config), log_homeless=lambda address, account: told.append((address, account))
        )
    except ConfigError:
        return  # told already, as an error
    homeless = []
    account = ""
    for domain in (*config.mailbox_domains, *config.virtual_alias_domains):
        for role in _ROLES if domain not in ("localhost", f"localhost.{config.mydomain}") else ():
            told.clear()
            directory.forget_homeless()
            directory.resolve(f"{role}@{domain}".encode(), may_relay=False)
            if told:
                homeless.append(f"{role}@{domain}")
                account = told[0][1]
    if homeless:
        shown = ", ".join(homeless[:4]) + (f" and {len(homeless) - 4} more" if len(homeless) > 4 else "")
        verb = "have" if len(homeless) > 1 else "has"
        fate = f"the oldest account, {account}, gets that mail" if account else "that mail is put off"
        yield Problem("", f"{shown} {verb} no mailbox, and {fate}: `fastmta alias add {homeless[0]} ADDRESS`")
    sources = [(key, _entries(config, key)) for key in ("virtual_alias_maps", "alias_maps")]
    sources.append(("", ((f"alias {name}", name, ", ".join(t)) for name, t in islice(store.aliases.list(), ENTRIES))))
    for key, entries in sources:
        dead = 0
        for place, name, value in entries:
            for target in _addresses(key, value):
                if _is_dead(directory, name, target):
                    dead += 1
                    if dead <= DEAD_SHOWN:
                        yield Problem(key, f"{place}: {target} is nobody here")
        if dead > DEAD_SHOWN:
            yield Problem(key, f"and {dead - DEAD_SHOWN} more targets that are nobody here")


def _addresses(key: str, value: str) -> list[str]:
    if key != "alias_maps":
        return [] if value.strip().lower() == "anything" else split_targets(value)
    return [target.text for target in parse_targets(value) if target.kind is TargetKind.ADDRESS]


def _is_dead(directory: Directory, name: str, target: str) -> bool:
    """Whether a target is an address of ours that is refused for good."""
    if target.startswith("@") or ("." in name and "@" not in name):
        return False  # a whole domain, whose addresses are not known here
    try:
        address = directory.qualify(target)
    except ValueError:
        return True
    if directory.class_of(address.domain) in (DomainClass.OTHER, DomainClass.RELAY):
        return False
    return _is_refused(directory.resolve(address.raw, may_relay=True))


def _is_refused(resolution: Resolution) -> bool:
    """For good; an alias of an alias that leads nowhere is a target whose hop is the refusal."""
    if resolution.refusal is not None:
        return not resolution.refusal.is_temporary
    return False


def _entries(config: Config, key: str) -> Iterator[tuple[str, str, str]]:
    """(place, name, value) of the sources of a key's maps, as far as they can be read."""
    parser = parse_aliases if key == "alias_maps" else parse_map
    for name in getattr(config, key):
        if name.partition(":")[0] not in ("hash", "texthash"):
            continue  # what patterns may give is not known before they are asked
        path = Path(name.partition(":")[2])
        try:
            text = path.read_text("utf-8", "surrogateescape")
            for entry in islice(parser(text, str(path)), ENTRIES):
                yield f"{path}:{entry.line}: {entry.key}", entry.key, entry.value
        except (OSError, ConfigError):
            continue  # told already
