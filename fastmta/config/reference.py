"""docs/keys.md: every key with its kind, default and meaning, made from the schema.

    python -m fastmta.config.reference >docs/keys.md

A test holds the page equal to what this prints.
"""

import sys
from typing import Final

import msgspec

from fastmta.config.kinds import SASL_OPTIONS, Key
from fastmta.config.schema import TABLES, Config, Leaf, leaves, leaves_of
from fastmta.config.shaping import ShapingConfig
from fastmta.config.tables import PipeConfig
from fastmta.model.routes import NAMES

_KINDS: Final[dict[str, str]] = {
    "text": "text",
    "bool": "true or false",
    "int": "number",
    "size": "size",
    "path": "path",
    "host": "domain name",
    "domain": "domain name, or empty",
    "peer": "service",
    "user": "login name",
    "domains": "list of domains",
    "networks": "list of networks",
    "maps": "list of maps",
    "endpoints": "list of endpoints",
    "servers": "list of addresses",
    "list": "list of words",
    "names": "list of names",
    "times": "list of times",
    "milters": "list of milters",
    "restrictions": "list of restrictions",
    "argv": "list of arguments",
    "classes": "table: name = list of restrictions",
}
_HEAD: Final = """\
# Keys of fastmta.toml

Made from `fastmta/config/schema.py` by `python -m fastmta.config.reference >docs/keys.md`. A key bears Postfix's name
and meaning where Postfix has the concept, Dovecot's where Dovecot has it. `fastmta check --all` prints the values in
force.

Lists may be written in Postfix's one-string form (`"a, b c"`), and `$name` stands for another key's value. A time is
`"300s"`, `"4h"` or `"5d"`; a bare number counts in the unit given here. A size is a number of bytes, or `"50M"`. A map
is `"hash:/path"` (or `texthash:`, `regexp:`, `pcre:`, `cidr:`), `"inline:{ key = value }"` or `"static:value"`, an
endpoint `"host:port"`, `"unix:/path"` or `"unix:/path;mode=0660;user=NAME;group=NAME"`; relative paths are relative to
the file.
"""
_TRANSPORT: Final = f"""
## [transport]

`"domain" = "route"`, `".parent" = "route"` or `"*" = "route"`: where mail for a domain goes. A route begins with one of
{", ".join(f"`{name}:`" for name in NAMES)}, as in Postfix's transport(5).
"""


def page() -> str:
    """The whole page, in Markdown."""
    sections = [_HEAD, _section("The file's top", Config.__doc__ or "", "")]
    for table, struct in TABLES.items():
        sections.append(_section(f"[{table}]", struct.__doc__ or "", table))
    pipes = _section("[pipe.NAME]", PipeConfig.__doc__ or "", "pipe.NAME")
    shaping = _section("[[shaping]]", ShapingConfig.__doc__ or "", "shaping")
    return "\n".join([*sections]) + _TRANSPORT + "\n" + pipes + "\n" + shaping


def _section(title: str, about: str, table: str) -> str:
    about = about.partition("]: ")[2] if table else ""
    structs: dict[str, type[msgspec.Struct]] = {"pipe.NAME": PipeConfig, "shaping": ShapingConfig}
    named = structs.get(table)
    found = leaves_of(table, named) if named is not None else tuple(leaf for leaf in leaves() if leaf.table == table)
    rows = [_row(leaf) for leaf in found]
    lines = [f"## {title}", ""]
    if about:
        lines += [about[:1].upper() + about[1:], ""]
    return "\n".join([*lines, "| key | is | default | note |", "| --- | --- | --- | --- |", *rows, ""])


def _row(leaf: Leaf) -> str:
    cells = (f"`{leaf.name}`", _kind(leaf.key), _default(leaf), leaf.key.about)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _kind(key: Key) -> str:
    if key.kind == "time":
        return f"time ({key.unit})"
    if key.kind in ("choice", "words", "options"):
        choices = "SASL's options in Postfix's words" if key.choices is SASL_OPTIONS else _choices(key)
        return choices if key.kind == "choice" else f"list of {choices}"
    return _KINDS[key.kind]


def _choices(key: Key) -> str:
    return ", ".join(f"`{choice}`" if choice else '`""`' for choice in key.choices)


def _default(leaf: Leaf) -> str:
    if leaf.key.default is not None:
        return f"`{leaf.key.default}`" if leaf.key.default else "empty"
    if leaf.key.about.startswith("default: "):
        return ""
    value = leaf.value
    if value is msgspec.NODEFAULT:
        return "none: must be given"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{', '.join(value)}`" if value else "empty"
    return f"`{value}`" if value != "" else "empty"


if __name__ == "__main__":
    sys.stdout.write(page())
