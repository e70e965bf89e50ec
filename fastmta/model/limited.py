"""What is limited by the address or the account of a client; policy/limits.py holds the limits."""

from enum import IntEnum
from typing import Final


class What(IntEnum):
    """What is limited; the names are the label values of fastmta_limited_total."""

    CONNECTIONS = 1
    CONNECTION_RATE = 2
    MESSAGE_RATE = 3
    RECIPIENT_RATE = 4
    AUTH_RATE = 5
    TLS_RATE = 6
    UNAUTHENTICATED = 7
    USER_CONNECTIONS = 8
    FAILED_LOGINS = 9
    UPLOADS = 10  # messages that have begun to come and not ended
    UPLOAD_BYTES = 11  # octets of these
    GREETED = 13  # clients that have waited for the greeting once: remembered, never refused by itself
    LOGIN_DELAY = 16  # when accounts last logged in over POP3
    ONE_TIME_CODES = 17  # that were tried behind an account's right password
    FAILURES = 14  # for which an address is banned in the end
    BANNED = 15
    APPEND_BYTES = 12  # octets that an account's APPENDs have announced: for its quota, never refused by itself


# What traffic rules count of next hops in the same table (delivery/shaping.py).
SHAPED_CONNECTIONS: Final = 101
SHAPED_SECOND: Final = 102
SHAPED_HOUR: Final = 103
