"""[[shaping]]: traffic rules, and the addresses that mail of a rule leaves from."""

import ipaddress
from typing import Annotated, NamedTuple

import msgspec

from fastmta.config.kinds import Key

_Texts = tuple[str, ...]


class ShapingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """[[shaping]]: a traffic rule for the next hops that it names; all rules of a hop count, over all workers."""

    name: Annotated[str, Key("text", about="in the log and in `fastmta explain`; empty: the first pattern")] = ""
    domain: Annotated[_Texts, Key("list", about='next hops: "example.org", ".example.org" (what is below), "*"')] = ()
    mx: Annotated[_Texts, Key("list", about='hosts that mail goes to: "mx.example.org", ".example.org", "*"')] = ()
    per: Annotated[
        str,
        Key(
            "choice",
            choices=("rule", "domain", "source"),
            about="what is counted for itself: all that the rule names together, each next hop, each address of ours",
        ),
    ] = "rule"
    concurrency: Annotated[int, Key("int", high=1000, about="connections at one time; 0: no limit")] = 0
    messages_per_second: Annotated[int, Key("int", high=1_000_000, about="0: no limit")] = 0
    messages_per_hour: Annotated[int, Key("int", high=1_000_000_000, about="spread over the hour; 0: no limit")] = 0
    messages_per_connection: Annotated[int, Key("int", high=10_000, about="0: as everywhere, 100")] = 0
    recipients_per_message: Annotated[
        int, Key("int", high=1000, about="of one transaction; 0: no limit of its own")
    ] = 0
    source_addresses: Annotated[
        _Texts, Key("list", about='"192.0.2.1", "192.0.2.2 weight=3 helo=out2.example.org": taken in turn, by weight')
    ] = ()

    @property
    def title(self) -> str:
        """What the rule is called."""
        return self.name or (self.domain + self.mx)[0]

    @property
    def counted(self) -> str:
        """What its counters are known by, over a reload that changes its limits too; no two rules have the same."""
        return f"{self.name}\0{self.domain}\0{self.mx}\0{self.per}"


class Source(NamedTuple):
    """An address of ours. `helo`: "" for smtp_helo_name."""

    ip: str
    weight: int
    helo: str


def parse_source(text: str) -> Source:
    """One of source_addresses. ValueError: what was expected instead."""
    address, *attributes = text.split()
    ip = str(ipaddress.ip_address(address.strip("[]")))
    weight, helo = 1, ""
    for attribute in attributes:
        name, _, value = attribute.partition("=")
        if name == "weight" and value.isascii() and value.isdigit() and 0 < int(value[:6]) <= 1000:
            weight = int(value)
        elif name == "helo" and value and all(c.isalnum() or c in ".-" for c in value):
            helo = value
        else:
            raise ValueError("an address, perhaps with weight=1 to 1000 and helo=NAME")
    return Source(ip, weight, helo)


def problem_of(rule: ShapingConfig) -> str:
    """What is wrong with a rule whose keys are each as they should be; "" for nothing."""
    if not rule.domain and not rule.mx:
        return "names no hops: give it domain or mx"
    for pattern in rule.domain + rule.mx:
        if pattern != "*" and ("*" in pattern or not pattern.strip(".") or len(pattern.split()) != 1):
            return f'"{pattern}" fits nothing: expected "example.org", ".example.org" for what is below, or "*"'
    for text in rule.source_addresses:
        try:
            parse_source(text)
        except ValueError:
            return f'source_addresses: "{text}": expected an address, perhaps with weight=1 to 1000 and helo=NAME'
    if rule.per == "source" and not rule.source_addresses:
        return 'per = "source" needs source_addresses'
    return ""
