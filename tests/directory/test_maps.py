import os
import random

import pytest

from fastmta.directory.addresses import Address, parse, split_extension
from fastmta.directory.aliases import Target, TargetKind, parse_targets, read_include, split_targets
from fastmta.directory.compiled import CompiledMap
from fastmta.directory.maps import Table, TableSet, compile_map, compiled_path, read_source
from fastmta.directory.source import parse_aliases, parse_map
from fastmta.model.errors import ConfigError, TemporaryFailure
from fastmta.model.limits import MAP_LINE_BYTES


def entries(text, parser=parse_map):
    return [(entry.line, entry.key, entry.value) for entry in parser(text, "f")]


def test_comments_blank_lines_and_continuations():
    text = "# comment\n\n  # indented comment\nKey  a,\n\t b\n# between\n   c\r\nother\tx\n   \n"
    assert entries(text) == [(4, "key", "a, b c"), (8, "other", "x")]


def test_a_continuation_without_a_line_before_it_is_a_line():
    assert entries("  key value\n") == [(1, "key", "value")]


def test_aliases_have_colons_and_quotes():
    assert entries('Root: user\n"a b: c": x\npostmaster:root\n', parse_aliases) == [
        (1, "root", "user"),
        (2, "a b: c", "x"),
        (3, "postmaster", "root"),
    ]


@pytest.mark.parametrize(
    ("text", "parser"),
    [
        ("key\n", parse_map),
        ("\nkey value\nlonely", parse_map),
        ("root user\n", parse_aliases),
        ("root:\n", parse_aliases),
        ('"x: y\n', parse_aliases),
        (": x\n", parse_aliases),
    ],
)
def test_a_bad_line_is_named(text, parser):
    with pytest.raises(ConfigError, match=r"^f:\d"):
        entries(text, parser)


@pytest.mark.parametrize(("extra", "good"), [(-1, True), (0, True), (1, False)])
def test_a_logical_line_is_bounded(extra, good):
    text = "k v\n" + " " + "x" * (MAP_LINE_BYTES - 4 + extra)
    if good:
        assert entries(text)
    else:
        with pytest.raises(ConfigError, match="longer than"):
            entries(text)


def test_the_first_of_two_entries_counts(tmp_path):
    (tmp_path / "m").write_text("a one\nA two\n")
    assert read_source(tmp_path / "m") == {"a": "one"}


def test_the_compiled_map_answers_as_the_source(tmp_path):
    random.seed(1)
    source = {f"user{random.randrange(10**6)}@example.test": f"target{n}" for n in range(2000)}
    (tmp_path / "m").write_text("".join(f"{key} {value}\n" for key, value in source.items()))
    assert compile_map(tmp_path / "m") == len(source)
    compiled = CompiledMap(compiled_path(tmp_path / "m"))
    assert len(compiled) == len(source)
    for key in [*source, "absent", "", "zzz"]:
        assert compiled.get(key) == source.get(key)
    compiled.close()


def test_an_empty_source_compiles(tmp_path):
    (tmp_path / "m").write_text("# nothing\n")
    compile_map(tmp_path / "m")
    assert Table(f"hash:{tmp_path}/m").get("x") is None


def test_an_edit_counts_with_and_without_postmap(tmp_path):
    path = tmp_path / "m"
    path.write_text("a old\n")
    compile_map(path)
    table = Table(f"hash:{path}")
    assert table.get("a") == "old"
    assert not table.refresh()
    path.write_text("a newer\n")
    assert table.refresh()
    assert table.get("a") == "newer"
    compile_map(path)
    assert table.refresh()
    assert table.get("a") == "newer"


def test_the_compiled_form_stands_for_a_source_that_is_gone(tmp_path):
    path = tmp_path / "m"
    path.write_text("a x\n")
    compile_map(path)
    path.unlink()
    assert Table(f"hash:{path}").get("a") == "x"
    with pytest.raises(TemporaryFailure):
        Table(f"texthash:{path}").get("a")


@pytest.mark.parametrize("damage", [b"", b"FMTAMAP1", b"x" * 200])
def test_a_damaged_compiled_form_is_passed_over_while_there_is_a_source(tmp_path, damage):
    path = tmp_path / "m"
    path.write_text("a x\n")
    compile_map(path)
    compiled_path(path).write_bytes(damage)
    table = Table(f"hash:{path}")
    assert table.get("a") == "x"
    path.unlink()
    assert table.refresh()
    assert table.problem
    assert table.get("a") == "x"


def test_a_broken_edit_keeps_the_last_good_contents(tmp_path):
    path = tmp_path / "m"
    path.write_text("a x\n")
    table = Table(f"hash:{path}")
    path.write_text("a\n")
    os.utime(path, ns=(5, 5))
    assert table.refresh()
    assert table.get("a") == "x"
    assert "m:1: a: no value" in table.problem


def test_tables_are_asked_in_order_and_fold_keys(tmp_path):
    (tmp_path / "one").write_text("a 1\n")
    (tmp_path / "two").write_text("a 2\nb 2\n")
    tables = TableSet([f"hash:{tmp_path}/one", f"texthash:{tmp_path}/two"])
    assert (tables.get("A"), tables.get("B"), tables.get("c")) == ("1", "2", None)


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("a, b,c", ["a", "b", "c"]),
        ('"x, y"@d, b', ['"x, y"@d', "b"]),
        ("a (a comment, with comma), b", ["a", "b"]),
        ("a (nested (deep, x)), b", ["a", "b"]),
        (",, a ,", ["a"]),
        ('"a \\" b", c', ['"a \\" b"', "c"]),
        ("(unclosed, a", []),
    ],
)
def test_values_are_split_at_commas(value, items):
    assert split_targets(value) == items


def test_kinds_of_targets():
    value = '|cmd a, "|cmd b, c", /file, "/file d", :include:/x, ":include:/y z", \\user, "A B" <a@b>, c@d'
    kinds = TargetKind
    assert parse_targets(value) == [
        Target(kinds.COMMAND, "cmd a"),
        Target(kinds.COMMAND, "cmd b, c"),
        Target(kinds.FILE, "/file"),
        Target(kinds.FILE, "/file d"),
        Target(kinds.INCLUDE, "/x"),
        Target(kinds.INCLUDE, "/y z"),
        Target(kinds.ADDRESS, "user", True),
        Target(kinds.ADDRESS, "a@b"),
        Target(kinds.ADDRESS, "c@d"),
    ]


def test_an_include_holds_no_commands_and_has_an_absolute_path(tmp_path):
    (tmp_path / "i").write_text("a\n|cmd\n")
    with pytest.raises(ConfigError, match="commands are not allowed"):
        read_include(str(tmp_path / "i"))
    with pytest.raises(ConfigError, match="absolute"):
        read_include("relative")


@pytest.mark.parametrize(
    ("local_part", "delimiters", "split"),
    [
        ("user+ext", "+", ("user", "+ext")),
        ("user", "+", ("user", "")),
        ("user+", "+", ("user", "+")),
        ("+ext", "+", ("+ext", "")),
        ("a-b+c", "+-", ("a", "-b+c")),
        ("user+ext", "", ("user+ext", "")),
        ("owner-list", "-", ("owner-list", "")),
        ("list-request", "-", ("list-request", "")),
    ],
)
def test_extensions(local_part, delimiters, split):
    assert split_extension(local_part, delimiters) == split


@pytest.mark.parametrize(
    ("text", "address", "raw"),
    [
        ("A.b@C.d", Address("A.b", "c.d"), b"A.b@c.d"),
        ('"a b"@c', Address("a b", "c"), b'"a b"@c'),
        ('"a\\"b"@c', Address('a"b', "c"), b'"a\\"b"@c'),
        ('"plain"@c', Address("plain", "c"), b"plain@c"),
        ('"a@b"@c', Address("a@b", "c"), b'"a@b"@c'),
        ('"a..b"@c', Address("a..b", "c"), b'"a..b"@c'),
        ("x@b\u00fccher.de", Address("x", "xn--bcher-kva.de"), b"x@xn--bcher-kva.de"),
    ],
)
def test_addresses_are_taken_apart_and_put_together(text, address, raw):
    assert parse(text) == address
    assert address.raw == raw
