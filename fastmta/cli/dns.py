"""`fastmta dns DOMAIN`: every record to publish as a zone file, and what the DNS has of it."""

import ipaddress
from typing import TYPE_CHECKING, Any

import click

from fastmta.cli.authentication import nameserver_option, nameservers_of, with_resolver
from fastmta.cli.failures import EX_USAGE, CommandFailed
from fastmta.cli.output import config_option, json_option, plain, print_json
from fastmta.cli.performing import collect
from fastmta.cli.zone_file import record as zone_line
from fastmta.config.load import load
from fastmta.operations.keys import OfDomains, domain_name
from fastmta.operations.keys import list_ as list_keys

if TYPE_CHECKING:
    from fastmta.cli.dns_checks import Finding
    from fastmta.cli.dns_records import Facts
    from fastmta.dns.resolver import Resolver


@click.command(
    epilog="\b\nExamples:\n  fastmta dns example.org\n  fastmta dns example.org --address 192.0.2.1 --json\n"
    "  fastmta dns example.org --nameserver 9.9.9.9:53"
)
@click.argument("domain")
@click.option("--address", "addresses", multiple=True, metavar="IP", help="This server's public address; repeatable.")
@nameserver_option
@json_option
@config_option
def dns(
    domain: str,
    addresses: tuple[str, ...],
    nameservers: tuple[str, ...],
    as_json: bool,
    config_path: str | None,
) -> None:
    """Print the records that a domain needs, and what is wrong with those it has.

    The output is a zone file; what the checks found stands in its comments.
    """
    from fastmta.cli.dns_checks import check_all
    from fastmta.cli.dns_records import certificate_digest, public_only, wanted
    from fastmta.cli.publish import own_addresses

    config = load(config_path)
    name = domain_name(domain)
    for text in addresses:
        try:
            ipaddress.ip_address(text)
        except ValueError as error:
            raise CommandFailed(f"--address {text}: not an IP address", EX_USAGE) from error
    own = tuple(str(ipaddress.ip_address(text)) for text in addresses) or public_only(list(own_addresses()))

    found = collect(config_path, list_keys, OfDomains(name))
    keys = tuple((key.name, key.record) for key in found)
    from fastmta.cli.dns_records import Facts

    facts = Facts(name, config.myhostname.lower(), own, keys, certificate_digest(config.tls.cert_file))
    records = wanted(facts, config)

    async def work(resolver: "Resolver") -> "list[Finding]":
        return await check_all(resolver, facts, records)

    findings = with_resolver(nameservers_of(nameservers, config_path), work)
    if as_json:
        print_json(_as_json(findings, facts))
    else:
        _print(findings, facts)


def _as_json(findings: "list[Finding]", facts: "Facts") -> dict[str, Any]:
    return {
        "domain": facts.domain,
        "host": facts.host,
        "records": [
            {
                "name": one.wanted.name,
                "type": one.wanted.kind,
                "value": one.wanted.value,
                "state": one.state,
                "note": one.note,
                "cost": "" if one.state == "ok" else one.wanted.cost,
                "needed": one.wanted.needed,
            }
            for one in findings
        ],
    }


def _print(findings: "list[Finding]", facts: "Facts") -> None:
    from fastmta.cli.dns_records import policy_text

    for one in findings:
        if one.wanted.name.startswith("_mta-sts."):
            for line in policy_text(facts).splitlines():
                print(f"; https://mta-sts.{facts.domain}/.well-known/mta-sts.txt: {line}")
        print(zone_line(one.wanted.name, one.wanted.kind, one.wanted.value))
        said = one.state + (f": {one.note}" if one.note else "")
        if one.state != "ok":
            said += f"; {one.wanted.cost}" if one.wanted.needed else f" (optional); {one.wanted.cost}"
        print(f";   {plain(said)}")
    if not facts.addresses:
        print("; this server's public address is not known: --address")
    if not facts.keys:
        print(
            f"; no key signs the mail of {facts.domain}, so large providers doubt it: fastmta dkim add {facts.domain}"
        )
    bad = [one for one in findings if one.state != "ok" and one.wanted.needed]
    print(
        f"; {len(bad)} of the needed records are not as they should be" if bad else "; all needed records are published"
    )
