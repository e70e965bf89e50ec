"""Traffic rules ([[shaping]]): how many connections and messages hops get, counted together over all workers.

What is counted lies in the table that all workers share (_limits), so a rule holds however its hops are spread. A rule
that names domains is known before a hop is connected to; one that names exchangers when an address has been found.
Nothing is waited for here: whoever may not go on stands in the rule's ring, and is pumped when its turn comes.

Invariants: a place that a connection holds is given back with the connection (`Grant.release`), or by the supervisor
when its process dies; a message is begun only when each rule has counted it; who came first to a ring goes first, and
who was granted something stands behind all others, so nobody starves beside a hop with endless mail.
"""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from fastmta._limits import REFUSED, Table
from fastmta.config.shaping import ShapingConfig, Source, parse_source
from fastmta.dns.mx import Address
from fastmta.model.limited import SHAPED_CONNECTIONS, SHAPED_HOUR, SHAPED_SECOND
from fastmta.runtime.rates import Key, Rate

if TYPE_CHECKING:
    from fastmta.delivery.destination import Destination
    from fastmta.runtime.clock import Clock

_HOUR_S: Final = 3600
_PIECE_S: Final = 60  # the longest piece of an hour whose budget is given out at once, but for less than 60 messages


def spread(messages_per_hour: int) -> tuple[int, int]:
    """(messages, seconds): the small budget that an hour's is cut into, never more than it in sum."""
    if messages_per_hour < _HOUR_S // _PIECE_S:
        return 1, -(-_HOUR_S // messages_per_hour)

    def lost(seconds: int) -> float:
        exact = messages_per_hour * seconds / _HOUR_S
        return (exact - int(exact)) / exact

    seconds = min(
        range(1, _PIECE_S + 1), key=lambda each: (lost(each) > 0.01, lost(each) if lost(each) > 0.01 else each)
    )
    return messages_per_hour * seconds // _HOUR_S, seconds


class Ring:
    """Who waits for something of a rule, the one that waits longest first. `granted` counts.

    `is_short`: nothing was left when it was last asked for.
    """

    __slots__ = ("granted", "is_short", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Destination, None] = {}
        self.granted = 0
        self.is_short = False

    def admits(self, hop: "Destination") -> bool:
        """Whether a hop may ask now; it waits else."""
        if not self.waiting or hop.has_turn or next(iter(self.waiting)) is hop:
            return True
        self.waiting.setdefault(hop)
        return False

    def refused(self, hop: "Destination") -> None:
        self.is_short = True
        self.waiting.setdefault(hop)

    def took(self, hop: "Destination") -> None:
        """It has got something, and its turn is over."""
        self.granted += 1
        self.waiting.pop(hop, None)

    def serve(self) -> None:
        """Pumps those who wait, one after the other, until nothing is left.

        Who cannot use its turn, for want of something else, keeps its place: it is tried first again.
        """
        for hop in list(self.waiting):
            if hop not in self.waiting:
                continue
            self.is_short, before = False, self.granted
            hop.has_turn = True
            try:
                hop.pump()
            finally:
                hop.has_turn = False
            if self.is_short:
                return
            if self.granted == before and not hop.wants_to_send:
                self.waiting.pop(hop, None)


class Rule:
    """One rule of the configuration, as one worker knows it."""

    __slots__ = (
        "_credit",
        "_hour",
        "_monotonic",
        "_number",
        "_second",
        "_table",
        "config",
        "hops",
        "places",
        "rates",
        "sources",
    )

    def __init__(self, config: ShapingConfig, table: Table, monotonic: Callable[[], float]) -> None:
        self.config = config
        self._table = table
        self._monotonic = monotonic
        self._number = _hash(config.counted)
        most, window_s = spread(config.messages_per_hour) if config.messages_per_hour else (0, 0)
        self._hour = Rate(table, most, window_s, monotonic)
        self._second = Rate(table, config.messages_per_second, 1, monotonic)
        self.sources = tuple(parse_source(text) for text in config.source_addresses)
        self._credit = [0] * len(self.sources)
        self.places, self.rates = Ring(), Ring()
        self.hops: dict[Destination, None] = {}  # that have connections of it

    def names(self, next_hop: str) -> bool:
        """Whether the rule names a next hop: "domain", "[host]:port" or "domain:port"."""
        name = next_hop.lower()
        bare = name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() else name
        return any(_fits(bare.strip("[]"), pattern) or name == pattern for pattern in self._domains)

    @property
    def _domains(self) -> Iterable[str]:
        return (pattern.lower() for pattern in self.config.domain)

    def names_host(self, host: str) -> bool:
        """Whether the rule names a host that mail goes to."""
        return any(_fits(host.lower().rstrip("."), pattern.lower()) for pattern in self.config.mx)

    def part(self, hop: bytes, source: Source | None) -> int:
        """What of the rule is counted for itself."""
        if self.config.per == "domain":
            return _hash(hop.decode("utf-8", "replace"))
        return _hash(source.ip) if self.config.per == "source" and source is not None else 0

    def place(self, part: int) -> int:
        """A place of the rule's connections, REFUSED where there is none."""
        return self._table.hold(SHAPED_CONNECTIONS, self._number, part, self.config.concurrency, self._now())

    def release(self, place: int) -> None:
        self._table.release(place, self._now())

    def take(self, part: int) -> str:
        """Counts a message; "" where it may be sent, else why not."""
        return self.lacks(part) or self._asked(part, Rate.take)

    def lacks(self, part: int) -> str:
        """Why no message may be sent, "" where one may; counts none: what others refuse costs this rule nothing."""
        return self._asked(part, Rate.lacks)

    def _asked(self, part: int, ask: Callable[[Rate, Key], int]) -> str:
        config = self.config
        wait_s = ask(self._hour, (SHAPED_HOUR, self._number, part))
        if wait_s:
            return f"rule {config.title}: {config.messages_per_hour} messages an hour; the next in {wait_s} s"
        if ask(self._second, (SHAPED_SECOND, self._number, part)):
            return f"rule {config.title}: {config.messages_per_second} messages a second"
        return ""

    def sources_for(self, ip: str) -> list[Source]:
        """Our addresses of an address' family, whose turn it is first (smooth weighted turns)."""
        version = 6 if ":" in ip else 4
        usable = [n for n, source in enumerate(self.sources) if ip_address(source.ip).version == version]
        total = sum(self.sources[n].weight for n in usable)
        for n in usable:
            self._credit[n] += self.sources[n].weight
        usable.sort(key=lambda n: -self._credit[n])
        if usable:
            self._credit[usable[0]] -= total
        return [self.sources[n] for n in usable]

    def _now(self) -> int:
        return int(self._monotonic())


class Grant:
    """What a connection holds of its rules: a place of each, and our address that it comes from."""

    __slots__ = ("held", "hop", "source")

    def __init__(self, hop: "Destination") -> None:
        self.hop = hop
        self.held: dict[Rule, tuple[int, int]] = {}  # (place, part)
        self.source: Source | None = None

    def release(self) -> None:
        """Gives the places back; whoever waits for one is pumped."""
        held, self.held = self.held, {}
        for rule, (place, _) in held.items():
            rule.release(place)
            if rule.places.waiting:
                self.hop.service.loop.call_soon(rule.places.serve)

    def take_back(self, rules: Iterable[Rule]) -> None:
        """Gives back what was held for a moment, in which nobody can have missed it."""
        for rule in rules:
            place, _ = self.held.pop(rule, (REFUSED, 0))
            rule.release(place)


class Shaper:
    """The rules of one hop. `reason`: why it waits, "" where it does not."""

    __slots__ = ("_hop", "_rules", "_shaping", "reason")

    def __init__(self, shaping: "Shaping", hop: "Destination", rules: list[Rule]) -> None:
        self._shaping = shaping
        self._hop = hop
        self._rules = rules
        self.reason = ""

    @property
    def titles(self) -> list[str]:
        return [rule.config.title for rule in self._rules]

    @property
    def recipient_limit(self) -> int:
        """Of one transaction; 0: none of these rules'."""
        return min(
            (rule.config.recipients_per_message for rule in self._rules if rule.config.recipients_per_message),
            default=0,
        )

    @property
    def messages_per_connection(self) -> int:
        """0: none of these rules'."""
        return min(
            (rule.config.messages_per_connection for rule in self._rules if rule.config.messages_per_connection),
            default=0,
        )

    def may_connect(self) -> Grant | None:
        """A grant for one connection and its first message, by the rules that are known without its address."""
        grant = Grant(self._hop)
        rules = [rule for rule in self._rules if rule.config.per != "source"]
        if all(self._place(grant, rule, None) for rule in rules) and self._grant(grant, rules):
            self._hop.has_turn = False
            return grant
        grant.take_back(rules)
        return None

    def may_dial(self, grant: Grant, address: Address) -> bool:
        """The same for one address: rules that name its host, and those that count by our address."""
        for rule in self._shaping.rules:
            if rule not in self._rules and rule.names_host(address.host):
                self._rules.append(rule)
        if grant.source is not None and (":" in grant.source.ip) != (":" in address.ip):
            grant.take_back([rule for rule in grant.held if rule.config.per == "source"])
            grant.source = None
        rules = [rule for rule in self._rules if rule not in grant.held]
        if self._places(grant, rules, address) and self._grant(grant, rules):
            return True
        grant.take_back(rules)
        return False

    def _places(self, grant: Grant, rules: list[Rule], address: Address) -> bool:
        """Holds the places of rules. The first that has addresses of ours says which one; where none has one of the
        family, it is the system's, which counts for itself too.
        """
        for rule in self._rules:
            choice: list[Source | None] = [grant.source]
            if grant.source is None and address.port:
                choice = [*rule.sources_for(address.ip)] or choice
            if rule in rules:
                most = None if rule.config.per == "source" else 1
                fitting = next((n for n, each in enumerate(choice[:most]) if self._place(grant, rule, each)), -1)
                if fitting < 0:
                    return False
                choice = choice[fitting:]
            grant.source = choice[0]
        return True

    def may_begin(self, grant: Grant | None) -> bool:
        """Whether a connection that is there may be given another message."""
        held = grant.held if grant is not None else {}
        for rule, (_, part) in held.items():
            if not self._has_room(rule, part):
                return False
        if grant is not None and not self._count(grant, held):
            return False
        self._hop.has_turn = False
        return True

    @property
    def others_wait(self) -> bool:
        """Whether somebody waits for a place that a connection at rest would hold."""
        return any(hop is not self._hop for rule in self._rules for hop in rule.places.waiting)

    def leave(self) -> None:
        """The hop begins nothing more."""
        for rule in self._rules:
            rule.places.waiting.pop(self._hop, None)
            rule.rates.waiting.pop(self._hop, None)
            rule.hops.pop(self._hop, None)

    def _place(self, grant: Grant, rule: Rule, source: Source | None) -> bool:
        """Holds a place of a rule that has room for a message too."""
        part = rule.part(self._hop.hop, source)
        if not rule.places.admits(self._hop) or not rule.rates.admits(self._hop):
            return False
        place = rule.place(part)
        if place == REFUSED:
            self.reason = f"rule {rule.config.title}: {rule.config.concurrency} connections are open"
            rule.places.refused(self._hop)
            for other in rule.hops:
                if other is not self._hop and other.close_idle():
                    break
            return False
        if not self._has_room(rule, part):
            rule.release(place)
            return False
        grant.held[rule] = (place, part)
        return True

    def _has_room(self, rule: Rule, part: int) -> bool:
        if not rule.rates.admits(self._hop):
            return False
        why = rule.lacks(part)
        if why:
            self.reason = why
            rule.rates.refused(self._hop)
        return not why

    def _count(self, grant: Grant, rules: Iterable[Rule]) -> bool:
        """Counts a message for rules that all have room, unless another worker has just taken it."""
        for rule in rules:
            why = rule.take(grant.held[rule][1])
            if why:
                self.reason = why
                rule.rates.refused(self._hop)
                return False
        for rule in rules:
            rule.rates.took(self._hop)
        self.reason = ""
        return True

    def _grant(self, grant: Grant, rules: list[Rule]) -> bool:
        """The same for places that are held now."""
        if not self._count(grant, rules):
            return False
        for rule in rules:
            rule.places.took(self._hop)
            rule.hops.setdefault(self._hop)
        return True


class Shaping:
    """The rules of a worker."""

    __slots__ = ("_table", "rules")

    def __init__(self, rules: Iterable[ShapingConfig], table: Callable[[], Table], clock: "Clock") -> None:
        """`table`: gives what all workers share; asked only where there are rules."""
        configured = tuple(rules)
        self._table = table() if configured else None
        self.rules = [Rule(each, self._table, clock.monotonic) for each in configured if self._table is not None]

    def of(self, hop: "Destination") -> Shaper | None:
        """What shapes a hop; None where there are no rules."""
        if not self.rules:
            return None
        next_hop = hop.hop_text.partition(":")[2]
        return Shaper(self, hop, [rule for rule in self.rules if rule.names(next_hop)])

    def tick(self) -> None:
        """Once a second: who waits gets what is to be had again."""
        for rule in self.rules:
            rule.places.serve()
            rule.rates.serve()


def _fits(name: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    return name.endswith(pattern) and len(name) > len(pattern) if pattern.startswith(".") else name == pattern


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
