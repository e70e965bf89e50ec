"""Tables whose keys are patterns, asked in their order: `regexp:`, `pcre:` and `cidr:`, in Postfix's notation.

The expressions are RE2's, which take time linear in the text whatever an administrator or a peer writes. What RE2 does
not have (back-references, look-around, possessive repeats) is an error that names file and line. Expressions fold case
and `.` matches a newline, as in both of Postfix's kinds; flags change that. They work on octets.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from fastmta.directory.source import Bad, Text, logical_lines
from fastmta.model.errors import ConfigError
from fastmta.model.limits import PATTERN_RULES

Match = Callable[[str], Any]  # something true where it matches
_WORD: Final = re.compile(r"(if|endif)(?![0-9A-Za-z_])\s*(.*)", re.IGNORECASE | re.DOTALL)
_GROUP: Final = re.compile(r"\$(?:(\$)|(\d{1,2})|\{(\d{1,2})\}|\((\d{1,2})\))")
_FLAGS: Final = {"regexp": frozenset("imx"), "pcre": frozenset("imsxAEUX")}
_LACKING: Final = {
    "regexp": {"x": "basic regular expressions"},
    "pcre": {"x": "expressions with comments", "X": "the strict mode"},
}


class _Rule(NamedTuple):
    """One line. `value` holds text and numbers of groups; None: IF, and `skip_to` is where its ENDIF leaves off."""

    match: Match
    negated: bool
    value: tuple[str | int, ...] | None
    skip_to: int = 0


class Patterns:
    """One table."""

    __slots__ = ("_rules",)

    def __init__(self, rules: tuple[_Rule, ...]) -> None:
        self._rules = rules

    def __len__(self) -> int:
        return len(self._rules)

    def values(self) -> Iterator[str]:
        """The values as they are written, with $1 for what a pattern would put in."""
        for rule in self._rules:
            if rule.value is not None:
                yield "".join(part if isinstance(part, str) else f"${part}" for part in rule.value)

    def get(self, key: str) -> str | None:
        """The value of the first rule that matches the key, with what it matched put in."""
        rules = self._rules
        at = 0
        while at < len(rules):
            match, negated, value, skip_to = rules[at]
            at += 1
            found = match(key)
            if value is None:
                at = at if bool(found) is not negated else skip_to
            elif bool(found) is not negated:
                return "".join(part if isinstance(part, str) else _group(found, part) for part in value)
        return None


def read_patterns(kind: str, lines: Text, name: str, *, literal: bool, bad: Bad | None = None) -> Patterns:
    """The table in the lines of a source; `literal`: values take nothing from the key, as files of aliases want it.

    A line that is none is told to `bad` and skipped; without `bad` it raises ConfigError with file and line.
    """
    rules: list[_Rule] = []
    open_ifs: list[tuple[int, int]] = []  # (place of the rule, line)
    try:
        for number, line in logical_lines(lines):
            try:
                _add(kind, line, number, rules, open_ifs, literal)
            except ValueError as error:
                if bad is None:
                    raise ConfigError(f"{name}:{number}: {error}") from error
                bad(f"{name}:{number}: {error}")
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
    if open_ifs:
        raise ConfigError(f"{name}:{open_ifs[-1][1]}: IF without ENDIF")
    return Patterns(tuple(rules))


def _add(kind: str, line: str, number: int, rules: list[_Rule], open_ifs: list[tuple[int, int]], literal: bool) -> None:
    if len(rules) >= PATTERN_RULES:
        raise ValueError(f"more than {PATTERN_RULES} rules")
    word = _WORD.fullmatch(line)
    if word is not None and word[1].lower() == "endif":
        if not open_ifs:
            raise ValueError("ENDIF without IF")
        place, _ = open_ifs.pop()
        rules[place] = rules[place]._replace(skip_to=len(rules))
        return
    text = word[2] if word is not None else line
    negated = False
    while text.startswith("!"):
        negated, text = not negated, text[1:].lstrip()
    match, groups, value = _cidr(text) if kind == "cidr" else _expression(kind, text)
    if word is not None:
        open_ifs.append((len(rules), number))
        rules.append(_Rule(match, negated, None))
        return
    if not value:
        raise ValueError("no value; expected: pattern, white space, value")
    parts = (value,) if kind == "cidr" else tuple(_parts(value))
    for part in parts:
        if isinstance(part, int):
            if literal:
                raise ValueError("what a pattern matched cannot be put into an alias")
            if negated or part > groups:
                raise ValueError(f"${part}: the pattern has {0 if negated else groups} groups")
    rules.append(_Rule(match, negated, parts))


def _cidr(text: str) -> tuple[Match, int, str]:
    words = text.split(maxsplit=1)
    pattern = re.sub(r"^\[([0-9A-Fa-f:.]+)\]", r"\1", words[0]) if words else ""
    try:
        network = ipaddress.ip_network(pattern, strict=True)
    except ValueError as error:
        raise ValueError(f"{pattern or 'nothing'}: no network ({error})") from None

    def match(key: str) -> bool:
        try:
            return ipaddress.ip_address(key) in network
        except ValueError:
            return False

    return match, 0, words[1].strip() if len(words) > 1 else ""


def _expression(kind: str, text: str) -> tuple[Match, int, str]:
    """(how to match, number of groups, what stands behind the expression and its flags)."""
    import re2  # type: ignore[import-untyped]  # only tables with patterns need it

    mark = text[:1]
    if not mark or mark.isalnum() or mark == "\\":
        raise ValueError(f"expected an expression between two marks, such as /{text[:20]}/")
    at = 1
    while at < len(text) and text[at] != mark:
        at += 2 if text[at] == "\\" else 1
    if at >= len(text):
        raise ValueError(f"no {mark} that ends the expression")
    pattern, rest = text[1:at], text[at + 1 :]
    flags, _, value = rest.replace("\t", " ").partition(" ")
    for flag in flags:
        if flag not in _FLAGS[kind]:
            raise ValueError(f"{kind}: has no flag {flag}; the flags are {''.join(sorted(_FLAGS[kind]))}")
        if flag in _LACKING[kind]:
            raise ValueError(f"flag {flag}: {_LACKING[kind][flag]} are not supported here; rewrite the expression")
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = flags.count("i") % 2 == 1
    options.dot_nl = flags.count("s") % 2 == 0
    options.longest_match = kind == "regexp"  # POSIX
    inline = ("m" if flags.count("m") % 2 else "") + ("U" if flags.count("U") % 2 else "")
    wrapped = f"(?{inline}:{pattern})" if inline else pattern
    wrapped = rf"\A(?:{wrapped})" if flags.count("A") % 2 else wrapped
    try:
        compiled = re2.compile(wrapped.encode("utf-8", "surrogateescape"), options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ValueError(f"{mark}{pattern}{mark}: RE2 cannot do this: {reason}") from None
    search = compiled.search
    return lambda key: search(key.encode("utf-8", "surrogateescape")), compiled.groups, value.strip()


def _parts(value: str) -> Iterator[str | int]:
    """Text, and numbers of groups, of a value with $1, ${1}, $(1) and $$."""
    at = 0
    for found in _GROUP.finditer(value):
        if found.start() > at:
            yield value[at : found.start()]
        yield "$" if found[1] else int(found[2] or found[3] or found[4])
        at = found.end()
    if at < len(value):
        yield value[at:]


def _group(found: Any, number: int) -> str:
    text: bytes = found.group(number) or b""
    return text.decode("utf-8", "surrogateescape")
