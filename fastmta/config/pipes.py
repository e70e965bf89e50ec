"""What may stand in [pipe.NAME]: the macros of pipe(8)'s arguments, and its flags."""

import re
from typing import Final

EACH: Final = frozenset({"recipient", "original_recipient", "user", "extension", "mailbox", "domain"})
COMMON: Final = frozenset(
    {
        "client_address",
        "client_hostname",
        "client_protocol",
        "envid",
        "nexthop",
        "queue_id",
        "sasl_username",
        "sender",
        "size",
    }
)
FLAGS: Final = frozenset("BDFORXhqu.>")
_UNKEPT: Final = ("client_helo", "client_port", "sasl_method", "sasl_sender")  # pipe(8)'s that no queued message has
MACRO: Final = re.compile(r"\$(?:\$|\{(\w+)\}|\((\w+)\)|(\w+))")


def macros_of(template: str) -> set[str]:
    """The names of the macros in an argument's template."""
    found = (match[1] or match[2] or match[3] for match in MACRO.finditer(template))
    return {name for name in found if name}


def parse_argv(raw: object) -> tuple[str, ...]:
    """A list of strings, or one string that white space divides. ValueError: what was expected instead."""
    items = raw.split() if isinstance(raw, str) else raw
    if not isinstance(items, list | tuple) or not items or not all(isinstance(item, str) for item in items):
        raise ValueError("a program and its arguments, as a list of strings")
    if not items[0].startswith("/"):
        raise ValueError("the absolute path of a program first")
    for item in items:
        if any(ord(character) < 32 for character in item):
            raise ValueError("arguments without control characters")
        for name in sorted(macros_of(item)):
            if name in _UNKEPT:
                raise ValueError(f"macros of what is kept with queued mail; ${{{name}}} is not")
            if name not in EACH | COMMON:
                raise ValueError(f"one of {', '.join(sorted(EACH | COMMON))} in ${{...}}, not {name}")
        if "$" in MACRO.sub("", item):
            raise ValueError("the name of a macro after $, or $$ for the character")
    if macros_of(items[0]):
        raise ValueError("a program's path without macros")
    return tuple(items)


def parse_flags(text: str) -> str:
    """ValueError where a flag is none of pipe(8)'s."""
    for flag in text:
        if flag not in FLAGS:
            raise ValueError(f"flags of BDFORXhqu.>, not {flag}")
    return text
