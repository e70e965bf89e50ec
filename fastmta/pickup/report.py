"""The report that `sendmail -bv` asks for: what would become of each recipient (RFC 3464 in form).

What is ours is known; what goes to another host is told with that host, which is not asked.
"""

import secrets
import time
from typing import Final

from fastmta._intake import Recipient, Target

RECIPIENTS_LISTED: Final = 1000


def build(hostname: str, sender: bytes, recipients: list[Recipient]) -> bytes:
    """The report as a message without trace, Date and Message-ID, in 7-bit ASCII with LF line ends."""
    boundary = f"{secrets.token_hex(8)}.{int(time.time())}/{hostname}"
    verdicts = [(_ascii(each.forward_path), *_verdict(target)) for each in recipients for target in each.targets][
        :RECIPIENTS_LISTED
    ]
    lines = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: {_ascii(sender)}",
        "Subject: Mail Delivery Status Report",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\n\tboundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Description: Notification",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is the mail system at host {hostname}.",
        "",
        "Enclosed is the mail delivery report that you requested.",
        "",
        *(f"<{path}>: {text}" for path, _, _, text in verdicts),
        "",
        f"--{boundary}",
        "Content-Description: Delivery report",
        "Content-Type: message/delivery-status",
        "",
        f"Reporting-MTA: dns; {hostname}",
    ]
    for path, action, status, text in verdicts:
        lines += [
            "",
            f"Final-Recipient: rfc822; {path}",
            f"Action: {action}",
            f"Status: {status}",
            f"Diagnostic-Code: X-FastMTA; {text}",
        ]
    return "\n".join([*lines, "", f"--{boundary}--", ""]).encode()


def _verdict(target: Target) -> tuple[str, str, str]:
    """(action, status, words)."""
    if target.mailbox_id:
        return "deliverable", "2.0.0", f"delivers to the mailbox of {_ascii(target.address)}"
    kind, _, rest = _ascii(target.hop).partition(":")
    if kind in ("error", "retry"):
        status, _, text = rest.partition(" ")
        return "undeliverable", status, text
    if kind == "local":
        return "delayed", "4.3.0", "cannot be told at the moment"
    if kind == "discard":
        return "deliverable", "2.0.0", "is discarded"
    return "relayed", "2.1.5", f"goes to {_ascii(target.address)} by way of {kind}:{rest}"


def _ascii(raw: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in raw)
