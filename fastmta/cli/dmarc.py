"""`fastmta dmarc report`: received aggregate reports as a table."""

from typing import TYPE_CHECKING, Any

import click

from fastmta.cli.derived import add_missing
from fastmta.cli.output import json_option, plain, print_table, stamp
from fastmta.cli.received_reports import show_reports

if TYPE_CHECKING:
    from fastmta.authentication.dmarc_report import Report


@click.group(epilog="\b\nExamples:\n  fastmta dmarc report google.com!example.org!1700000000!1700086400.zip")
def dmarc() -> None:
    """What receivers report of a domain's mail."""


@dmarc.command(
    epilog="\b\nExamples:\n  fastmta dmarc report *.xml.gz\n  fastmta dmarc report --json mail.eml\n"
    "  fastmta dmarc report - <mail.eml"
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@json_option
def report(files: tuple[str, ...], as_json: bool) -> int:
    """Show aggregate reports: XML, gzip, zip, or a whole mail with one attached. "-" is standard input."""
    from fastmta.authentication.dmarc_report import parse_report
    from fastmta.authentication.report_files import reports_in

    def reports_of(raw: bytes) -> "list[Report]":
        return [parse_report(text) for text in reports_in(raw)]

    return show_reports(files, as_json, reports_of, _as_json, _print)


add_missing(dmarc, "dmarc")


def _as_json(one: "Report") -> dict[str, Any]:
    shown = one._asdict()
    shown["begin"], shown["end"] = stamp(one.begin), stamp(one.end)
    shown["records"] = [
        {
            **record._asdict(),
            "dkim_auth": [auth._asdict() for auth in record.dkim_auth],
            "spf_auth": [auth._asdict() for auth in record.spf_auth],
            "reasons": [{"type": kind, "comment": comment} for kind, comment in record.reasons],
        }
        for record in one.records
    ]
    return shown


def _print(one: "Report") -> None:
    policy = " ".join(f"{name}={value}" for name, value in (("p", one.p), ("sp", one.sp), ("np", one.np)) if value)
    span = f"{stamp(one.begin)} to {stamp(one.end)}"
    print(plain(f"{one.org_name} on {one.domain} ({policy}), {span}, report {one.report_id}"))
    for error in one.errors:
        print(plain(f"  error: {error}"))
    rows = []
    for record in sorted(one.records, key=lambda record: -record.messages):
        dkim = ", ".join(f"{auth.domain} {auth.result}" for auth in record.dkim_auth[:3])
        spf = ", ".join(f"{auth.domain} {auth.result}" for auth in record.spf_auth[:3])
        cells = (record.source_ip, record.messages, record.disposition, record.dkim, record.spf, record.header_from)
        rows.append((*cells, dkim, spf))
    headings = ("SOURCE", "COUNT", "DISPOSITION", "DKIM", "SPF", "FROM", "SIGNED BY", "ENVELOPE")
    print_table(headings, rows, right=(1,))
    print()
