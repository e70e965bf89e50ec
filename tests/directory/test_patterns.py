"""regexp:, pcre:, cidr:, inline: and static: tables, wherever a table may be named."""

from pathlib import Path
from typing import Any

import pytest

from fastmta.config.map_types import fixed_value, inline_entries, split_braced
from fastmta.directory.maps import Table, TableSet
from fastmta.directory.patterns import read_patterns
from fastmta.model import limits
from fastmta.model.errors import ConfigError


def patterns(text: str, kind: str = "regexp", **settings: Any) -> Any:
    return read_patterns(kind, text, "t", **{"literal": False, **settings})


@pytest.mark.parametrize("kind", ["regexp", "pcre"])
@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("/^from: .*@bad/ REJECT", "From: a@BAD.test", "REJECT"),
        ("/^from: .*@bad/i REJECT", "From: a@BAD.test", None),
        ("/a.b/ X", "a\nb", "X"),
        ("/^b/ X", "a\nb", None),
        ("/^b/m X", "a\nb", "X"),
        (r"/a\/b/ X", "a/b", "X"),
        ("!/ok/ X", "no", "X"),
        ("!/ok/ X", "ok", None),
        ("|a/b| X", "a/b", "X"),
        ("/(a+)(b)?/ <$1|${2}|$(1)|$$1>", "xaa", "<aa||aa|$1>"),
        ("/a/ X\n  Y", "a", "X Y"),
        ("# no\n\n/a/ X\n/a/ Y", "a", "X"),
        ("if /a/\n/b/ both\nendif\n/b/ only", "ab", "both"),
        ("if /a/\n/b/ both\nendif\n/b/ only", "b", "only"),
        ("IF !/a/\nIF /b/\n/c/ X\nENDIF\n/./ Y\nENDIF\n/./ Z", "bc", "X"),
        ("IF !/a/\nIF /b/\n/c/ X\nENDIF\n/./ Y\nENDIF\n/./ Z", "c", "Y"),
        ("IF !/a/\nIF /b/\n/c/ X\nENDIF\n/./ Y\nENDIF\n/./ Z", "abc", "Z"),
        ("/\\xe9/ X", "\udce9", "X"),
    ],
)
def test_expressions(kind: str, text: str, key: str, expected: str | None) -> None:
    assert patterns(text, kind).get(key) == expected


def test_posix_takes_the_longest_alternative_and_perl_the_first() -> None:
    assert patterns("/(a|ab)(c|bcd)?/ $1 $2", "regexp").get("abcd") == "a bcd"
    assert patterns("/x(a|ab)/ $1", "regexp").get("xab") == "ab"
    assert patterns("/x(a|ab)/ $1", "pcre").get("xab") == "a"


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("/a.b/s X", "a\nb", None),
        ("/b/A X", "ab", None),
        ("/a|b/A X", "b", "X"),
        ("/(a+)/U $1", "aaa", "a"),
        ("/a$/E X", "a", "X"),
    ],
)
def test_flags_of_pcre(text: str, key: str, expected: str | None) -> None:
    assert patterns(text, "pcre").get(key) == expected


@pytest.mark.parametrize(
    ("text", "kind", "problem"),
    [
        (r"/(a)\1/ X", "regexp", "RE2 cannot do this"),
        ("/a(?=b)/ X", "pcre", "RE2 cannot do this"),
        ("/(/ X", "pcre", "RE2 cannot do this"),
        ("/a/x X", "regexp", "basic regular expressions"),
        ("/a/x X", "pcre", "expressions with comments"),
        ("/a/q X", "pcre", "has no flag q"),
        ("/a X", "pcre", "ends the expression"),
        ("abc X", "pcre", "between two marks"),
        ("/a/", "pcre", "no value"),
        ("/a/ $1", "pcre", "the pattern has 0 groups"),
        ("!/(a)/ $1", "pcre", "the pattern has 0 groups"),
        ("if /a/\n/b/ X", "pcre", "IF without ENDIF"),
        ("endif", "pcre", "ENDIF without IF"),
        ("192.0.2.1/24 X", "cidr", "host bits"),
        ("one X", "cidr", "no network"),
    ],
)
def test_what_cannot_be_done_is_named_with_its_line(text: str, kind: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        patterns("# first\n" + text, kind)
    assert str(raised.value).startswith("t:2") or "IF" in problem


def test_a_table_of_aliases_takes_nothing_from_the_key() -> None:
    with pytest.raises(ConfigError, match="cannot be put into an alias"):
        patterns("/^(.*)@x/ $1", literal=True)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("192.0.2.9", "one"),
        ("192.0.2.200", "net"),
        ("198.51.100.1", "not ten"),
        ("10.0.0.1", None),
        ("2001:db8::1", "six"),
        ("mail.example.test", None),
    ],
)
def test_networks(key: str, expected: str | None) -> None:
    text = (
        "192.0.2.9 one\n192.0.2.0/24 net\n[2001:db8::]/32 six\n"
        "if 0.0.0.0/0\n!10.0.0.0/8 not ten\nendif\n2001:db8::/16 never\n"
    )
    with pytest.raises(ConfigError):
        patterns(text, "cidr")
    assert patterns(text.replace("2001:db8::/16 never\n", ""), "cidr").get(key) == expected


@pytest.mark.parametrize(("rules", "fits"), [(limits.PATTERN_RULES, True), (limits.PATTERN_RULES + 1, False)])
def test_a_table_has_a_bounded_number_of_rules(rules: int, fits: bool) -> None:
    text = "10.0.0.1 X\n" * rules
    if fits:
        assert len(patterns(text, "cidr")) == rules
    else:
        with pytest.raises(ConfigError, match="more than"):
            patterns(text, "cidr")


# --- tables without files ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{ a = 1, b=2 }", {"a": "1", "b": "2"}),
        ("{ { A = two words }, {b={x, y}}, a = 3 }", {"a": "two words", "b": "x, y"}),
        ("{}", {}),
    ],
)
def test_inline(text: str, expected: dict[str, str]) -> None:
    assert inline_entries(text) == expected


@pytest.mark.parametrize("text", ["a = b", "{ a }", "{ a = }", "{ = b }", "{ {a} }"])
def test_inline_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="inline"):
        inline_entries(text)


def test_static_and_lists_with_braces() -> None:
    assert (fixed_value("OK"), fixed_value("{ two words }")) == ("OK", "two words")
    with pytest.raises(ValueError, match="static"):
        fixed_value("{ }")
    assert split_braced("a, inline:{ {b = c d} },e\tf") == ["a", "inline:{ {b = c d} }", "e", "f"]


# --- through the one registry ---


def test_parts_of_a_key_are_no_question_to_patterns(tmp_path: Path) -> None:
    (tmp_path / "re").write_text("/example/ pattern\n")
    (tmp_path / "map").write_text("example.test map\n")
    tables = TableSet((f"regexp:{tmp_path}/re", f"texthash:{tmp_path}/map"))
    assert tables.get("a@EXAMPLE.test") == "pattern"
    assert tables.get("example.test", whole=False) == "map"
    assert TableSet(("inline:{ a = b }", "static:rest")).get("A") == "b"
    assert TableSet(("inline:{ a = b }", "static:rest")).get("x") == "rest"


def test_a_table_of_patterns_is_read_again_and_keeps_its_last_good_contents(tmp_path: Path) -> None:
    path = tmp_path / "re"
    path.write_text("/a/ one\n")
    table = Table(f"pcre:{path}")
    path.write_text("/a(?=b)/ two\n\n")
    table.refresh()
    assert "RE2 cannot do this" in table.problem
    assert table.get("a") == "one"
    path.write_text("/a/ three\n")
    table.refresh()
    assert (table.problem, table.get("a")) == ("", "three")
