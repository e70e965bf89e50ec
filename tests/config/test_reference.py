"""docs/keys.md says what the schema says."""

from pathlib import Path

from fastmta.config.reference import page
from fastmta.config.schema import leaves

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"


def test_the_page_of_keys_is_what_the_schema_gives() -> None:
    assert PAGE.read_text() == page(), "python -m fastmta.config.reference >docs/keys.md"


def test_every_key_has_a_line() -> None:
    lines = page().splitlines()
    for leaf in leaves():
        assert any(line.startswith(f"| `{leaf.name}` |") for line in lines), leaf.dotted
