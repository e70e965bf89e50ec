"""Delivery status notifications: the message that tells a sender what became of a message (RFC 3461, 3464, 6522, 6533).

Pure: a `Report` in, the bytes of a message out. One report is of one kind (failed, delayed, delivered or relayed) and
names every recipient that met it together. Peers' words go in as text that has been made printable already.
Who gets one is decided here too: `owes`; the null reverse path never does, and whoever asked for NOTIFY=NEVER neither.
"""

import email.utils
from typing import Final, Literal

import msgspec

from fastmta.model.envelope import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_SUCCESS,
    Envelope,
    RecipientTail,
)
from fastmta.model.reply import Reply

Kind = Literal["failed", "delayed", "delivered", "relayed"]

HEADER_BYTES: Final = 50_000  # of the original's header that a headers-only report carries
RECIPIENTS_LISTED: Final = 1000
_WRAP: Final = 76

_SUBJECTS: Final = {
    "failed": "Undelivered Mail Returned to Sender",
    "delayed": "Delayed Mail (still being retried)",
    "delivered": "Successful Mail Delivery Report",
    "relayed": "Successful Mail Delivery Report",
}
_WORDS: Final = {
    "failed": "Your message could not be delivered to the recipients below. It will not\nbe tried again.",
    "delayed": "Your message has not been delivered yet to the recipients below.\nYou need not send it again: "
    "delivery is still being tried.",
    "delivered": "Your message was delivered to the recipients below.",
    "relayed": "Your message was passed on for the recipients below to a server that sends\nno further reports.",
}


class Outcome(msgspec.Struct, frozen=True):
    """What happened to one recipient; `remote` is the server that said so, "" where it was us."""

    recipient: RecipientTail
    reply: Reply
    remote: str = ""


class Report(msgspec.Struct, frozen=True):
    """All that a notification is made of. `original` is the message, or its beginning; `now_s` the Unix time."""

    kind: Kind
    hostname: str
    queue_id: str
    report_id: str
    envelope: Envelope
    outcomes: list[Outcome]
    original: bytes
    now_s: float
    retry_until_s: float = 0.0
    size_limit: int = 50_000


def owes(kind: Kind, envelope: Envelope, recipient: RecipientTail) -> bool:
    """Whether the sender is to be told (RFC 3461 §5.2); success only on request, failure and delay unless refused."""
    if not envelope.reverse_path:
        return False
    notify = recipient.notify
    if kind in ("delivered", "relayed"):
        return bool(notify & NOTIFY_SUCCESS)
    return not notify or bool(notify & (NOTIFY_FAILURE if kind == "failed" else NOTIFY_DELAY))


def build(report: Report) -> bytes:
    """The notification as a message, from its Received field on; 8-bit only where the original or an address is."""
    envelope = report.envelope
    outcomes = report.outcomes[:RECIPIENTS_LISTED]
    utf8 = not envelope.reverse_path.isascii() or any(not _paths_are_ascii(o.recipient) for o in outcomes)
    boundary = f"{report.report_id}.{int(report.now_s)}/{report.hostname}"
    date = email.utils.formatdate(report.now_s)
    full = report.kind == "failed" and envelope.ret != "HDRS" and envelope.size_bytes <= report.size_limit
    full = full and len(report.original) >= envelope.size_bytes
    head = [
        f"Received: by {report.hostname} (FastMTA) id {report.report_id};",
        f"\t{date}",
        f"Date: {date}",
        f"From: Mail Delivery System <MAILER-DAEMON@{report.hostname}>",
        f"To: <{_text(envelope.reverse_path)}>",
        f"Subject: {_SUBJECTS[report.kind]}",
        f"Message-ID: <{report.report_id}.{int(report.now_s)}@{report.hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=" + ("global-delivery-status;" if utf8 else "delivery-status;"),
        f'\tboundary="{boundary}"',
        "",
        "This is a report about a message, in MIME format.",
        "",
        f"--{boundary}",
        "Content-Description: Notification",
        f"Content-Type: text/plain; charset={'utf-8' if utf8 else 'us-ascii'}",
        *(["Content-Transfer-Encoding: 8bit"] if utf8 else []),
        "",
        *_explanation(report, outcomes),
        "",
        f"--{boundary}",
        "Content-Description: Delivery report",
        f"Content-Type: message/{'global-' if utf8 else ''}delivery-status",
        *(["Content-Transfer-Encoding: 8bit"] if utf8 else []),
        "",
        *_message_fields(report),
        *(line for outcome in outcomes for line in ("", *_recipient_fields(report, outcome, utf8))),
        "",
        f"--{boundary}",
    ]
    kind = "message/global" if envelope.smtputf8 else "message/rfc822"
    if not full:
        kind = "message/global-headers" if envelope.smtputf8 else "text/rfc822-headers"
    original = _lines(report.original if full else _header(report.original))
    tail = [
        f"Content-Description: Undelivered Message{'' if full else ' Headers'}",
        f"Content-Type: {kind}",
        *([] if original.isascii() else ["Content-Transfer-Encoding: 8bit"]),
        "",
        "",
    ]
    return b"".join(
        (
            "\r\n".join(head).encode("utf-8", "replace"),
            b"\r\n",
            "\r\n".join(tail).encode(),
            original,
            f"\r\n--{boundary}--\r\n".encode(),
        )
    )


def _explanation(report: Report, outcomes: list[Outcome]) -> list[str]:
    lines = [f"This is the mail system at host {report.hostname}.", "", *_WORDS[report.kind].split("\n"), ""]
    for outcome in outcomes:
        address = _text(outcome.recipient.forward_path)
        origin = _text(outcome.recipient.original)
        expanded = f" (expanded from <{origin}>)" if origin and origin != address else ""
        said = f"host {outcome.remote} said: " if outcome.remote else ""
        lines += [*_wrapped(f"<{address}>{expanded}: {said}{outcome.reply}"), ""]
    if len(report.outcomes) > len(outcomes):
        lines += [f"and {len(report.outcomes) - len(outcomes)} more.", ""]
    return lines[:-1]


def _message_fields(report: Report) -> list[str]:
    """The fields of the message (RFC 3464 §2.2)."""
    lines = []
    if report.envelope.envid:
        lines.append(f"Original-Envelope-Id: {_printable(report.envelope.envid)}")
    return [
        *lines,
        f"Reporting-MTA: dns; {report.hostname}",
        f"X-FastMTA-Queue-ID: {report.queue_id}",
        f"Arrival-Date: {email.utils.formatdate(report.envelope.received_at_ms / 1000)}",
    ]


def _recipient_fields(report: Report, outcome: Outcome, utf8: bool) -> list[str]:
    """The fields of one recipient (RFC 3464 §2.3)."""
    recipient, reply = outcome.recipient, outcome.reply
    kind = "utf-8" if utf8 and not recipient.forward_path.isascii() else "rfc822"
    lines = [f"Final-Recipient: {kind}; {_text(recipient.forward_path)}"]
    if recipient.orcpt:
        address_type, _, address = recipient.orcpt.partition(b";")
        lines.append(f"Original-Recipient: {_printable(address_type)};{_printable(address, spaces=False)}")
    elif recipient.original:
        lines.append(f"Original-Recipient: rfc822;{_text(recipient.original)}")
    lines += [f"Action: {report.kind}", f"Status: {status_of(reply)}"]
    if outcome.remote:
        lines.append(f"Remote-MTA: dns; {outcome.remote.partition('[')[0]}")
    if report.kind in ("failed", "delayed"):
        scheme = "smtp" if outcome.remote else "X-FastMTA"
        lines += _wrapped(f"Diagnostic-Code: {scheme}; {reply}")
    if report.kind == "delayed" and report.retry_until_s:
        lines.append(f"Will-Retry-Until: {email.utils.formatdate(report.retry_until_s)}")
    return lines


def status_of(reply: Reply) -> str:
    """The enhanced status code of a reply, made from its class where it has none (RFC 3463)."""
    return reply.enhanced or f"{reply.code // 100}.0.0"


def _paths_are_ascii(recipient: RecipientTail) -> bool:
    return recipient.forward_path.isascii() and recipient.original.isascii()


def _text(path: bytes) -> str:
    """A path as text without anything that could end a line."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _printable(raw: bytes, *, spaces: bool = True) -> str:
    """Peer bytes as printable ASCII."""
    low = 32 if spaces else 33
    return "".join(chr(octet) if low <= octet < 127 else f"+{octet:02X}" for octet in raw)


def _wrapped(text: str) -> list[str]:
    """Words on lines of at most 76 characters, the following ones indented, as folding asks; a longer word is cut."""
    lines = [""]
    for word in text.split():
        for piece in [word[i : i + 900] for i in range(0, len(word), 900)]:
            if lines[-1].strip() and len(lines[-1]) + 1 + len(piece) > _WRAP:
                lines.append("    " + piece)
            else:
                lines[-1] += (" " if lines[-1].strip() else "") + piece
    return lines


def _header(original: bytes) -> bytes:
    """The header of a message, up to a bound and whole lines."""
    end = original.find(b"\r\n\r\n")
    if 0 <= end <= HEADER_BYTES:
        return original[: end + 2]
    cut = original[:HEADER_BYTES]
    return cut[: cut.rfind(b"\n") + 1] if b"\n" in cut else cut


def _lines(original: bytes) -> bytes:
    return original if original.endswith(b"\r\n") else original + b"\r\n"
