"""One-time codes (RFC 6238, with SHA-1, six digits and 30 seconds, which every authenticator program knows)."""

import base64
import hmac
from typing import Final
from urllib.parse import quote

DIGITS: Final = 6
STEP_S: Final = 30
SECRET_BYTES: Final = 20  # RFC 4226 §4 recommends 160 bits
_DRIFT: Final = 1  # steps before and after the present one that are taken (RFC 6238 §5.2)


def code_at(secret: bytes, step: int) -> str:
    """The code of one step of 30 seconds (RFC 4226 §5.3)."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


def matching_step(secret: bytes, code: str, now_s: float, last_step: int) -> int | None:
    """The step whose code this is, later than the last one that was used; None where there is none (§5.2)."""
    present = int(now_s) // STEP_S
    given = code.encode("utf-8", "surrogatepass")
    found = None
    for step in range(present - _DRIFT, present + _DRIFT + 1):
        if hmac.compare_digest(code_at(secret, step).encode(), given) and step > last_step:
            found = step
    return found


def secret_text(secret: bytes) -> str:
    """The secret as programs take it: base32 (RFC 4648 §6) without padding."""
    return base64.b32encode(secret).decode("ascii").rstrip("=")


def uri(secret: bytes, address: str, issuer: str) -> str:
    """What a QR code for an authenticator program holds."""
    label = quote(f"{issuer}:{address}")
    return f"otpauth://totp/{label}?secret={secret_text(secret)}&issuer={quote(issuer)}"
