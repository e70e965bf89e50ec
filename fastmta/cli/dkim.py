"""`fastmta dkim`: the keys that sign a domain's mail, from making and publishing to rotation and deletion.

They work with the server up or down. A key is `new` (published, not signing yet), `active` (signs) or `old` (published
for the mail that is still on its way). The first key of a domain and algorithm is active at once.
"""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastmta.cli.authentication import nameserver_option, nameservers_of, with_resolver
from fastmta.cli.confirm import confirm, yes_option
from fastmta.cli.failures import EX_DATAERR, EX_NOINPUT, EX_NOUSER, EX_USAGE, CommandFailed
from fastmta.cli.opened import run_with
from fastmta.cli.output import config_option, json_option, print_json, print_table, stamp
from fastmta.cli.zone_file import text_record
from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.model.errors import Refused

if TYPE_CHECKING:
    from fastmta.authentication.signing import Signer
    from fastmta.dns.resolver import Resolver
    from fastmta.store import MailStore
    from fastmta.store.dkim_keys import DkimKey

ALGORITHMS = ("rsa", "ed25519")


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
@click.option("--algorithm", type=click.Choice([*ALGORITHMS, "both"]), help="Default: rsa, which everybody can verify.")
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
    config = load(config_path)
    name = domain_name(domain)
    if key_file is not None:
        if algorithm is not None or selector is None:
            raise CommandFailed("--key needs --selector, and no --algorithm: the key has its own", EX_USAGE)
        made = [_imported(key_file, name, selector)]
    else:
        wanted = ALGORITHMS if algorithm == "both" else (algorithm or "rsa",)
        made = [_made(name, _selector(selector, kind, len(wanted) > 1), kind, bits) for kind in wanted]

    async def work(_: Config, store: "MailStore") -> "list[DkimKey]":
        active = {key.algorithm for key in store.dkim_keys.list(name) if key.state == "active"}
        keys = [_record(signer, "new" if kind_of(signer) in active else "active") for signer in made]
        await _add(store, keys)
        return keys

    _show_added(run_with(config, work), as_json)


async def _add(store: "MailStore", keys: "list[DkimKey]") -> None:
    try:
        await store.dkim_keys.add(*keys)
    except Refused as refused:
        if refused.code != "exists":
            raise
        names = " or ".join(key.selector for key in keys)
        raise CommandFailed(
            f"{keys[0].domain} has a key {names} already; give another --selector", EX_DATAERR
        ) from refused


def _show_added(keys: "list[DkimKey]", as_json: bool) -> None:
    if as_json:
        print_json([_as_json(key) for key in keys])
        return
    for key in keys:
        print(_record_line(key))
    waiting = sorted({key.domain for key in keys if key.state == "new"})
    print("; publish it, then: fastmta dkim publish " + keys[0].domain + "  (checks what the DNS has)")
    for domain in waiting:
        print(f"; it signs after: fastmta dkim rotate {domain}")


@dkim.command("list")
@click.argument("domain", required=False)
@json_option
@config_option
def list_(domain: str | None, as_json: bool, config_path: str | None) -> None:
    """List the keys, of all domains or one."""
    keys = _keys(load(config_path), domain_name(domain) if domain else "")
    if as_json:
        print_json([_as_json(key) for key in keys])
    else:
        rows = [(key.domain, key.selector, key.algorithm, key.state, stamp(key.created_at_s)) for key in keys]
        print_table(("DOMAIN", "SELECTOR", "ALGORITHM", "STATE", "CREATED"), rows)


@dkim.command()
@click.argument("domain")
@nameserver_option
@json_option
@config_option
def publish(domain: str, nameservers: tuple[str, ...], as_json: bool, config_path: str | None) -> None:
    """Print the TXT records of a domain's keys, and say what the DNS has of them."""
    config = load(config_path)
    keys = _required(config, domain_name(domain))
    states = published(keys, nameservers_of(nameservers, config_path))
    if as_json:
        print_json([{**_as_json(key), "published": state} for key, state in zip(keys, states, strict=True)])
        return
    for key, state in zip(keys, states, strict=True):
        print(f"; {key.state}: {state}")
        print(_record_line(key))


@dkim.command()
@click.argument("domain")
@click.option("--force", is_flag=True, help="Do not ask the DNS whether a new key is published.")
@nameserver_option
@json_option
@config_option
def rotate(domain: str, force: bool, nameservers: tuple[str, ...], as_json: bool, config_path: str | None) -> None:
    """Let the new keys sign and the active ones become old; where there is no new key, make one to publish first."""
    config = load(config_path)
    name = domain_name(domain)
    keys = _required(config, name)
    new = [key for key in keys if key.state == "new"]
    if not new:
        kinds = list(dict.fromkeys(key.algorithm for key in keys if key.state == "active")) or ["rsa"]
        made = [_record(_made(name, _free(_selector(None, kind, False), keys), kind, 2048), "new") for kind in kinds]

        async def add_them(_: Config, store: "MailStore") -> None:
            await _add(store, made)

        run_with(config, add_them)
        _show_added(made, as_json)
        return
    if not force:
        states = published(new, nameservers_of(nameservers, config_path))
        for key, state in zip(new, states, strict=True):
            if state != "published":
                raise CommandFailed(
                    f"{key.selector}._domainkey.{name} is {state} in the DNS; publish it first (--force to go on)",
                    EX_DATAERR,
                )
    # Of several new keys of one algorithm the youngest signs.
    chosen = {key.algorithm: key for key in sorted(new, key=lambda key: key.created_at_s)}
    moves: dict[str, Any] = {key.selector: "active" for key in chosen.values()}
    moves |= {key.selector: "old" for key in keys if key.state == "active" and key.algorithm in chosen}

    async def work(_: Config, store: "MailStore") -> None:
        await store.dkim_keys.move(name, moves)

    run_with(config, work)
    if as_json:
        print_json([_as_json(key) for key in _keys(config, name)])
    else:
        for selector, state in sorted(moves.items()):
            print(f"{selector}: {state}")
        print("; keep old keys published for a week, then: fastmta dkim delete")


@dkim.command()
@click.argument("domain")
@click.argument("selector")
@yes_option
@config_option
def delete(domain: str, selector: str, yes: bool, config_path: str | None) -> None:
    """Delete a key. Take its record out of the DNS afterwards."""
    config = load(config_path)
    name, wanted = domain_name(domain), selector.lower()
    found = [key for key in _required(config, name) if key.selector == wanted]
    if not found:
        raise CommandFailed(f"{name} has no key {wanted}", EX_NOUSER)
    signs = ", which signs its mail" if found[0].state == "active" else ""
    confirm(f"Delete the key {wanted} of {name}{signs}?", yes)

    async def work(_: Config, store: "MailStore") -> None:
        await store.dkim_keys.delete(name, wanted)

    run_with(config, work)


def domain_name(text: str) -> str:
    """A domain of the command line as A-labels."""
    from fastmta.authentication.signature import domain_of
    from fastmta.authentication.tags import TagError

    try:
        name = domain_of(text.strip().encode("utf-8", "replace"))
    except TagError as error:
        raise CommandFailed(f"{text}: not a domain", EX_USAGE) from error
    if "." not in name:
        raise CommandFailed(f"{text}: not a domain", EX_USAGE)
    return name


def _keys(config: Config, domain: str) -> "list[DkimKey]":
    async def work(_: Config, store: "MailStore") -> "list[DkimKey]":
        return store.dkim_keys.list(domain)

    return run_with(config, work)


def _required(config: Config, domain: str) -> "list[DkimKey]":
    keys = _keys(config, domain)
    if not keys:
        raise CommandFailed(f"{domain} has no key; make one: fastmta dkim add {domain}", EX_NOUSER)
    return keys


def _selector(given: str | None, kind: str, several: bool) -> str:
    if given is not None:
        return f"{given.lower()}-{kind}" if several else given.lower()
    return time.strftime("s%Y%m%d", time.gmtime()) + ("" if kind == "rsa" else "e")


def _free(selector: str, keys: "Iterable[DkimKey]") -> str:
    """The selector, with a number behind it where it is taken."""
    taken = {key.selector for key in keys}
    number = 2
    free = selector
    while free in taken:
        free = f"{selector}-{number}"
        number += 1
    return free


def _made(domain: str, selector: str, kind: str, bits: int) -> "Signer":
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    key: Any = rsa.generate_private_key(65537, bits) if kind == "rsa" else ed25519.Ed25519PrivateKey.generate()
    return _signer(_pem(key), domain, selector)


def _imported(path: str, domain: str, selector: str) -> "Signer":
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", EX_NOINPUT) from error
    return _signer(raw, domain, selector)


def _signer(pem: bytes, domain: str, selector: str) -> "Signer":
    from fastmta.authentication.signing import SigningError, load_signer

    try:
        return load_signer(pem, domain, selector)
    except SigningError as error:
        raise CommandFailed(str(error), EX_DATAERR) from error


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def kind_of(signer: "Signer") -> str:
    return signer.algorithm.partition("-")[0]


def _record(signer: "Signer", state: Any) -> "DkimKey":
    from fastmta.store.dkim_keys import DkimKey

    now = int(time.time())
    return DkimKey(signer.domain, signer.selector, kind_of(signer), state, _pem(signer.key), now, now)


def public_record(key: "DkimKey") -> str:
    """The text that belongs into the DNS."""
    return _signer(key.pem, key.domain, key.selector).public_record()


def _record_line(key: "DkimKey") -> str:
    return text_record(f"{key.selector}._domainkey.{key.domain}", public_record(key))


def _as_json(key: "DkimKey") -> dict[str, Any]:
    """All but the private key."""
    return {
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": key.algorithm,
        "state": key.state,
        "created": stamp(key.created_at_s),
        "changed": stamp(key.changed_at_s),
        "name": f"{key.selector}._domainkey.{key.domain}",
        "record": public_record(key),
    }


def published(keys: "Iterable[DkimKey]", nameservers: tuple[str, ...]) -> list[str]:
    """For each key: "published", "missing", "different" (another key or several), or "unknown" (the DNS is silent)."""
    records = [(f"{key.selector}._domainkey.{key.domain}", public_record(key)) for key in keys]

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
