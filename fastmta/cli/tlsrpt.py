"""`fastmta tlsrpt`: TLS reports, received ones as a table; the acts on ours are added from operations/tlsrpt.py."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastmta.cli.derived import add_missing
from fastmta.cli.failures import EX_DATAERR
from fastmta.cli.output import json_option, plain, print_json, print_table, stamp
from fastmta.model.limits import DMARC_REPORT_FILE_BYTES

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
    from fastmta.authentication.dmarc_report import ReportError
    from fastmta.authentication.report_files import reports_in
    from fastmta.tls.report import TlsReportError, parse_report

    found: list[TlsReport] = []
    failed = 0
    for file in files:
        try:
            found += [parse_report(text) for text in reports_in(_read(file), b"{")]
        except (ReportError, TlsReportError, OSError) as error:
            failed += 1
            said = error.strerror if isinstance(error, OSError) else str(error)
            print(plain(f"fastmta: {file}: {said}"), file=sys.stderr)
    if as_json:
        print_json([_as_json(one) for one in found])
    else:
        for one in found:
            _print(one)
    return EX_DATAERR if failed else 0


add_missing(tlsrpt, "tlsrpt")


def _read(file: str) -> bytes:
    from fastmta.tls.report import TlsReportError

    if file == "-":
        raw = sys.stdin.buffer.read(DMARC_REPORT_FILE_BYTES + 1)
    else:
        with Path(file).open("rb") as opened:
            raw = opened.read(DMARC_REPORT_FILE_BYTES + 1)
    if len(raw) > DMARC_REPORT_FILE_BYTES:
        raise TlsReportError(f"the file has over {DMARC_REPORT_FILE_BYTES} octets")
    return raw


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
