"""`$name` in values, as in Postfix's main.cf: $name, ${name}, $(name), and $$ for a dollar sign.

Names are flat Postfix or Dovecot names. A name refers to the expanded text of that key, given or default.
"""

import re
from collections.abc import Callable
from typing import Final

_REFERENCE: Final = re.compile(r"\$(?:(\$)|([A-Za-z0-9_]+)|\{([^{}]*)\}|\(([^()]*)\)|)")
_DEPTH: Final = 20  # references inside references; Postfix allows 100


def expand(text: str, raw_of: Callable[[str], str | None], *, depth: int = 0) -> str:
    """Replaces every reference; `raw_of(name)` gives that key's text before expansion, or None for an unknown name.

    Raises ValueError for an unknown name or for references that go in a circle.
    """
    if "$" not in text:
        return text
    if depth > _DEPTH:
        raise ValueError("a value whose $names do not refer to each other in a circle")

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        name = match[2] or match[3] or match[4]
        if not name:
            raise ValueError('a name after "$" (write $$ for a dollar sign)')
        raw = raw_of(name)
        if raw is None:
            raise ValueError(f"a value without ${name}, which is not a known name")
        return expand(raw, raw_of, depth=depth + 1)

    return _REFERENCE.sub(replace, text)
