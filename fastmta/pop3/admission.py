"""Whether an account may open its maildrop now: the delay between its logins, and its connections from one address."""

from fastmta.pop3.keeping import login_delay_s
from fastmta.pop3.seams import Seat, Services


def refused(services: Services, seat: Seat | None, account_id: int) -> tuple[bytes, str] | None:
    """(RFC 2449 response code, why not); None where it may, and the `seat` is the account's from now on."""
    delay_s = login_delay_s(services.config)
    if delay_s and services.limits.checked_within(account_id, delay_s):
        return b"LOGIN-DELAY", f"Mail may be checked once in {delay_s} seconds"
    if seat is not None and not seat.log_in(account_id):
        return b"SYS/TEMP", seat.refusal
    return None
