"""The types of look-up tables that a key may name, and the two whose contents stand in the name itself.

`inline:{ key = value, { key = several words } }` and `static:{ several words }` are written in braces where they hold
white space or commas, as in Postfix. Nothing but the standard library's core is loaded here: postmap needs it too.
"""

from collections.abc import Iterator
from typing import Final

FILE_TYPES: Final = ("hash", "texthash", "regexp", "pcre", "cidr")
MAP_TYPES: Final = (*FILE_TYPES, "inline", "static")
PATTERN_TYPES: Final = frozenset({"regexp", "pcre", "cidr"})  # asked about whole keys only, in their own case


def split_braced(text: str) -> list[str]:
    """Items apart by commas and white space; what stands in braces belongs together."""
    out: list[str] = []
    start, depth = -1, 0
    for at, character in enumerate(text):
        if depth == 0 and (character == "," or character.isspace()):
            if start >= 0:
                out.append(text[start:at])
            start = -1
            continue
        start = at if start < 0 else start
        depth += (character == "{") - (character == "}" and depth > 0)
    if start >= 0:
        out.append(text[start:])
    return out


def fixed_value(text: str) -> str:
    """What `static:` says of every key. ValueError where it says nothing."""
    value = _inside(text).strip()
    if not value:
        raise ValueError("a value behind static:")
    return value


def inline_entries(text: str) -> dict[str, str]:
    """The entries of an `inline:` table, their keys in lower case; of a key given twice the first counts."""
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError("braces: inline:{ key = value, { key = several words } }")
    out: dict[str, str] = {}
    for key, value in _entries(text[1:-1]):
        if not key or not value:
            raise ValueError("key = value in each entry of inline:")
        out.setdefault(key.lower(), value)
    return out


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """`{key = several words}` and `key = value`, whose parts are words of their own."""
    words: list[str] = []
    for item in split_braced(text):
        if not words and item.startswith("{"):
            key, _, value = _inside(item).partition("=")
            yield key.strip(), _inside(value.strip()).strip()
            continue
        words.append(item)
        joined = "".join(words)
        key, equals, value = joined.partition("=")
        if equals and value:
            yield key, _inside(value).strip()
            words = []
    if words:
        yield "".join(words).partition("=")[0], ""


def _inside(text: str) -> str:
    return text[1:-1] if text.startswith("{") and text.endswith("}") else text
