"""Which checks one service asks at which stage, built from the configuration.

A stage's list starts once what its checks read is known. It is awaited there too, or at RCPT where Postfix's
smtpd_delay_reject (on by default) says so of connect, helo and mail: those run beside the dialogue.

A further check is a file with `build(config, parts)`, and its name in CHECKS.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Final

import msgspec

from fastmta.config.schema import Config
from fastmta.model.stages import AHEAD, Stage, bit
from fastmta.policy.check import Build, Check, Parts

CHECKS: Final = (  # files of policy/checks, in the order in which a stage asks them
    "restrictions",
    "greylisting",
    "sending",
    "contents",
    "header_rewriting",
    "authentication",
    "clamav",
    "rspamd",
    "spamassassin",
    "milters",
    "site",
    "signing",  # of what all others have made of the message
)
_BUILDERS: Final[tuple[Build, ...]] = tuple(import_module(f"fastmta.policy.checks.{name}").build for name in CHECKS)
_DELAYED: Final = frozenset({Stage.CONNECT, Stage.HELO, Stage.MAIL})


class StageList(msgspec.Struct, frozen=True):
    """The checks of one stage, in order."""

    stage: Stage
    checks: tuple[Check, ...]
    starts: Stage
    due: Stage

    @property
    def bits(self) -> int:
        return bit(self.starts) | bit(self.due)


class Plan:
    """The lists of one service. The same object serves all sessions that began with it."""

    __slots__ = ("_bits", "ahead", "lists")

    def __init__(self, checks: Iterable[Check] = (), *, delay_reject: bool = True) -> None:
        by_stage: dict[Stage, list[Check]] = {}
        checks = tuple(checks)
        self.ahead: tuple[Check, ...] = tuple(check for check in checks if check.looks_ahead)  # those told at MAIL
        for check in checks:
            by_stage.setdefault(check.stage, []).append(check)
        self.lists: tuple[StageList, ...] = tuple(
            _list(stage, by_stage[stage], delay_reject) for stage in sorted(by_stage)
        )
        self._bits = (self._asked(trusted=False), self._asked(trusted=True))

    def stages(self, *, trusted: bool) -> int:
        """The bits of the stages at which a client is asked about."""
        return self._bits[trusted]

    def _asked(self, *, trusted: bool) -> int:
        bits = 0
        for each in self.lists:
            if not trusted or any(check.known_too for check in each.checks):
                bits |= each.bits
        if not trusted and self.ahead:
            bits |= AHEAD
        return bits


def _list(stage: Stage, checks: list[Check], delay_reject: bool) -> StageList:
    starts = max(check.starts for check in checks)
    due = Stage.RCPT if delay_reject and stage in _DELAYED else stage
    return StageList(stage, tuple(checks), starts, max(starts, due))


def plan_for(service: str, config: Config, parts: Parts, builders: Iterable[Build] = _BUILDERS) -> Plan:
    """The plan of one service."""
    found = [check for build in builders for check in build(config, parts) if service in check.services]
    return Plan(found, delay_reject=config.smtpd_delay_reject)
