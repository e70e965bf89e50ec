"""Greylisting: what a stranger's server brings for the first time is put off once; a server that queues tries again.

A client's network, a sender and a recipient that come again after `greylist_delay`, and within `greylist_retry_window`,
pass from then on. A network that has passed `greylist_auto_whitelist_clients` times is not asked any more. Names and
defaults are postgrey's. Asked once all other checks of the recipient have let pass.
"""

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fastmta.config.schema import Config
from fastmta.model.reply import Reply
from fastmta.model.services import open_to_strangers
from fastmta.model.stages import Stage
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context, Parts
from fastmta.policy.greylist import Greylist
from fastmta.policy.networks import Networks, number_of

_DEFER_CODE: Final = 450


def build(config: Config, parts: Parts) -> Sequence[Check]:
    return [Greylisting(config, parts)] if config.greylisting else []


class Greylisting(Check):
    """The check at RCPT."""

    name = "greylisting"
    stage = Stage.RCPT
    reads = Stage.RCPT
    has_effects = True
    known_too = False
    services = open_to_strangers()
    late = PASS

    def __init__(self, config: Config, parts: Parts) -> None:
        self._parts = parts
        self._config = config
        self._table: Greylist | None = None  # opened by whoever asks first
        self._networks = Networks(text for text in config.greylist_whitelist_clients if _is_network(text))
        self._names = tuple(
            text.lower().rstrip(".") for text in config.greylist_whitelist_clients if not _is_network(text)
        )
        self._recipients = frozenset(text.lower() for text in config.greylist_whitelist_recipients)

    def check(self, context: Context) -> Verdict:
        recipient = context.recipient.decode("utf-8", "surrogateescape")
        if not context.client_ip or self._is_exempt(context, recipient.lower()):
            return PASS
        if self._parts.directory.resolve(context.recipient, may_relay=False).refusal is not None:
            return PASS  # nobody is there: said at once
        if self._table is None:
            self._table = Greylist(Path(self._config.data_directory))
        config, now = self._config, int(self._parts.clock.now())
        age_s = int(config.greylist_max_age)
        network = self._network(context.client_ip)
        enough = config.greylist_auto_whitelist_clients
        if enough and self._table.known(network, age_s=age_s, now=now) >= enough:
            return PASS
        wait_s = self._table.wait_s(
            network,
            (context.sender or b"").decode("utf-8", "surrogateescape"),
            recipient,
            delay_s=int(config.greylist_delay),
            window_s=int(config.greylist_retry_window),
            age_s=age_s,
            now=now,
        )
        if not wait_s:
            if enough:
                self._table.passed(network, age_s=age_s, now=now)
            return PASS
        shown = "".join(c if 32 <= ord(c) < 127 else "?" for c in recipient[:320])
        text = f"<{shown}>: Recipient address rejected: {config.greylist_text}"
        return Verdict(Action.DEFER, Reply(_DEFER_CODE, "4.2.0", text), reason=f"{wait_s} s too early")

    def _network(self, ip: str) -> str:
        version, number = number_of(ip)
        if version == 6:
            shift = 128 - self._config.greylist_ipv6cidr
            return socket.inet_ntop(socket.AF_INET6, (number >> shift << shift).to_bytes(16, "big"))
        shift = 32 - self._config.greylist_ipv4cidr
        return socket.inet_ntop(socket.AF_INET, (number >> shift << shift).to_bytes(4, "big"))

    def _is_exempt(self, context: Context, recipient: str) -> bool:
        if context.client_ip in self._networks:
            return True
        name = context.client_name.lower()
        if any(name == each or name.endswith("." + each.removeprefix(".")) for each in self._names):
            return True
        local, _, domain = recipient.rpartition("@")
        return bool({recipient, domain, f"{local}@"} & self._recipients)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False
    return True
