"""The notation of smtpd_milters and non_smtpd_milters: "inet:host:port", "unix:/path", or in braces with settings, as
in "{ unix:/path, default_action = accept, ... }".
"""

import re
from typing import Final

import msgspec

from fastmta.config.kinds import MILTER_ACTIONS
from fastmta.config.schema import Config
from fastmta.config.values import parse_peer, parse_time

_ITEM: Final = re.compile(r"\s*(?:\{([^{}]*)\}|([^\s,{}]+))\s*(?:,|\s|$)")
_TIMES: Final = ("connect_timeout", "command_timeout", "content_timeout")


class Milter(msgspec.Struct, frozen=True):
    """One filter with its settings."""

    address: str
    default_action: str
    connect_timeout_s: float
    command_timeout_s: float
    content_timeout_s: float


def split_milters(text: str) -> list[str]:
    """The filters of a list, each in its own form. ValueError says what is wrong."""
    out = []
    at = 0
    text = text.strip().rstrip(",")
    while at < len(text):
        match = _ITEM.match(text, at)
        if match is None:
            raise ValueError(
                f"milters such as inet:127.0.0.1:8891 or {{ unix:/path, default_action = accept }}, not {text[at:]}"
            )
        at = match.end()
        address, settings = _settings(match[1] if match[1] is not None else match[2])
        pairs = "".join(f", {name} = {value}" for name, value in settings.items())
        out.append(f"{{ {address}{pairs} }}" if pairs else address)
    return out


def _settings(item: str) -> tuple[str, dict[str, str]]:
    """An address, and what stands behind it."""
    address, *rest = (part.strip() for part in item.split(","))
    parse_peer(address)
    settings = {}
    for part in rest:
        name, equals, value = (each.strip() for each in part.partition("="))
        if name in _TIMES:
            if parse_time(value) < 1:
                raise ValueError(f"{name} of a second at least")
        elif name == "default_action":
            if value not in MILTER_ACTIONS:
                raise ValueError(f"default_action = one of {', '.join(MILTER_ACTIONS)}")
        else:
            raise ValueError(f"{', '.join((*_TIMES, 'default_action'))} in braces, not {name or equals}")
        settings[name] = value
    return address, settings


def milters(config: Config, key: str = "smtpd_milters") -> list[Milter]:
    """The filters of one of the lists of a configuration, with the settings in force."""
    out = []
    for text in getattr(config, key):
        address, settings = _settings(text.strip("{} "))
        times = [
            parse_time(settings[name]) if name in settings else getattr(config, f"milter_{name}") for name in _TIMES
        ]
        out.append(Milter(address, settings.get("default_action", config.milter_default_action), *times))
    return out
