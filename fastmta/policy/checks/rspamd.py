"""rspamd, asked over HTTP at the end of each message (POST /checkv2): its action, fields and subject are carried out.

`reject` refuses, `soft reject` and `greylist` ask for another try, `add header` and `rewrite subject` file into Junk.
Clients of ours are asked about too: rspamd knows by IP and User what it may spare them.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Final

import msgspec

from fastmta.authentication.message import Field, HeaderTooLong
from fastmta.config.schema import Config
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import MESSAGE_CUTS
from fastmta.model.reply import Reply
from fastmta.model.services import screened
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context, Message, Parts
from fastmta.policy.checks.authentication import read_header
from fastmta.policy.scanner import ScannerTrouble, ask, by_default, cuts_of, pieces, safe

_JUNK: Final = frozenset({"add header", "rewrite subject"})
_LATER: Final = frozenset({"soft reject", "greylist"})
_TEXT_BYTES: Final = 900  # of one field's value


class Answer(msgspec.Struct):
    """What is read of /checkv2."""

    action: str
    score: float = 0.0
    required_score: float = 0.0
    subject: str = ""
    messages: dict[str, Any] = {}
    milter: dict[str, Any] = {}


def build(config: Config, parts: Parts) -> Sequence[Check]:
    return [Rspamd(config, parts)] if config.rspamd else []


class Rspamd(Check):
    """One daemon."""

    name = "rspamd"
    has_effects = True
    services = (*screened("smtp", "lmtp"), "pickup")

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._log = parts.log

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        return PASS if context.message is None else self._ask(context, context.message)

    async def _ask(self, context: Context, message: Message) -> Verdict:
        config = self._config
        try:
            fields = await read_header(message)
            raw = await ask(config.rspamd, _request(context, message), config.rspamd_timeout)
            return verdict_of(parse_answer(raw), fields)
        except HeaderTooLong:
            return Verdict(Action.REJECT, Reply(552, "5.3.4", "The header is too long"), reason="header too long")
        except ScannerTrouble as trouble:
            self._log.warning("policy.scanner_failed", check=self.name, address=config.rspamd, reason=str(trouble))
            return by_default(config.rspamd_default_action, str(trouble))


async def _request(context: Context, message: Message) -> AsyncIterator[bytes]:
    lines = [
        "POST /checkv2 HTTP/1.1",
        "Host: rspamd",
        "Connection: close",
        f"Content-Length: {message.size}",
        f"IP: {context.client_ip}",
        f"Helo: {safe(context.helo)}",
        f"Hostname: {safe(context.client_name)}",
        f"From: {safe((context.sender or b'').decode('utf-8', 'replace'))}",
        f"Queue-Id: {queue_id_text(context.queue_id)}",
    ]
    lines += [f"Rcpt: {safe(recipient.decode('utf-8', 'replace'))}" for recipient in context.recipients]
    if context.login:
        lines.append(f"User: {safe(context.login)}")
    yield "\r\n".join([*lines, "", ""]).encode()
    async for piece in pieces(message):
        yield piece


def parse_answer(raw: bytes) -> Answer:
    """The JSON of a reply of HTTP that ended with its connection. Raises ScannerTrouble."""
    head, _, body = raw.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.") or head[8:13] != b" 200 ":
        raise ScannerTrouble(f"it answered {head[:60].partition(chr(13).encode())[0]!r}")
    try:
        return msgspec.json.decode(body, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ScannerTrouble(f"no answer of /checkv2: {error}") from None


def verdict_of(answer: Answer, came: tuple[Field, ...]) -> Verdict:
    """What an answer asks for, of a message with these fields."""
    action = answer.action.lower()
    reason = f"{action}: {answer.score:.2f} of {answer.required_score:.2f}"
    said = answer.messages.get("smtp_message")
    text = _one_line(said) if isinstance(said, str) else ""
    if action == "reject":
        return Verdict(Action.REJECT, Reply(550, "5.7.1", text or "Spam message rejected"), reason=reason)
    if action in _LATER:
        return Verdict(Action.DEFER, Reply(451, "4.7.1", text or "Try again later"), reason=reason)
    if action == "discard":
        return Verdict(Action.DISCARD, reason=reason)
    added, removed = answer.milter.get("add_headers"), answer.milter.get("remove_headers")
    names = {name.lower().encode() for name in removed} if isinstance(removed, dict) else set()
    fields = list(_added(added)) if isinstance(added, dict) else []
    if action in _JUNK:
        fields.append(b"X-Spam: Yes\r\n")
    subject = _one_line(answer.subject)
    if action == "rewrite subject" and subject:
        names.add(b"subject")
        fields.append(_field("Subject", subject))
    cuts = cuts_of(came, frozenset(names), b"x-spam")
    if len(cuts) > MESSAGE_CUTS:
        return Verdict(Action.DEFER, Reply(451, "4.3.0", "The message cannot be taken now"), reason="too many cuts")
    kept = Action.HOLD if action == "quarantine" else Action.QUARANTINE if action in _JUNK else Action.NONE
    return Verdict(kept, fields=tuple(fields), cuts=cuts, reason=reason)


def _added(headers: dict[str, Any]) -> Sequence[bytes]:
    """`{"X-A": "b"}`, `{"X-A": {"value": "b", "order": 1}}`, and lists of both."""
    out = []
    for name, given in headers.items():
        for each in given if isinstance(given, list) else [given]:
            value = each.get("value") if isinstance(each, dict) else each
            if isinstance(value, str) and name.isascii() and name.replace("-", "").replace("_", "").isalnum():
                out.append(_field(name, value))
    return out


def _field(name: str, value: str) -> bytes:
    return f"{name}: {_one_line(value)}\r\n".encode("utf-8", "replace")


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_TEXT_BYTES]
