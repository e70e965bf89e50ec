"""What a trace tells of other servers: how long they took, whom they refused, when they were away, what was too much.

    a recipient that a server refused for good      is refused again, with the same reply
    a recipient that a server put off               is put off until the instant when it was put off last
    a server that was called in vain                is away from the first such call to the last, with none that
                                                    succeeded between them
    a server that said "too many messages"          takes, a minute, as many as it took in minutes in which it said so
    else                                            takes all, each in the time that it mostly took

"Server" is a host by its name. What was said of a recipient holds for all hosts that its next hop had.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any, Final

import msgspec

from fastmta.model.reply import Reply
from fastmta.queue.replies import ReplyClasses
from fastmta.simulation.envelopes import Letter, instant
from fastmta.simulation.server import Answer, Session, Site

_RELAY: Final = re.compile(r"([^\[\]]*)\[([^\[\]]*)\](?::(\d+))?$")
_CALLED: Final = re.compile(r"(?:connect to|lost connection with|conversation timed out with) ([^\[\]\s]*)\[")
_REPLY: Final = re.compile(r"([245]\d\d)(?: ([245]\.\d{1,3}\.\d{1,3}))? ?(.*)", re.DOTALL)
_SHARE: Final = 0.05  # of a server's time that goes over the wire, four times there and back
_RATE_LIMITED: Final = "rate-limited"
_LASTS_S: Final = 5.0  # of what was said at an instant: a repeated attempt comes a little later than the real one did


class Verdict(msgspec.Struct):
    """What a next hop said to a recipient; `until` is when it last put it off, and a little more."""

    reply: Reply
    until: float = 0.0


class Host(msgspec.Struct):
    """What is known of a server. Instants are of the epoch."""

    name: str
    ip: str = ""
    took: list[float] = []
    taken: list[float] = []
    vain: list[tuple[float, str]] = []
    too_much: list[tuple[float, Reply]] = []
    hops: set[str] = set()

    def away(self) -> list[tuple[float, float, str]]:
        """(from, to, why) of the times in which it could not be called."""
        out: list[tuple[float, float, str]] = []
        taken = sorted(self.taken)
        behind = 0
        for at, why in sorted(self.vain):
            while behind < len(taken) and taken[behind] < at:
                behind += 1
            answered = taken[behind - 1] if behind else float("-inf")
            back = min(at + _LASTS_S, taken[behind] if behind < len(taken) else float("inf"))
            if out and answered < out[-1][0]:
                out[-1] = (out[-1][0], back, why)
            else:
                out.append((at, back, why))
        return out

    def a_minute(self) -> int:
        """Messages that it takes in one; 0: any number."""
        if not self.too_much:
            return 0
        minutes = {int(at // 60) for at, _ in self.too_much}
        return max(1, round(median(sum(int(at // 60) == each for at in self.taken) for each in minutes)))


class Past:
    """All that is known of the network. `learn` from messages, in any order."""

    def __init__(self, classes: ReplyClasses) -> None:
        self.classes = classes
        self.hosts: dict[str, Host] = {}
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.hosts_of: dict[str, dict[str, None]] = defaultdict(dict)  # next hop -> host names

    def learn(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            for event in letter.events:
                self._learn(event)

    def _learn(self, event: dict[str, Any]) -> None:
        happened = str(event.get("event", ""))
        hop, text = str(event.get("next_hop", "")), str(event.get("reply", ""))
        if not hop.startswith(("smtp:", "lmtp:")) or not happened.startswith("delivery."):
            return
        try:
            at = instant(event.get("at"))
        except ValueError:
            return
        relay = _RELAY.match(str(event.get("relay", "")))
        called = _CALLED.search(text)
        if called is not None and happened != "delivery.delivered":
            if "temporarily suspended" not in text:
                self._host(hop, called[1]).vain.append((at, text))
            return
        if relay is None:
            return
        host = self._host(hop, relay[1] or relay[2])
        host.ip = relay[2]
        if happened == "delivery.delivered":
            host.taken.append(at)
            if isinstance(event.get("took"), int | float):
                host.took.append(float(event["took"]))
            return
        found = _REPLY.match(text)
        if found is None or happened not in ("delivery.deferred", "delivery.bounced"):
            return
        reply = Reply(int(found[1]), found[2] or "", found[3])
        if reply.is_temporary and self.classes.of_reply(reply) == _RATE_LIMITED:
            host.too_much.append((at, reply))
            return
        key = hop, str(event.get("recipient", "")).lower()
        known = self.verdicts.get(key)
        if reply.is_permanent or known is None or (not known.reply.is_permanent and known.until < at + _LASTS_S):
            self.verdicts[key] = Verdict(reply, at + _LASTS_S)

    def _host(self, hop: str, name: str) -> Host:
        name = name.lower()
        self.hosts_of[hop][name] = None
        host = self.hosts.setdefault(name, Host(name))
        host.hops.add(hop)
        return host


class PastSite(Site):
    """A server that does what it did then. `now` gives the epoch's seconds, `past` is where verdicts stand."""

    def __init__(self, name: str, host: Host | None, past: Past, now: Any) -> None:
        took_s = median(host.took) if host is not None and host.took else 0.2
        super().__init__(name, latency_s=min(0.5, took_s * _SHARE))
        self._think_s = max(0.0, took_s - 14 * self.latency_s)
        self._past = past
        self._now = now
        self._hops = sorted(host.hops) if host is not None else []
        self._away = host.away() if host is not None else []
        self._a_minute = host.a_minute() if host is not None else 0
        self._too_much = host.too_much[0][1] if host is not None and host.too_much else None
        self._minute = self._in_minute = 0

    def admit(self, now: float) -> float:
        at = self._now()
        for begin, end, why in self._away:
            if begin <= at < end:
                if "refused" in why:
                    raise ConnectionRefusedError(111, "Connection refused")
                raise TimeoutError
        return self.latency_s

    def mail(self, session: Session) -> Answer:
        minute = int(self._now() // 60)
        if minute != self._minute:
            self._minute, self._in_minute = minute, 0
        if self._a_minute and self._in_minute >= self._a_minute and self._too_much is not None:
            return _answer(self._too_much)
        self._in_minute += 1
        return super().mail(session)

    def rcpt(self, session: Session, path: bytes) -> Answer:
        address = path.decode("utf-8", "backslashreplace").lower()
        for hop in self._hops:
            verdict = self._past.verdicts.get((hop, address))
            if verdict is not None and (verdict.reply.is_permanent or self._now() <= verdict.until):
                return _answer(verdict.reply)
        return super().rcpt(session, path)

    def message(self, session: Session) -> Answer:
        return super().message(session)._replace(after_s=self._think_s)


def _answer(reply: Reply) -> Answer:
    text = " ".join(part for part in (str(reply.code), reply.enhanced, reply.text) if part)
    return Answer(" ".join(text.split())[:500].encode("utf-8", "replace") + b"\r\n")
