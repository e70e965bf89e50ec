"""Delivery status notifications: the message that tells a sender what became of a message (RFC 3461, 3464, 6522, 6533).

Pure: a `Report` in, the bytes of a message out. One report is of one kind (failed, delayed, delivered or relayed) and
names every recipient that met it together. Peers' words go in as text that has been made printable already.
Who gets one is decided here too: `owes`; the null reverse path never does, and whoever asked for NOTIFY=NEVER neither.
"""

import base64
import email.utils
from typing import Final, Literal

import msgspec

from fastmta.model.envelope import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    Envelope,
    RecipientTail,
)
from fastmta.model.reply import Reply
from fastmta.smtp.conversion import Unconvertible, converted, quoted_printable
from fastmta.smtp.header_words import fields, seven_bit_field
from fastmta.smtp.transaction import ascii_path

Kind = Literal["failed", "delayed", "delivered", "relayed"]

Notice = Kind | Literal["copy", "delayed copy", "2bounce"]  # those for postmaster (Postfix's notify_classes)

HEADER_BYTES: Final = 50_000  # of the original's header that a headers-only report carries
RECIPIENTS_LISTED: Final = 1000
BOUNDARY_CHARACTERS: Final = 70  # RFC 2046 §5.1.1
LINE_CHARACTERS: Final = 950  # of one field that is not folded; RFC 5322 §2.1.1 allows 998
_WRAP: Final = 76

_SUBJECTS: Final = {
    "failed": "Undelivered Mail Returned to Sender",
    "delayed": "Delayed Mail (still being retried)",
    "delivered": "Successful Mail Delivery Report",
    "relayed": "Successful Mail Delivery Report",
}
_COPIES: Final = {  # of what postmaster gets
    "failed": "Postmaster Copy: Undelivered Mail",
    "delayed": "Postmaster Warning: Delayed Mail",
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
    eight_bit: bool = False  # every place that it goes to is known to take 8-bit bytes
    postmaster: bytes = b""  # whom it goes to in place of the sender, as a copy (notify_classes)


def owes(kind: Kind, envelope: Envelope, recipient: RecipientTail) -> bool:
    """Whether the sender is to be told (RFC 3461 §5.2); success only on request, failure and delay unless refused."""
    if not envelope.reverse_path:
        return False
    notify = recipient.notify
    if kind == "relayed" and envelope.terms is not None and envelope.terms.by_mode.endswith("T"):
        return not notify & NOTIFY_NEVER  # RFC 2852 §4.1.3
    if kind in ("delivered", "relayed"):
        return bool(notify & NOTIFY_SUCCESS)
    return not notify or bool(notify & (NOTIFY_FAILURE if kind == "failed" else NOTIFY_DELAY))


def build(report: Report) -> bytes:
    """The notification as a message, from its Received field on.

    7-bit, so that any server takes it, but for the To field of a sender whose own address is not ASCII; where the
    report goes to a mailbox (`eight_bit`), the original is quoted as it came and addresses are written out.
    """
    envelope = report.envelope
    outcomes = report.outcomes[:RECIPIENTS_LISTED]
    utf8 = report.eight_bit and any(not _text(o.recipient.forward_path).isascii() for o in outcomes)
    boundary = f"{report.report_id}.{int(report.now_s)}/{report.hostname}"[:BOUNDARY_CHARACTERS]
    date = email.utils.formatdate(report.now_s)
    head = [
        f"Received: by {report.hostname} (FastMTA) id {report.report_id};",
        f"\t{date}",
        f"Date: {date}",
        f"From: Mail Delivery System <MAILER-DAEMON@{report.hostname}>",
        f"To: <{_text(_ascii_domain(report.postmaster or envelope.reverse_path))}>",
        f"Subject: {_COPIES[report.kind] if report.postmaster else _SUBJECTS[report.kind]}",
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
    ]
    status = [
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
        "",
    ]
    return b"".join(
        (
            "\r\n".join(head).encode("utf-8", "replace"),
            b"\r\n",
            _text_part("\r\n".join(_explanation(report, outcomes)), report.eight_bit),
            b"\r\n",
            "\r\n".join(status).encode("utf-8" if utf8 else "ascii", "backslashreplace"),
            _original_part(report),
            f"\r\n--{boundary}--\r\n".encode(),
        )
    )


def _text_part(text: str, eight_bit: bool) -> bytes:
    """The words for a human, with the fields of their part."""
    raw = text.encode("utf-8", "replace")
    if raw.isascii():
        return b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + raw
    encoding = b"8bit" if eight_bit else b"quoted-printable"
    return b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (
        encoding,
        raw if eight_bit else quoted_printable(raw),
    )


def _original_part(report: Report) -> bytes:
    """The message that the report is about, or its header, with the fields of its part."""
    envelope = report.envelope
    original = report.original
    private = envelope.terms is not None and envelope.terms.requiretls  # RFC 8689 §5: as if RET=HDRS
    full = (
        report.kind == "failed" and envelope.ret != "HDRS" and not private and envelope.size_bytes <= report.size_limit
    )
    full = full and (not report.postmaster or not envelope.reverse_path)  # of others' mail only the header
    full = full and len(original) >= envelope.size_bytes
    encoding = b""
    if full and not report.eight_bit and not original.isascii() and not envelope.smtputf8:
        try:
            original = converted(original)
        except Unconvertible:
            full = False
    if not full:
        original = _header(original)
        if not report.eight_bit and not envelope.smtputf8:
            original = b"".join(seven_bit_field(field) for field in fields(original))
    original = original if original.endswith(b"\r\n") else original + b"\r\n"
    if not original.isascii():
        encoding = b"Content-Transfer-Encoding: 8bit\r\n"
        if not report.eight_bit:  # message/global may be encoded (RFC 6532 §3.7), and its headers too (RFC 6533 §5)
            encoding = b"Content-Transfer-Encoding: base64\r\n"
            original = base64.encodebytes(original).replace(b"\n", b"\r\n")
    kind = b"message/global" if envelope.smtputf8 else b"message/rfc822"
    if not full:
        kind = b"message/global-headers" if envelope.smtputf8 else b"text/rfc822-headers"
    words = b"Undelivered Message" if full else b"Undelivered Message Headers"
    return b"Content-Description: %b\r\nContent-Type: %b\r\n%b\r\n%b" % (words, kind, encoding, original)


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
    terms = report.envelope.terms
    if terms is not None and terms.by_mode:  # RFC 2852 §5
        lines.append(f"Deliver-By-Date: {email.utils.formatdate(terms.deliver_by_ms / 1000)}")
    return [
        *lines,
        f"Reporting-MTA: dns; {report.hostname}",
        f"X-FastMTA-Queue-ID: {report.queue_id}",
        f"Arrival-Date: {email.utils.formatdate(report.envelope.received_at_ms / 1000)}",
    ]


def _recipient_fields(report: Report, outcome: Outcome, utf8: bool) -> list[str]:
    """The fields of one recipient (RFC 3464 §2.3)."""
    recipient, reply = outcome.recipient, outcome.reply
    lines = [f"Final-Recipient: {_typed(recipient.forward_path, utf8).replace(';', '; ', 1)}"]
    if recipient.orcpt:
        address_type, _, address = recipient.orcpt.partition(b";")
        if address_type.lower() == b"utf-8":
            lines.append(f"Original-Recipient: {_typed(address, utf8)}")
        else:
            lines.append(f"Original-Recipient: {_printable(address_type)};{_printable(address, spaces=False)}")
    elif recipient.original:
        lines.append(f"Original-Recipient: {_typed(recipient.original, utf8)}")
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


def _typed(path: bytes, utf8: bool) -> str:
    """An address with its type; one that is not ASCII as utf-8-addr-xtext where only 7-bit is sent (RFC 6533 §3)."""
    text = _text(path)
    if text.isascii():
        return f"rfc822;{text}"[:LINE_CHARACTERS]
    if utf8:
        return f"utf-8;{text}"
    escaped = "".join(c if "!" <= c <= "~" and c not in "+=\\" else f"\\x{{{ord(c):X}}}" for c in text)
    return f"utf-8;{escaped}"[:LINE_CHARACTERS]


def _ascii_domain(path: bytes) -> bytes:
    """The path with its domain as A-labels where that makes it ASCII; else as it is."""
    return path if path.isascii() else ascii_path(path) or path


def _text(path: bytes) -> str:
    """A path as text without anything that could end a line."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _printable(raw: bytes, *, spaces: bool = True) -> str:
    """Peer bytes as printable ASCII."""
    low = 32 if spaces else 33
    return "".join(chr(octet) if low <= octet < 127 else f"+{octet:02X}" for octet in raw)[:LINE_CHARACTERS]


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
