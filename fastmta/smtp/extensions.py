"""The ESMTP extensions that we speak: their EHLO lines, and the parameters of MAIL and RCPT.

SIZE RFC 1870, 8BITMIME RFC 6152, SMTPUTF8 RFC 6531, DSN RFC 3461, AUTH= RFC 4954 §5, REQUIRETLS RFC 8689, DELIVERBY
RFC 2852, FUTURERELEASE RFC 4865. Rules only: no session, no I/O.
"""

import datetime
import re
from collections.abc import Collection
from typing import Final

import msgspec

from fastmta._parser import split_parameters
from fastmta.model.envelope import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS, Terms
from fastmta.model.limits import SMTP_ENVID_BYTES, SMTP_ORCPT_BYTES
from fastmta.model.reply import Reply

_NOTIFY: Final = {
    b"NEVER": NOTIFY_NEVER,
    b"SUCCESS": NOTIFY_SUCCESS,
    b"FAILURE": NOTIFY_FAILURE,
    b"DELAY": NOTIFY_DELAY,
}
_HEX: Final = re.compile(rb"\+([0-9A-F]{2})")
_XTEXT: Final = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_ADDRESS_TYPE: Final = re.compile(rb"[A-Za-z0-9-]{1,32}")

_BY: Final = re.compile(rb"([+-]?[0-9]{1,9});([RNrn])([Tt]?)")
_HOLDFOR: Final = re.compile(rb"[0-9]{1,9}")
_HOLDUNTIL: Final = re.compile(rb"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
_SYNTAX: Final = Reply(501, "5.5.4", "Bad parameter syntax")


class Demands(msgspec.Struct, gc=False):
    """What MAIL demands, counted from the moment at which it is said. `by_mode` "": no time; the same of holds with
    `hold_s` -1 and `hold_until_s` 0.
    """

    requiretls: bool = False
    by_s: int = 0
    by_mode: str = ""
    hold_s: int = -1
    hold_until_s: float = 0.0

    def refusal(self, now_s: float, longest_s: float) -> Reply | None:
        """Why a server that keeps mail for `longest_s` cannot do it."""
        if self._release_s(now_s) - now_s > longest_s:
            return Reply(501, "5.5.4", f"A message is kept for {int(longest_s)} seconds at most")
        return None

    def terms(self, now_s: float) -> Terms:
        """As they are kept. A time for delivery begins with the release."""
        release_s = self._release_s(now_s)
        by_ms = int((max(now_s, release_s) + self.by_s) * 1000) if self.by_mode else 0
        return Terms(self.requiretls, by_ms, self.by_mode, int(release_s * 1000))

    def _release_s(self, now_s: float) -> float:
        return now_s + self.hold_s if self.hold_s >= 0 else self.hold_until_s


class MailParameters(msgspec.Struct, gc=False):
    """What MAIL said behind its path; `size_bytes` -1: not declared."""

    size_bytes: int = -1
    smtputf8: bool = False
    envid: bytes = b""
    ret: str = ""
    demands: Demands | None = None


class RcptParameters(msgspec.Struct, gc=False):
    """What RCPT said behind its path; `notify` 0: not given."""

    notify: int = 0
    orcpt: bytes = b""


def ehlo_lines(
    *,
    size_limit_bytes: int,
    starttls: bool,
    mechanisms: tuple[str, ...],
    offers: Collection[str] = (),
    hold_s: int = 0,
    now_s: float = 0.0,
) -> list[str]:
    """The keywords of an EHLO or LHLO reply, in a fixed order. `offers`: of what may be demanded by MAIL; `hold_s`: how
    long FUTURERELEASE may keep a message.
    """
    lines = ["PIPELINING", f"SIZE {size_limit_bytes}" if size_limit_bytes else "SIZE"]
    if starttls:
        lines.append("STARTTLS")
    if mechanisms:
        lines.append("AUTH " + " ".join(mechanisms))
    lines += ["ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8", "CHUNKING"]
    lines += [word for word in ("REQUIRETLS", "DELIVERBY") if word in offers]
    if "FUTURERELEASE" in offers:
        until = datetime.datetime.fromtimestamp(now_s + hold_s, datetime.UTC)
        lines.append(f"FUTURERELEASE {hold_s} {until:%Y-%m-%dT%H:%M:%SZ}")
    return lines


def decode_xtext(raw: bytes) -> bytes | None:
    """RFC 3461 §4: "+" and two upper-case hex digits for an octet; None where it is not xtext."""
    if not _XTEXT.fullmatch(raw):
        return None
    return _HEX.sub(lambda match: bytes([int(match[1], 16)]), raw)


def parse_mail_parameters(text: bytes, offers: Collection[str] = ()) -> MailParameters | Reply:
    """The parameters of MAIL, or the reply that refuses them: 501 for syntax or repetition, 555 for an unknown one.
    `offers`: those of REQUIRETLS, DELIVERBY and FUTURERELEASE that may be demanded.
    """
    out = MailParameters()
    try:
        items = split_parameters(text)
    except ValueError:
        return _SYNTAX
    if len({name for name, _ in items}) != len(items):
        return Reply(501, "5.5.4", "A parameter is given twice")
    for name, value in items:
        if name == "SIZE":
            if value is None or not value.isdigit() or len(value) > 20:
                return Reply(501, "5.5.4", "Bad SIZE value")
            out.size_bytes = int(value)
        elif name == "BODY":
            if value is None or value.upper() not in (b"7BIT", b"8BITMIME"):
                return Reply(501, "5.5.4", "Bad BODY value")
        elif name == "SMTPUTF8":
            if value is not None:
                return Reply(501, "5.5.4", "SMTPUTF8 takes no value")
            out.smtputf8 = True
        elif name == "RET":
            if value is None or value.upper() not in (b"FULL", b"HDRS"):
                return Reply(501, "5.5.4", "Bad RET value")
            out.ret = value.upper().decode()
        elif name == "ENVID":
            envid = decode_xtext(value or b"")
            if not envid or len(envid) > SMTP_ENVID_BYTES or not envid.isascii() or not envid.decode().isprintable():
                return Reply(501, "5.5.4", "Bad ENVID value")
            out.envid = envid
        elif name == "AUTH":  # RFC 4954 §5: whom a trusted relay names. Parsed, never believed
            if value is None or decode_xtext(value) is None:
                return Reply(501, "5.5.4", "Bad AUTH value")
        elif _DEMANDS.get(name) in offers:
            out.demands = out.demands or Demands()
            if not _demanded(out.demands, name, value):
                return Reply(501, "5.5.4", f"Bad {name} value")
        else:
            return Reply(555, "5.5.4", f"Unsupported parameter {name[:40]}")
    return out


_DEMANDS: Final = {  # parameter -> the keyword that offers it
    "REQUIRETLS": "REQUIRETLS",
    "BY": "DELIVERBY",
    "HOLDFOR": "FUTURERELEASE",
    "HOLDUNTIL": "FUTURERELEASE",
}


def _demanded(demands: Demands, name: str, value: bytes | None) -> bool:
    """Notes one demand; false where it is not well said."""
    if name == "REQUIRETLS":
        demands.requiretls = True
        return value is None
    if value is None:
        return False
    if name == "BY":
        found = _BY.fullmatch(value)
        if found is None:
            return False
        demands.by_s = int(found[1])
        demands.by_mode = (found[2] + found[3]).decode().upper()
        return demands.by_s > 0 or demands.by_mode[0] == "N"  # RFC 2852 §4: nothing can be returned before it came
    if demands.hold_s >= 0 or demands.hold_until_s:  # RFC 4865 §4: one of the two
        return False
    if name == "HOLDFOR":
        demands.hold_s = int(value) if _HOLDFOR.fullmatch(value) else -1
        return demands.hold_s >= 0
    if not _HOLDUNTIL.fullmatch(value):
        return False
    try:
        demands.hold_until_s = datetime.datetime.fromisoformat(value.decode().upper()).timestamp()
    except (ValueError, OverflowError):
        return False
    return demands.hold_until_s > 0


def parse_rcpt_parameters(text: bytes) -> RcptParameters | Reply:
    """The parameters of RCPT (RFC 3461 §4.1, §4.2), or the reply that refuses them."""
    out = RcptParameters()
    try:
        items = split_parameters(text)
    except ValueError:
        return _SYNTAX
    if len({name for name, _ in items}) != len(items):
        return Reply(501, "5.5.4", "A parameter is given twice")
    for name, value in items:
        if name == "NOTIFY":
            notify = _parse_notify(value or b"")
            if not notify:
                return Reply(501, "5.5.4", "Bad NOTIFY value")
            out.notify = notify
        elif name == "ORCPT":
            orcpt = _parse_orcpt(value or b"")
            if orcpt is None:
                return Reply(501, "5.5.4", "Bad ORCPT value")
            out.orcpt = orcpt
        else:
            return Reply(555, "5.5.4", f"Unsupported parameter {name[:40]}")
    return out


def _parse_notify(value: bytes) -> int:
    out = 0
    for word in value.upper().split(b","):
        bit = _NOTIFY.get(word, 0)
        if not bit or out & bit:
            return 0
        out |= bit
    return 0 if out & NOTIFY_NEVER and out != NOTIFY_NEVER else out


def _parse_orcpt(value: bytes) -> bytes | None:
    address_type, semicolon, raw = value.partition(b";")
    if not semicolon or not raw or len(value) > SMTP_ORCPT_BYTES or not _ADDRESS_TYPE.fullmatch(address_type):
        return None
    if address_type.lower() == b"utf-8":  # RFC 6533 §3: kept as it came, its own escaping included
        return b"utf-8;" + raw if _printable(raw) else None
    address = decode_xtext(raw)
    if address is None or not _printable(address):  # an octet below 32 could forge a line of a DSN
        return None
    return address_type.lower() + b";" + address


def _printable(raw: bytes) -> bool:
    try:
        return raw.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False
