"""The site's own policy module as checks: one a stage, after the server's own."""

from collections.abc import Awaitable, Sequence
from typing import Final

from fastmta.authentication.message import HeaderTooLong
from fastmta.config.schema import Config
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import SITE_POLICY_SHOWN_BYTES
from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy import api
from fastmta.policy.check import Check, Context, Parts
from fastmta.policy.site import NoAnswer, SitePolicy

STAGES: Final = {
    Stage.CONNECT: "connect",
    Stage.HELO: "helo",
    Stage.MAIL: "mail",
    Stage.RCPT: "rcpt",
    Stage.DATA: "data",
    Stage.END: "message",
}
_ACTIONS: Final = {
    "none": Action.NONE,
    "reject": Action.REJECT,
    "defer": Action.DEFER,
    "discard": Action.DISCARD,
    "hold": Action.HOLD,
    "quarantine": Action.QUARANTINE,
    "redirect": Action.REDIRECT,
}
_FAILED: Final = Reply(451, "4.3.5", "Server configuration problem")
_REASON_CHARACTERS: Final = 300


def build(config: Config, parts: Parts) -> Sequence[Check]:
    if not config.policy_module:
        return []
    return [Site(parts.site_policy, stage, parts) for stage in STAGES]


class Site(Check):
    """The function of one stage."""

    has_effects = True

    def __init__(self, module: SitePolicy, stage: Stage, parts: Parts) -> None:
        self.name = f"policy_module.{STAGES[stage]}"
        self.stage = self.reads = stage
        self.late = Verdict(Action.DEFER, _FAILED, is_late=True, reason="no answer in time")
        self._module = module
        self._parts = parts

    def check(self, context: Context) -> Awaitable[Verdict]:
        return self._ask(context)

    async def _ask(self, context: Context) -> Verdict:
        shown = await seen(context, self.stage)
        try:
            said = await self._module.ask(shown)
            return PASS if said is None else translated(said)
        except (NoAnswer, ValueError, HeaderTooLong) as error:
            text = str(error)
            self._parts.log.error(
                "policy.module_failed", stage=shown.stage, session=context.session, client=context.client_ip, cause=text
            )
            reason = (text.splitlines() or [""])[-1][:_REASON_CHARACTERS]
            return Verdict(Action.DEFER, _FAILED, is_late=True, reason=reason)


async def seen(context: Context, stage: Stage) -> api.Context:
    """A check's context as the module sees it."""
    header = body = b""
    if context.message is not None:
        raw = await context.message.read(0, 2 * SITE_POLICY_SHOWN_BYTES)
        if raw.startswith(b"\r\n"):
            body = raw[2:]
        else:
            head, found, body = raw.partition(b"\r\n\r\n")
            header = head + b"\r\n" if found else raw
    return api.Context(
        stage=STAGES[stage],
        service=context.service,
        session=context.session,
        client_ip=context.client_ip,
        client_name=context.client_name,
        trusted=context.trusted,
        tls=context.tls,
        helo=context.helo,
        login=context.login,
        sender=_text(context.sender or b""),
        recipient=_text(context.recipient),
        recipients=tuple(map(_text, context.recipients)),
        queue_id=queue_id_text(context.queue_id) if context.queue_id else "",
        size=context.size_bytes or (context.message.size if context.message is not None else 0),
        header=header[:SITE_POLICY_SHOWN_BYTES],
        body=body[:SITE_POLICY_SHOWN_BYTES],
    )


def translated(said: api.Verdict) -> Verdict:
    """The module's verdict as the server's. ValueError: it makes no sense."""
    action = _ACTIONS.get(said.action)
    if action is None:
        raise ValueError(f"there is no action {said.action!r}")
    reply = None
    if action in (Action.REJECT, Action.DEFER):
        first = said.code // 100
        if not (400 <= said.code <= 599) or first != (5 if action is Action.REJECT else 4):
            raise ValueError(f"{said.code} is no code of {said.action}")
        enhanced = said.enhanced if said.enhanced[:1] == str(first) else f"{first}.7.1"
        reply = Reply(said.code, enhanced, _line(said.text) or "Rejected by policy")
    if action is Action.REDIRECT and "@" not in said.target:
        raise ValueError(f"{said.target!r} is no address to redirect to")
    fields = tuple(_field(name, value) for name, value in said.fields)
    return Verdict(
        action,
        reply,
        fields=fields,
        target=said.target.encode("utf-8", "surrogateescape"),
        reason=_line(said.reason)[:_REASON_CHARACTERS],
    )


def _field(name: str, value: str) -> bytes:
    if not name or not name.isascii() or any(not 33 <= ord(c) <= 126 or c == ":" for c in name):
        raise ValueError(f"{name!r} is no name of a header field")
    return f"{name}: {_line(value)}\r\n".encode("utf-8", "replace")


def _line(text: str) -> str:
    return "".join(c if " " <= c != "\x7f" else " " for c in text[:900])


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
