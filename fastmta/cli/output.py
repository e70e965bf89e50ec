"""How commands print: a table for people, JSON for programs, sizes and ages that are read at a glance.

click is loaded by whoever has options to declare: small programs print with this too.
"""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """`-c FILE` on a command; the function gets `config_path`, which `-c` before the command sets too."""
    import click

    def chosen(ctx: click.Context, _: click.Parameter, value: str | None) -> str | None:
        return value if value is not None else ctx.find_root().obj

    return click.option(
        "-c", "--config", "config_path", type=click.Path(), callback=chosen, help="The configuration file."
    )(function)


def json_option(function: F) -> F:
    import click

    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def print_json(value: Any) -> None:
    import json

    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> None:
    """Columns under headings, two blanks apart; those numbered in `right` end on the right."""
    texts = [tuple(headings)]
    for row in rows:
        cells = tuple(map(str, row))
        texts.append(cells if "".join(cells).isprintable() else tuple(map(plain, cells)))
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    to_the_right = set(right)
    form = "  ".join(f"%{'' if n in to_the_right else '-'}{width}s" for n, width in enumerate(widths))
    sys.stdout.write("".join([(form % row).rstrip() + "\n" for row in texts]))


def plain(text: str) -> str:
    """Text that a terminal only shows: control characters of a peer's words become `?`."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def size(size_bytes: int) -> str:
    """1536 -> 1.5K"""
    value = float(size_bytes)
    for unit in ("", "K", "M", "G"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "" or value >= 10 else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


def age(seconds: float) -> str:
    """90 -> 1m, 5400 -> 1h"""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def stamp(seconds: float) -> str:
    """An instant as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def instant(text: str) -> int:
    """What `stamp` has written, in seconds since 1970."""
    year, month = int(text[:4]), int(text[5:7])
    if month < 3:  # a year of this count begins in March, so that a leap day is its last one
        year, month = year - 1, month + 12
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month - 457) // 5 + int(text[8:10]) - 719_469
    return ((days * 24 + int(text[11:13])) * 60 + int(text[14:16])) * 60 + int(text[17:19])
