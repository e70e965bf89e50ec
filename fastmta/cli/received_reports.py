"""Reports that others sent, in the files that a command names: `fastmta dmarc report` and `fastmta tlsrpt report`."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from fastmta.cli.failures import EX_DATAERR
from fastmta.cli.output import plain, print_json
from fastmta.model.limits import DMARC_REPORT_FILE_BYTES

R = TypeVar("R")


def show_reports(
    files: Iterable[str],
    as_json: bool,
    reports_of: Callable[[bytes], Iterable[R]],
    json_of: Callable[[R], dict[str, Any]],
    show: Callable[[R], None],
) -> int:
    """Prints the reports in all files; "-" is standard input. A file without one is named on standard error, and makes
    the exit code EX_DATAERR. `reports_of` raises ValueError for what is no report.
    """
    found: list[R] = []
    failed = 0
    for file in files:
        try:
            found += reports_of(_read(file))
        except (ValueError, OSError) as error:
            failed += 1
            said = error.strerror if isinstance(error, OSError) else str(error)
            print(plain(f"fastmta: {file}: {said}"), file=sys.stderr)
    if as_json:
        print_json([json_of(one) for one in found])
    else:
        for one in found:
            show(one)
    return EX_DATAERR if failed else 0


def _read(file: str) -> bytes:
    if file == "-":
        raw = sys.stdin.buffer.read(DMARC_REPORT_FILE_BYTES + 1)
    else:
        with Path(file).open("rb") as opened:
            raw = opened.read(DMARC_REPORT_FILE_BYTES + 1)
    if len(raw) > DMARC_REPORT_FILE_BYTES:
        raise ValueError(f"the file has over {DMARC_REPORT_FILE_BYTES} octets")
    return raw
