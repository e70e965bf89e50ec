"""`fastmta verify` and `fastmta sign`: message authentication by hand, without a server."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastmta.cli.failures import EX_DATAERR, EX_NOINPUT, EX_USAGE, CommandFailed
from fastmta.cli.output import config_option, json_option, plain, print_json, print_table

if TYPE_CHECKING:
    from fastmta.authentication.message import Field
    from fastmta.authentication.verifying import Verdicts
    from fastmta.dns.resolver import Resolver

FORMS = ("simple", "relaxed")


async def _here(operation: Callable[..., Any], *arguments: Any) -> Any:
    """A command has no loop to keep free."""
    return operation(*arguments)


def _read(file: str) -> bytes:
    """A message with CRLF; "-" is standard input. A file with bare LF is a text file."""
    from fastmta.authentication.message import with_crlf

    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}", EX_NOINPUT) from error
    return with_crlf(raw)


def nameservers_of(given: Sequence[str], config_path: str | None) -> tuple[str, ...]:
    """Those of the command line, else the configuration's, else (empty) the system's."""
    from fastmta.config.load import load
    from fastmta.config.location import default_path

    if given:
        return tuple(given)
    if config_path is None and not Path(default_path()).is_file():
        return ()
    return tuple(load(config_path).dns.nameservers)


def with_resolver(nameservers: tuple[str, ...], work: "Callable[[Resolver], Awaitable[Any]]") -> Any:
    from fastmta.dns.resolver import Resolver

    async def run() -> Any:
        resolver = Resolver(nameservers, monotonic=time.monotonic)
        try:
            return await work(resolver)
        finally:
            await resolver.close()

    return asyncio.run(run())


nameserver_option = click.option(
    "--nameserver", "nameservers", multiple=True, metavar="HOST:PORT", help="Ask this name server; may be repeated."
)


@click.command(
    epilog="\b\nExamples:\n  fastmta verify letter.eml --client 192.0.2.1 --helo mx.example.net"
    " --mail-from ann@example.net\n  fastmta verify --client 192.0.2.1 --helo mx.example.net"
    " --mail-from ann@example.net"
    "\n  fastmta verify - --json <letter.eml"
)
@click.argument("file", required=False)
@click.option("--client", metavar="IP", help="The address that the message came from.")
@click.option("--helo", default="", metavar="NAME", help="What the client called itself.")
@click.option("--mail-from", "sender", default="", metavar="ADDRESS", help='MAIL FROM; "" or <> is the null sender.')
@nameserver_option
@json_option
@config_option
def verify(
    file: str | None,
    client: str | None,
    helo: str,
    sender: str,
    nameservers: tuple[str, ...],
    as_json: bool,
    config_path: str | None,
) -> None:
    """Verify SPF, DKIM, ARC and DMARC of a message; without FILE, SPF alone."""
    import ipaddress

    from fastmta.authentication.bodies import Bodies, forms_needed
    from fastmta.authentication.message import HeaderTooLong, parse_fields, split_message
    from fastmta.authentication.verifying import Client, verify_message

    if file is None and client is None:
        raise CommandFailed("nothing to verify: give a FILE, or --client for SPF alone", EX_USAGE)
    if client is not None:
        try:
            ipaddress.ip_address(client)
        except ValueError as error:
            raise CommandFailed(f"--client {client}: not an IP address", EX_USAGE) from error
    header, body = split_message(_read(file)) if file is not None else (b"", b"")
    try:
        fields = parse_fields(header)
    except HeaderTooLong as error:
        raise CommandFailed(f"{file}: {error}", EX_DATAERR) from error
    bodies = Bodies(forms_needed(fields))
    bodies.update(body)
    bare = sender.strip().removeprefix("<").removesuffix(">")
    who = Client(client, helo, bare) if client is not None else None

    async def work(resolver: "Resolver") -> "Verdicts":
        return await verify_message(fields, bodies, who, resolver, _here, time.time())

    verdicts: Verdicts = with_resolver(nameservers_of(nameservers, config_path), work)
    shown = _as_json(verdicts)
    if as_json:
        print_json(shown)
    else:
        _print_verdicts(shown)


def _as_json(verdicts: "Verdicts") -> dict[str, Any]:
    spf, arc, dmarc = verdicts.spf, verdicts.arc, verdicts.dmarc
    return {
        "spf": {
            "result": spf.result if spf else "none",
            "domain": spf.domain if spf else "",
            "explanation": spf.explanation if spf else "",
            "lookups": spf.lookups if spf else 0,
        },
        "dkim": [
            {"result": one.result, "domain": one.domain, "selector": one.selector, "reason": one.reason}
            for one in verdicts.dkim
        ],
        "arc": {"result": arc.result, "instance": arc.instance, "reason": arc.reason},
        "dmarc": {
            "result": dmarc.result,
            "policy": dmarc.policy,
            "disposition": dmarc.disposition,
            "domain": dmarc.domain,
        },
    }


def _print_verdicts(shown: dict[str, Any]) -> None:
    spf, arc, dmarc = shown["spf"], shown["arc"], shown["dmarc"]
    rows = [("SPF", spf["result"], spf["domain"], spf["explanation"])]
    for one in shown["dkim"]:
        rows.append(("DKIM", one["result"], f"{one['selector']}._domainkey.{one['domain']}", one["reason"]))
    if not shown["dkim"]:
        rows.append(("DKIM", "none", "", "no signature"))
    rows.append(("ARC", arc["result"], f"i={arc['instance']}" if arc["instance"] else "", arc["reason"]))
    note = f"policy {dmarc['policy']}, disposition {dmarc['disposition']}" if dmarc["policy"] else "no policy published"
    rows.append(("DMARC", dmarc["result"], dmarc["domain"], note))
    print_table(("CHECK", "RESULT", "OF", "NOTE"), [tuple(plain(cell) for cell in row) for row in rows])


@click.command(
    epilog="\b\nExamples:\n  fastmta sign letter.eml --domain example.org --selector s2026 --key s2026.pem >signed.eml"
    "\n  fastmta sign - --domain example.org --selector s2026 --key s2026.pem --headers from:to:subject <letter.eml"
    "\n  fastmta sign letter.eml --arc --authserv-id mx.example.org --domain example.org --selector arc --key arc.pem"
)
@click.argument("file")
@click.option("--domain", required=True, help="The signing domain, d=.")
@click.option("--selector", required=True, help="The selector, s=.")
@click.option("--key", "key_file", required=True, metavar="FILE", help="The private key: PKCS#8 PEM, RSA or Ed25519.")
@click.option("--arc", is_flag=True, help="Add an ARC set instead of a DKIM signature.")
@click.option("--headers", default="", metavar="a:b:c", help="The fields to sign, as h= has them; default: ours.")
@click.option("--canonicalization", "forms", default="relaxed/relaxed", metavar="c/c", help="simple or relaxed, each.")
@click.option("--timestamp", type=int, help="t=; default: now.")
@click.option("--authserv-id", default="", metavar="ID", help="Whose Authentication-Results an ARC set carries on.")
@nameserver_option
@config_option
def sign(
    file: str,
    domain: str,
    selector: str,
    key_file: str,
    arc: bool,
    headers: str,
    forms: str,
    timestamp: int | None,
    authserv_id: str,
    nameservers: tuple[str, ...],
    config_path: str | None,
) -> None:
    """Print the message with a signature in front: DKIM's, or with --arc an ARC set."""
    from fastmta.authentication.message import HeaderTooLong, parse_fields, split_message
    from fastmta.authentication.signing import (
        DkimTags,
        SigningError,
        body_digest_of,
        load_signer,
        names_to_sign,
        sign_dkim,
    )

    header_form, slash, body_form = forms.partition("/")
    body_form = body_form if slash else "simple"  # RFC 6376 §3.5, c=
    if header_form not in FORMS or body_form not in FORMS:
        raise CommandFailed(f"--canonicalization {forms}: each part is simple or relaxed", EX_USAGE)
    raw = _read(file)
    header, body = split_message(raw)
    try:
        fields = parse_fields(header)
        signer = load_signer(_key(key_file), domain, selector)
        chosen = [name.encode("ascii", "replace") for name in headers.split(":")] if headers else []
        names = names_to_sign(fields, chosen, arc=arc)
        tags = DkimTags(
            names,
            header_form,  # type: ignore[arg-type]
            body_form,  # type: ignore[arg-type]
            int(time.time()) if timestamp is None else timestamp,
        )
        if arc:
            added = _sealed(signer, fields, body, tags, authserv_id or domain, nameservers_of(nameservers, config_path))
        else:
            added = sign_dkim(signer, fields, body_digest_of(body, tags.body_form), tags)
    except (SigningError, HeaderTooLong) as error:
        raise CommandFailed(str(error), EX_DATAERR) from error
    sys.stdout.buffer.write(added + raw)
    sys.stdout.buffer.flush()


def _key(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", EX_NOINPUT) from error


def _sealed(
    signer: Any, fields: "Sequence[Field]", body: bytes, tags: Any, authserv_id: str, nameservers: tuple[str, ...]
) -> bytes:
    """The new ARC set; the chain so far is verified for its cv=."""
    from fastmta.authentication.arc import BrokenChain, collect_sets, verify_arc
    from fastmta.authentication.bodies import Bodies, forms_needed
    from fastmta.authentication.results import consolidated
    from fastmta.authentication.signing import body_digest_of, seal_arc

    bodies = Bodies(forms_needed(fields))
    bodies.update(body)

    async def work(resolver: "Resolver") -> Any:
        return await verify_arc(fields, bodies, resolver, _here, time.time())

    chain = with_resolver(nameservers, work)
    try:
        sets = collect_sets(fields)
    except BrokenChain as error:
        raise CommandFailed(f"the chain cannot be sealed: {error}", EX_DATAERR) from error
    results = consolidated(fields, authserv_id)
    return seal_arc(signer, fields, sets, chain.result, results, body_digest_of(body, "relaxed"), tags)
