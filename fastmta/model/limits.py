"""Every bound of the server, with its unit, its reason, and the RFC's minimum where there is one.

A bound that an administrator may set lives in the configuration; these are the ones that may not be.
"""

from typing import Final

# --- SMTP ---
SMTP_COMMAND_LINE_BYTES: Final = 4096  # with CRLF; RFC 5321 §4.5.3.1.4 asks for 512, extensions add to it
SMTP_PATH_BYTES: Final = 256  # RFC 5321 §4.5.3.1.3
SMTP_LOCAL_PART_BYTES: Final = 64  # RFC 5321 §4.5.3.1.1
SMTP_DOMAIN_BYTES: Final = 255  # RFC 5321 §4.5.3.1.2
SMTP_RECIPIENTS: Final = 1000  # a transaction; RFC 5321 §4.5.3.1.8 asks for 100
SMTP_REPLY_LINE_BYTES: Final = 4096  # one line of a next hop's reply; RFC 5321 §4.5.3.1.5 asks for 512
SMTP_REPLY_BYTES: Final = 65536  # a whole multiline reply of a next hop

# --- hops ---
RECEIVED_FIELDS: Final = 50  # Postfix's hopcount_limit; RFC 5321 §6.3 asks for at least 100 only of simple counters

# --- authentication ---
SASL_RESPONSE_BYTES: Final = 9216  # decoded; RFC 4954 §4 lets a base64 line be 12,288 octets
