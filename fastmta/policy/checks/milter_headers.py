"""milter_header_checks: tables that look at the fields which milters have made, with the actions of all such tables."""

from collections.abc import Sequence
from typing import Final

from fastmta.directory.maps import TableSet
from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import CHECK_COPIES
from fastmta.model.reply import Reply
from fastmta.model.verdict import Action, Verdict
from fastmta.policy.contents import field_of, parse_action, rejection
from fastmta.runtime.clock import Clock

_REFRESH_S: Final = 1.0
_KEY: Final = "milter_header_checks"
_UNREADABLE: Final = Verdict(
    Action.DEFER, Reply(451, "4.3.0", "Temporary lookup failure"), reason=f"{_KEY}: a table cannot be read"
)
_MISTAKEN: Final = Reply(451, "4.3.5", "Server configuration error")


class MilterHeaders:
    """The tables of one configuration."""

    def __init__(self, names: Sequence[str], clock: Clock) -> None:
        self._tables = TableSet(names)
        self._clock = clock
        self._looked_at = clock.monotonic()

    def sift(self, fields: Sequence[bytes]) -> Verdict:
        """What becomes of a message with these new fields, each whole with its CRLF; and the fields that are left."""
        now = self._clock.monotonic()
        if now - self._looked_at >= _REFRESH_S:
            self._looked_at = now
            self._tables.refresh()
        kept: list[bytes] = []
        copies: dict[bytes, None] = {}
        hold, target, reason, through = False, b"", "", ""
        for number, raw in enumerate(fields):
            shown = raw.removesuffix(b"\r\n").replace(b"\r\n", b"\n").decode("utf-8", "surrogateescape")
            try:
                value = self._tables.get(shown)
                word, text = parse_action(value) if value is not None else ("DUNNO", "")
            except TemporaryFailure:
                return _UNREADABLE
            except ValueError as error:
                return Verdict(Action.DEFER, _MISTAKEN, reason=f"{_KEY}: {error}")
            what = f"{_KEY}: {text or shown[:200].encode('utf-8', 'replace').decode('utf-8')}"
            address = text.encode("utf-8", "surrogateescape")
            match word:
                case "REJECT":
                    return Verdict(Action.REJECT, rejection(text), reason=what)
                case "DISCARD":
                    return Verdict(Action.DISCARD, reason=what)
                case "PASS":
                    kept += fields[number:]
                    break
                case "HOLD":
                    hold, reason = True, reason or what
                case "FILTER":
                    through, reason = text, reason or what
                case "REDIRECT":
                    target, reason = address, reason or what
                case "BCC" if len(copies) < CHECK_COPIES:
                    copies[address] = None
                case "WARN" | "INFO":
                    reason = reason or what
                case "PREPEND" | "REPLACE":
                    kept.append(field_of(text))
            if word not in ("IGNORE", "STRIP", "REPLACE"):
                kept.append(raw)
        action = Action.HOLD if hold else Action.REDIRECT if target else Action.NONE
        return Verdict(
            action,
            fields=tuple(kept),
            copies=tuple(copies),
            target=target,
            through=through,
            reason=reason,
        )
