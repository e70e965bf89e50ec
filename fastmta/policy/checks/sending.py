"""What a login may send: quotas of messages and recipients by hour and day, for the login and for its domain; and From.

Quotas are asked at DATA, once the recipients are known, and count in a file that all workers map, so they are exact and
kept over restarts. A window begins with the first message in it. What is over is 450, and may be tried again later;
what a try over the limit asks for counts too, so the window has to end first.
"""

from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fastmta.authentication.authors import author_addresses
from fastmta.authentication.message import HeaderTooLong
from fastmta.config.schema import Config
from fastmta.model.reply import Reply
from fastmta.model.services import screened
from fastmta.model.stages import Stage
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context, Message, Parts
from fastmta.policy.checks.authentication import read_header
from fastmta.policy.mapped import MappedTable
from fastmta.runtime.rates import Rate

FILE: Final = "quotas.table"
_HOUR_S, _DAY_S = 3600, 86_400


class Quota(NamedTuple):
    """One limit: `of_domain` or of the login, of `recipients` or messages, in `window_s`."""

    key: str
    of_domain: bool
    recipients: bool
    window_s: int


QUOTAS: Final = (
    Quota("login_messages_per_hour", False, False, _HOUR_S),
    Quota("login_messages_per_day", False, False, _DAY_S),
    Quota("login_recipients_per_hour", False, True, _HOUR_S),
    Quota("login_recipients_per_day", False, True, _DAY_S),
    Quota("login_domain_messages_per_hour", True, False, _HOUR_S),
    Quota("login_domain_messages_per_day", True, False, _DAY_S),
    Quota("login_domain_recipients_per_hour", True, True, _HOUR_S),
    Quota("login_domain_recipients_per_day", True, True, _DAY_S),
)


def build(config: Config, parts: Parts) -> Sequence[Check]:
    checks: list[Check] = []
    limits = [(number, quota, getattr(config, quota.key)) for number, quota in enumerate(QUOTAS, 1)]
    limits = [each for each in limits if each[2]]
    if limits:
        checks.append(Quotas(config, parts, limits))
    if config.smtpd_reject_from_login_mismatch:
        checks.append(OwnFrom(parts))
    return checks


class Quotas(Check):
    """The quotas, at DATA."""

    name = "sending_quota"
    stage = Stage.DATA
    reads = Stage.DATA
    has_effects = True
    services = screened("smtp")

    def __init__(self, config: Config, parts: Parts, limits: list[tuple[int, Quota, int]]) -> None:
        self._parts = parts
        self._directory = Path(config.data_directory)
        self._limits = limits
        self._table: MappedTable | None = None  # opened by whoever asks first
        self._rates: list[Rate] = []

    def check(self, context: Context) -> Verdict:
        if not context.login:
            return PASS
        if self._table is None:
            self._table = MappedTable(self._directory, FILE)
            now = self._parts.clock.now
            self._rates = [Rate(self._table.table, limit, quota.window_s, now) for _, quota, limit in self._limits]
        domain = context.login.rpartition("@")[2]
        over = ""
        for rate, (number, quota, _) in zip(self._rates, self._limits, strict=True):
            subject = domain if quota.of_domain else context.login
            n = len(context.recipients) if quota.recipients else 1
            key = self._table.key(quota.key, subject)
            if rate.take((number, *key), n) and not over:
                over = quota.key
        if not over:
            return PASS
        text = f"Sending quota exceeded ({over}): try again later"
        return Verdict(Action.DEFER, Reply(450, "4.7.1", text), reason=f"{context.login} is over {over}")


class OwnFrom(Check):
    """Each address in From has to be one that the login may send as."""

    name = "from_login_mismatch"
    services = screened("smtp")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        if not context.login or context.message is None:
            return PASS
        return self._look(context.login, context.message)

    async def _look(self, login: str, message: Message) -> Verdict:
        try:
            found = author_addresses(await read_header(message))
        except HeaderTooLong:
            return Verdict(Action.REJECT, Reply(552, "5.3.4", "The header is too long"), reason="header too long")
        for address in found:
            if not self._parts.directory.sender_allowed(login, address.encode("utf-8", "surrogateescape")):
                shown = "".join(c if 32 <= ord(c) < 127 else "?" for c in address[:320])
                text = f"<{shown}>: From address rejected: not owned by user {login}"
                return Verdict(Action.REJECT, Reply(553, "5.7.1", text), reason=f"From is not {login}'s")
        return PASS
