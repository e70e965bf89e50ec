"""`fastmta tlsrpt`: TLS reports, received ones as a table; the acts on ours are added from operations/tlsrpt.py."""

from typing import TYPE_CHECKING, Any

import click

from fastmta.cli.derived import add_missing
from fastmta.cli.output import json_option, plain, print_table, stamp
from fastmta.cli.received_reports import show_reports

if TYPE_CHECKING:
    from fastmta.tls.report import TlsReport


@click.group(epilog="\b\nExamples:\n  fastmta tlsrpt show\n  fastmta tlsrpt send --today")
def tlsrpt() -> None:
    """TLS reports: report (received ones), show and send (ours)."""


@tlsrpt.command(
    epilog="\b\nExamples:\n  fastmta tlsrpt report *.json.gz\n  fastmta tlsrpt report --json mail.eml\n"
    "  fastmta tlsrpt report - <mail.eml"
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@json_option
def report(files: tuple[str, ...], as_json: bool) -> int:
    """Show received TLS reports: JSON, gzip, zip, or a whole mail with one attached. "-" is standard input."""
    from fastmta.authentication.report_files import reports_in
    from fastmta.tls.report import parse_report

    def reports_of(raw: bytes) -> "list[TlsReport]":
        return [parse_report(text) for text in reports_in(raw, b"{")]

    return show_reports(files, as_json, reports_of, _as_json, _print)


add_missing(tlsrpt, "tlsrpt")


def _as_json(one: "TlsReport") -> dict[str, Any]:
    shown = one._asdict()
    shown["begin"], shown["end"] = stamp(one.begin), stamp(one.end)
    shown["policies"] = [
        {**each._asdict(), "failures": [failure._asdict() for failure in each.failures]} for each in one.policies
    ]
    return shown


def _print(one: "TlsReport") -> None:
    span = f"{stamp(one.begin)} to {stamp(one.end)}"
    print(plain(f"{one.organization_name}, {span}, report {one.report_id}"))
    rows: list[tuple[Any, ...]] = []
    for each in one.policies:
        rows.append((each.policy_domain, each.policy_type, each.successful, each.failed, "", "", ""))
        for failure in each.failures:
            why = failure.failure_reason_code or failure.additional_information
            rows.append(("", "", "", failure.sessions, failure.result_type, failure.receiving_mx_hostname, why))
    print_table(("DOMAIN", "POLICY", "GOOD", "FAILED", "RESULT", "SERVER", "REASON"), rows, right=(2, 3))
    print()
