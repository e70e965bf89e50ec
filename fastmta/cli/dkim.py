"""`fastmta dkim`: the keys that sign a domain's mail, from making and publishing to rotation and deletion.

They work with the server up or down (operations/keys.py); what the DNS has is asked by the command itself.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from fastmta.cli.authentication import nameserver_option, nameservers_of, with_resolver
from fastmta.cli.derived import command
from fastmta.cli.failures import EX_DATAERR, EX_NOINPUT, EX_NOUSER, CommandFailed
from fastmta.cli.output import config_option, json_option, print_json, print_table
from fastmta.cli.performing import collect, perform
from fastmta.cli.zone_file import text_record
from fastmta.operations import keys

if TYPE_CHECKING:
    from fastmta.dns.resolver import Resolver


@click.group(
    epilog="\b\nExamples:\n  fastmta dkim add example.org\n  fastmta dkim add example.org --algorithm both\n"
    "  fastmta dkim add example.org --selector s2026 --key s2026.pem\n  fastmta dkim publish example.org\n"
    "  fastmta dkim rotate example.org\n  fastmta dkim delete example.org s2025"
)
def dkim() -> None:
    """Keys that sign a domain's mail."""


@dkim.command()
@click.argument("domain")
@click.option("--selector", help="The name of the key; with both algorithms -rsa and -ed25519 follow. Default: today.")
@click.option(
    "--algorithm", type=click.Choice([*keys.ALGORITHMS, "both"]), help="Default: rsa, which everybody can verify."
)
@click.option("--bits", type=click.IntRange(1024, 4096), default=2048, show_default=True, help="Of an RSA key.")
@click.option("--key", "key_file", metavar="FILE", help="Import this private key in PEM instead of making one.")
@json_option
@config_option
def add(
    domain: str,
    selector: str | None,
    algorithm: str | None,
    bits: int,
    key_file: str | None,
    as_json: bool,
    config_path: str | None,
) -> None:
    """Make or import a key and print the record to publish."""
    pem = None
    if key_file is not None:
        try:
            pem = Path(key_file).read_bytes().decode("ascii", "replace")
        except OSError as error:
            raise CommandFailed(f"{key_file}: {error.strerror}", EX_NOINPUT) from error
    _show_added(perform(config_path, keys.add, keys.AddKey(domain, selector, algorithm, bits, pem)), as_json)


def _show_added(added: list[keys.Key], as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(added))
        return
    for key in added:
        print(text_record(key.name, key.record))
    print("; publish it, then: fastmta dkim publish " + added[0].domain + "  (checks what the DNS has)")
    for domain in sorted({key.domain for key in added if key.state == "new"}):
        print(f"; it signs after: fastmta dkim rotate {domain}")


def _list(found: list[keys.Key]) -> None:
    rows = [(key.domain, key.selector, key.algorithm, key.state, key.created) for key in found]
    print_table(("DOMAIN", "SELECTOR", "ALGORITHM", "STATE", "CREATED"), rows)


@dkim.command()
@click.argument("domain")
@nameserver_option
@json_option
@config_option
def publish(domain: str, nameservers: tuple[str, ...], as_json: bool, config_path: str | None) -> None:
    """Print the TXT records of a domain's keys, and say what the DNS has of them."""
    found = _required(config_path, domain)
    states = published(found, nameservers_of(nameservers, config_path))
    if as_json:
        print_json([{**msgspec.to_builtins(key), "published": state} for key, state in zip(found, states, strict=True)])
        return
    for key, state in zip(found, states, strict=True):
        print(f"; {key.state}: {state}")
        print(text_record(key.name, key.record))


@dkim.command()
@click.argument("domain")
@click.option("--force", is_flag=True, help="Do not ask the DNS whether a new key is published.")
@nameserver_option
@json_option
@config_option
def rotate(domain: str, force: bool, nameservers: tuple[str, ...], as_json: bool, config_path: str | None) -> None:
    """Let the new keys sign and the active ones become old; where there is no new key, make one to publish first."""
    new = [key for key in _required(config_path, domain) if key.state == "new"]
    if not new:
        _show_added(perform(config_path, keys.renew, keys.OfDomain(domain)), as_json)
        return
    if not force:
        states = published(new, nameservers_of(nameservers, config_path))
        for key, state in zip(new, states, strict=True):
            if state != "published":
                raise CommandFailed(
                    f"{key.name} is {state} in the DNS; publish it first (--force to go on)", EX_DATAERR
                )
    moves = perform(config_path, keys.rotate, keys.OfDomain(domain))
    if as_json:
        print_json(msgspec.to_builtins(_required(config_path, domain)))
    else:
        for selector, state in sorted(moves.items()):
            print(f"{selector}: {state}")
        print("; keep old keys published for a week, then: fastmta dkim delete")


def _sure(config_path: str | None, asked: keys.OneKey) -> str:
    found = perform(config_path, keys.show, asked)
    signs = ", which signs its mail" if found.state == "active" else ""
    return f"Delete the key {found.selector} of {found.domain}{signs}?"


dkim.add_command(command(keys.list_, show=_list))
dkim.add_command(command(keys.delete, question=_sure))


def _required(config_path: str | None, domain: str) -> list[keys.Key]:
    name = keys.domain_name(domain)
    found = collect(config_path, keys.list_, keys.OfDomains(name))
    if not found:
        raise CommandFailed(f"{name} has no key; make one: fastmta dkim add {name}", EX_NOUSER)
    return found


def published(found: "Iterable[keys.Key]", nameservers: tuple[str, ...]) -> list[str]:
    """For each key: "published", "missing", "different" (another key or several), or "unknown" (the DNS is silent)."""
    records = [(key.name, key.record) for key in found]

    async def work(resolver: "Resolver") -> list[str]:
        return list(await asyncio.gather(*(key_state(resolver, name, record) for name, record in records)))

    states: list[str] = with_resolver(nameservers, work)
    return states


async def key_state(resolver: "Resolver", name: str, record: str) -> str:
    from fastmta.authentication.tags import TagError, parse_tags, without_spaces
    from fastmta.dns.resolver import LookupTrouble, NotFound

    try:
        texts = await resolver.txt(name)
    except NotFound:
        return "missing"
    except LookupTrouble:
        return "unknown"

    def key_in(text: bytes) -> tuple[bytes, bytes]:
        try:
            tags = parse_tags(text)
        except TagError:
            return b"", b""
        return tags.get("k", b"rsa"), without_spaces(tags.get("p", b""))

    return "published" if [key_in(text) for text in texts] == [key_in(record.encode())] else "different"
