"""Dates of commands: APPEND's date-time and SEARCH's date (RFC 3501 §9)."""

import calendar
import re
from typing import Final

from fastmta._imap import BadSyntax

_MONTHS: Final = {
    month: number
    for number, month in enumerate(
        (b"JAN", b"FEB", b"MAR", b"APR", b"MAY", b"JUN", b"JUL", b"AUG", b"SEP", b"OCT", b"NOV", b"DEC"), 1
    )
}
_DATE_TIME: Final = re.compile(rb"([ 0-9]?[0-9])-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")
_DATE: Final = re.compile(rb"(\d{1,2})-([A-Za-z]{3})-(\d{4})")


def parse_date_time(raw: bytes) -> tuple[int, int]:
    """(seconds since the epoch, minutes east of UTC)."""
    match = _DATE_TIME.fullmatch(raw)
    if match is None:
        raise BadSyntax("Invalid date-time")
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = match.groups()
    days = _days(int(day), month, int(year))
    if int(hour) > 23 or int(minute) > 59 or int(second) > 60 or int(zone_hours) > 23 or int(zone_minutes) > 59:
        raise BadSyntax("Invalid date-time")
    zone = (int(zone_hours) * 60 + int(zone_minutes)) * (-1 if sign == b"-" else 1)
    return days * 86400 + int(hour) * 3600 + int(minute) * 60 + int(second) - zone * 60, zone


def parse_date(raw: bytes) -> int:
    """Days since the epoch."""
    match = _DATE.fullmatch(raw)
    if match is None:
        raise BadSyntax("Invalid date")
    return _days(int(match.group(1)), match.group(2), int(match.group(3)))


def days_of(year: int, month: int, day: int) -> int | None:
    """Days since the epoch; None for a date that does not exist."""
    if not 1 <= month <= 12 or not 1 <= year <= 9999 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return calendar.timegm((year, month, day, 0, 0, 0)) // 86400


def _days(day: int, month_name: bytes, year: int) -> int:
    days = days_of(year, _MONTHS.get(month_name.upper(), 0), day)
    if days is None:
        raise BadSyntax("Invalid date")
    return days
