"""Reads `fastmta.toml` into a Config, or says what is wrong: file, line, key, value and what is allowed.

`read` gathers every problem for `fastmta check`; `load` raises ConfigError with the first. Nothing but the file itself
is read here: whether certificates and maps can be used is cli/startable.py's question.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from fastmta.config import milters, restrictions, values
from fastmta.config.consistency import inconsistencies, route_problem
from fastmta.config.expand import expand
from fastmta.config.kinds import Key
from fastmta.config.lines import key_lines
from fastmta.config.location import FILE_BYTES, default_path
from fastmta.config.not_built import NOT_BUILT
from fastmta.config.pipes import parse_argv, parse_flags
from fastmta.config.schema import TABLES, Config, Leaf, leaves, leaves_of
from fastmta.config.shaping import ShapingConfig, problem_of
from fastmta.config.tables import PipeConfig
from fastmta.model.errors import ConfigError
from fastmta.model.routes import is_pipe_name

_SINGLE: Final[dict[str, Callable[[str], str]]] = {
    "host": values.parse_domain,
    "domain": values.parse_domain_or_none,
    "user": values.parse_user,
    "domains": values.parse_domain,
    "networks": values.parse_network,
    "servers": values.parse_server,
    "names": values.parse_match,
}


class Problem(NamedTuple):
    """One thing that is wrong; `line` is 0 where no line can be named."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        """One line, whatever the value holds: line breaks and control characters as Python writes them."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        said = f"{where}: {self.key}: {self.text}" if self.key else f"{where}: {self.text}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in said)


def load(path: str | Path | None = None) -> Config:
    """The configuration in a file; raises ConfigError with one plain line."""
    config, problems = read(path)
    return _require(config, problems)


def parse(text: str, *, base: str | Path = ".", name: str = "fastmta.toml") -> Config:
    """The configuration in a text; relative paths are relative to `base`. Raises ConfigError."""
    config, problems = parse_all(text, base=base, name=name)
    return _require(config, problems)


def read(path: str | Path | None = None) -> tuple[Config | None, list[Problem]]:
    """The configuration in a file with all its problems; the configuration is None where there is one."""
    where = Path(path if path is not None else default_path())
    try:
        with open(where, "rb") as file:
            raw = file.read(FILE_BYTES + 1)
        if len(raw) > FILE_BYTES:
            return None, [Problem(str(where), 0, "", f"larger than {FILE_BYTES} bytes")]
        text = raw.decode("utf-8")
    except OSError as error:
        return None, [Problem(str(where), 0, "", f"cannot read the configuration: {error.strerror}")]
    except UnicodeDecodeError as error:
        return None, [Problem(str(where), raw.count(b"\n", 0, error.start) + 1, "", "not UTF-8")]
    config, problems = parse_all(text, base=where.absolute().parent, name=str(where))
    if config is not None:
        config = msgspec.structs.replace(config, config_file=str(where.absolute()))
    return config, problems


def parse_all(text: str, *, base: str | Path, name: str) -> tuple[Config | None, list[Problem]]:
    """As `read`, for a text."""
    try:
        document = tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        return None, [_syntax_problem(name, text, error)]
    return _Reader(document, key_lines(text), Path(base).absolute(), name).config()


def _require(config: Config | None, problems: list[Problem]) -> Config:
    if config is None:
        more = f" (and {len(problems) - 1} more: fastmta check lists them)" if len(problems) > 1 else ""
        raise ConfigError(f"{problems[0]}{more}")
    return config


def _syntax_problem(name: str, document: str, error: tomllib.TOMLDecodeError) -> Problem:
    text, _, place = str(error).rpartition(" (at ")
    at_line = place.removeprefix("line ").partition(",")[0]
    line = int(at_line) if at_line.isdigit() else document.rstrip().count("\n") + 1
    return Problem(name, line, "", f"not TOML: {text[:1].lower()}{text[1:]}")


class _Reader:
    """One reading of one document."""

    def __init__(self, document: dict[str, Any], lines: dict[tuple[str, ...], int], base: Path, name: str) -> None:
        self._document = document
        self._lines = lines
        self._base = base
        self._name = name
        self._problems: list[Problem] = []
        self._leaves = leaves()
        self._by_flat = {leaf.flat: leaf for leaf in self._leaves}
        classes = document.get(_CLASSES)
        self._class_names = frozenset(classes) if isinstance(classes, dict) else frozenset()

    def config(self) -> tuple[Config | None, list[Problem]]:
        self._find_unknown()
        tables: dict[str, dict[str, Any]] = {table: {} for table in ("", *TABLES)}
        defaults: list[tuple[str, str]] = []  # that refer to a value which may be wrong itself
        for leaf in self._leaves:
            raw = self._raw(leaf)
            try:
                tables[leaf.table][leaf.attribute] = self._value(leaf, leaf.value if raw is None else raw)
            except ValueError as error:
                text = f"{_shown(raw)}: expected {error}" if raw is not None else f"expected {error}"
                if self._given(leaf) is None and leaf.key.default is not None:
                    defaults.append((leaf.dotted, text))
                else:
                    self._add(leaf.dotted, text)
        transport = self._transport()
        pipes = self._pipes()
        shaping = self._shaping()
        if not self._problems:
            for dotted, text in defaults:
                self._add(dotted, text)
        if self._problems:
            return None, self._sorted()
        values_of: dict[str, Any] = tables.pop("")
        for table, given in tables.items():
            values_of[table] = TABLES[table](**given)
        config = Config(transport=transport, pipe=pipes, shaping=shaping, **values_of)
        for key, text in inconsistencies(config):
            self._add(key, text)
        return (None, self._sorted()) if self._problems else (config, [])

    def _sorted(self) -> list[Problem]:
        return sorted(self._problems, key=lambda problem: problem.line)

    def _add(self, dotted: str, text: str) -> None:
        path = tuple(dotted.split(".", 2 if dotted.startswith("pipe.") else 1))
        line = self._lines.get(path) or self._lines.get(path[:-1]) or 0
        self._problems.append(Problem(self._name, line, dotted, text))

    def _raw(self, leaf: Leaf) -> Any:
        """What the file gives for a key, else its default in the file's notation, else None: the default as it is."""
        given = self._given(leaf)
        if given is not None:
            return given
        if leaf.name == "myhostname":
            node = os.uname().nodename
            return node if "." in node else f"{node}.localdomain"
        if leaf.name == "mydomain":
            return self._text("myhostname").partition(".")[2] or "localdomain"
        return leaf.key.default

    def _given(self, leaf: Leaf) -> Any:
        table = self._document.get(leaf.table, {}) if leaf.table else self._document
        return table.get(leaf.name) if isinstance(table, dict) else None

    def _text(self, flat: str) -> str:
        leaf = self._by_flat[flat]
        raw = self._raw(leaf)
        return _one_string(leaf.value if raw is None else raw)

    def _reference(self, name: str) -> str | None:
        if name == "config_directory":
            return str(self._base).replace("$", "$$")
        return self._text(name) if name in self._by_flat else None

    def _value(self, leaf: Leaf, raw: Any) -> object:
        key = leaf.key
        if key.kind == "argv":  # its macros are of messages, not of the configuration
            return parse_argv(raw)
        if isinstance(raw, str) and "$" in raw and key.kind not in _LISTS:
            raw = expand(raw, self._reference)
        if key.kind == "restrictions":
            return self._restrictions(raw)
        if key.kind == "classes":
            return self._classes(raw)
        if key.kind == "milters":
            return tuple(each for item in self._texts(raw) for each in milters.split_milters(item))
        if key.kind in _LISTS:
            return tuple(self._item(key, item) for item in self._items(raw))
        return self._single(key, raw)

    def _texts(self, raw: Any) -> list[str]:
        """One string, or each of a list, as it stands."""
        texts = [raw] if isinstance(raw, str) else raw
        if not isinstance(texts, list | tuple) or not all(isinstance(item, str) for item in texts):
            raise ValueError('a list of strings, or Postfix\'s one string "a, b c"')
        return [expand(item, self._reference) for item in texts]

    def _items(self, raw: Any) -> list[str]:
        if isinstance(raw, str):
            return values.split_list(expand(raw, self._reference))
        if not isinstance(raw, list | tuple) or not all(isinstance(item, str) for item in raw):
            raise ValueError('a list of strings, or Postfix\'s one string "a, b c"')
        out: list[str] = []
        for item in raw:
            if "$" in item:
                out += values.split_list(expand(item, self._reference))
            elif item.strip():
                out.append(item.strip())
        return out

    def _item(self, key: Key, item: str) -> str:
        if key.kind == "maps":
            return values.parse_map(item, self._base)
        if key.kind == "endpoints":
            endpoint = values.parse_endpoint(item)
            _, semicolon, settings = item.partition(";")
            return f"unix:{self._base / endpoint.path}{semicolon}{settings}" if endpoint.path else item
        if key.kind == "words":
            if item.upper() not in key.choices:
                raise ValueError(f"{', '.join(key.choices)}, not {item}")
            return item.upper()
        if key.kind == "options":
            if item.lower() not in key.choices:
                raise ValueError(f"{', '.join(key.choices)}, not {item}")
            return item.lower()
        if key.kind == "list":
            if any(ord(character) < 32 for character in item):
                raise ValueError("words without control characters")
            return item
        try:
            return _SINGLE[key.kind](item)
        except ValueError as error:
            raise ValueError(f"{error}, not {item}") from None

    def _single(self, key: Key, raw: Any) -> object:
        if key.kind == "bool":
            return values.parse_bool(raw)
        if key.kind == "int":
            return values.parse_int(raw, key.low, key.high)
        if key.kind == "size":
            return values.parse_size(raw)
        if key.kind == "time":
            seconds = raw if isinstance(raw, float) else values.parse_time(raw, key.unit)
            if seconds < key.low:
                raise ValueError(f"a time of at least {key.low}s")
            return seconds
        if not isinstance(raw, str) or any(ord(character) < 32 for character in raw):
            raise ValueError("a string of one line")
        if key.kind == "choice":
            return _choice(key, raw)
        if key.kind == "peer":
            if raw:
                values.parse_peer(raw)
            return raw
        if key.kind == "path":
            return str(self._base / raw) if raw else ""
        return _SINGLE[key.kind](raw) if key.kind in _SINGLE else raw

    def _transport(self) -> dict[str, str]:
        given = self._document.get("transport", {})
        pipes = self._document.get("pipe", {})
        pipes = pipes if isinstance(pipes, dict) else {}
        out: dict[str, str] = {}
        if isinstance(given, dict):
            for domain, route in given.items():
                problem = (
                    route_problem(domain, route, pipes)
                    if isinstance(route, str)
                    else f'{_shown(route)}: expected a route such as "smtp:[192.0.2.1]:25"'
                )
                if problem:
                    self._add(f"transport.{domain}", problem)
                out[domain.lower()] = str(route)
        return out

    def _pipes(self) -> dict[str, PipeConfig]:
        tables = self._document.get("pipe", {})
        if not isinstance(tables, dict):
            return {}
        out: dict[str, PipeConfig] = {}
        for name, given in tables.items():
            table = f"pipe.{name}"
            if not isinstance(given, dict) or not is_pipe_name(name):
                self._add(table, "is a table: write [pipe.NAME], the name of letters, digits, - and _")
                continue
            keys = leaves_of(table, PipeConfig)
            for unknown in given.keys() - {leaf.name for leaf in keys}:
                self._add(
                    f"{table}.{unknown}", f"unknown key; known in [{table}]: {', '.join(leaf.name for leaf in keys)}"
                )
            values_of: dict[str, Any] = {}
            for leaf in keys:
                raw = given.get(leaf.name, leaf.key.default or leaf.value)
                if raw is msgspec.NODEFAULT:
                    self._add(table, f"needs the key {leaf.name}")
                    continue
                try:
                    values_of[leaf.name] = parse_flags(raw) if leaf.name == "flags" else self._value(leaf, raw)
                except (ValueError, TypeError) as error:
                    self._add(leaf.dotted, f"{_shown(raw)}: expected {error}")
            if len(values_of) == len(keys):
                out[name] = PipeConfig(**values_of)
        return out

    def _shaping(self) -> tuple[ShapingConfig, ...]:
        tables = self._document.get("shaping", [])
        if not isinstance(tables, list) or not all(isinstance(given, dict) for given in tables):
            self._add("shaping", "is a list of tables: write [[shaping]] on a line of its own for each rule")
            return ()
        out: list[ShapingConfig] = []
        keys = leaves_of("shaping", ShapingConfig)
        for number, given in enumerate(tables, 1):
            count = len(self._problems)
            for unknown in given.keys() - {leaf.name for leaf in keys}:
                known = ", ".join(leaf.name for leaf in keys)
                self._add("shaping", f"rule {number}: {unknown}: unknown key; known in [[shaping]]: {known}")
            values_of: dict[str, Any] = {}
            for leaf in keys:
                raw = given.get(leaf.name, leaf.value)
                try:
                    values_of[leaf.name] = self._value(leaf, raw)
                except (ValueError, TypeError) as error:
                    self._add("shaping", f"rule {number}: {leaf.name} = {_shown(raw)}: expected {error}")
            if len(self._problems) > count:
                continue
            rule = ShapingConfig(**values_of)
            problem = problem_of(rule)
            if not problem and any(rule.counted == other.counted for other in out):
                problem = "would be counted together with another one that names the same hops: give it a name"
            if problem:
                self._add("shaping", f"rule {number}: {problem}")
            out.append(rule)
        return tuple(out)

    def _classes(self, raw: Any) -> dict[str, tuple[str, ...]]:
        if raw == "":
            return {}
        if not isinstance(raw, dict):
            raise ValueError('a table with a line for each class, such as strict = "reject_rbl_client bl.example.org"')
        out: dict[str, tuple[str, ...]] = {}
        for name, given in raw.items():
            try:
                out[name] = self._restrictions(given)
            except ValueError as error:
                self._add(f"{_CLASSES}.{name}", f"{_shown(given)}: expected {error}")
        for name in out:
            problem = restrictions.class_problem(name, out)
            if problem:
                self._add(f"{_CLASSES}.{name}", problem)
        return out

    def _restrictions(self, raw: Any) -> tuple[str, ...]:
        words = [word for item in self._items(raw) for word in values.split_list(item)]
        return restrictions.normalised(words, self._base, self._class_names)

    def _find_unknown(self) -> None:
        known = {leaf.dotted for leaf in self._leaves}
        tables = (*TABLES, "transport", "pipe", "shaping")
        for name, value in self._document.items():
            if name in tables:
                if name == "shaping":
                    continue
                if not isinstance(value, dict):
                    self._add(name, f"is a table: write [{name}] on a line of its own")
                elif name not in ("transport", "pipe"):
                    for inner, given in value.items():
                        if f"{name}.{inner}" not in known:
                            self._unknown(name, inner, given)
            elif name not in known:
                self._unknown("", name, value)

    def _unknown(self, table: str, name: str, value: Any) -> None:
        from fastmta.config.foreign import advice  # a table that a good configuration never needs

        dotted = f"{table}.{name}" if table else name
        if name in NOT_BUILT:
            given = "" if isinstance(value, dict) else _one_string(value)
            if " ".join(values.split_list(given)).lower() != " ".join(values.split_list(NOT_BUILT[name])).lower():
                instead = advice(name).partition(": ")[2]
                self._add(
                    dotted,
                    f"FastMTA does not have this feature, so {_shown(value)} would do nothing: remove it"
                    + (f" ({instead})" if instead else ""),
                )
            return
        hint = self._elsewhere(table, name)
        if not hint:
            known_elsewhere = advice(name)
            if known_elsewhere:
                self._add(dotted, known_elsewhere)
                return
        kind = "table" if isinstance(value, dict) else "key"
        self._add(dotted, f"unknown {kind}{hint or self._nearest(table, name)}")

    def _elsewhere(self, table: str, name: str) -> str:
        """Where a key of ours belongs that stands in a wrong table, or under its flat name."""
        elsewhere = [leaf for leaf in self._leaves if name in (leaf.name, leaf.flat) and leaf.table != table]
        if elsewhere:
            leaf = elsewhere[0]
            place = f"in [{leaf.table}]" if leaf.table else "above the first [table]"
            return f"; write it as {leaf.name} {place}"
        return ""

    def _nearest(self, table: str, name: str) -> str:
        here = [leaf.name for leaf in self._leaves if leaf.table == table]
        if not table:
            here += [*TABLES, "transport", "pipe", "shaping"]
        close = difflib.get_close_matches(name, here, 1, 0.6)
        if close:
            return f"; did you mean {close[0]}?"
        anywhere = difflib.get_close_matches(name, [leaf.flat for leaf in self._leaves], 1, 0.75)
        if anywhere:
            return f"; did you mean {self._by_flat[anywhere[0]].dotted}?"
        return f"; known in [{table}]: {', '.join(here)}" if table else ""


_LISTS: Final = frozenset(
    {
        "domains",
        "networks",
        "maps",
        "endpoints",
        "servers",
        "words",
        "options",
        "list",
        "names",
        "restrictions",
        "milters",
    }
)


_CLASSES: Final = "smtpd_restriction_classes"


def _choice(key: Key, raw: str) -> str:
    for choice in key.choices:
        if raw.lower() == choice.lower():
            return choice
    if raw.lower() == "yes" and "normalize" in key.choices:  # Postfix's older spelling of smtpd_forbid_bare_newline
        return "normalize"
    close = difflib.get_close_matches(raw.lower(), key.choices, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"one of {', '.join(key.choices)}{hint}")


def _one_string(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def _shown(value: Any) -> str:
    """A value as TOML would have it, shortened."""
    text = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
    if isinstance(value, Mapping):
        text = "a table"
    return text if len(text) <= 80 else f"{text[:77]}..."
