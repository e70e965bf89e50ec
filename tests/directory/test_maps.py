import os
import random
import sys
import threading
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmta.config.schema import Config
from fastmta.directory import maps
from fastmta.directory.addresses import Address, parse, split_extension
from fastmta.directory.aliases import Target, TargetKind, parse_targets, read_include, split_targets
from fastmta.directory.compiled import CompiledMap
from fastmta.directory.maps import Table, TableSet, compile_map, compiled_path, contents_of, read_source
from fastmta.directory.named import contents_named
from fastmta.directory.packed import Packed
from fastmta.directory.source import parse_aliases, parse_map
from fastmta.model.errors import ConfigError, TemporaryFailure
from fastmta.model.limits import MAP_AT_ONCE_BYTES, MAP_BLOCK_BYTES, MAP_LINE_BYTES, MAP_PIECE


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


_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\n") | st.sampled_from(["\udc80", "a", "b"])


def _long(path, value):
    path.write_text("".join(f"key{n} {value}\n" for n in range(20_000)))


def _refreshed(table, deadline_s=30.0):
    until = time.monotonic() + deadline_s
    while not table.refresh():
        assert time.monotonic() < until
        time.sleep(0.002)


def test_a_long_source_is_read_again_beside_the_loop_and_the_old_contents_serve_meanwhile(tmp_path, monkeypatch):
    path = tmp_path / "m"
    _long(path, "old")
    table = Table(f"texthash:{path}")
    readers, may_go_on = [], threading.Event()

    def pausing(*arguments):
        readers.append(threading.current_thread())
        assert may_go_on.wait(30)
        return Packed(*arguments)

    monkeypatch.setattr(maps, "Packed", pausing)
    _long(path, "newer")
    assert not table.refresh()
    assert table.get("key7") == "old"
    may_go_on.set()
    _refreshed(table)
    assert table.get("key7") == "newer"
    assert readers and threading.main_thread() not in readers


def test_a_long_source_pauses_after_each_piece():
    pauses = []
    entries = ((f"key{n}", "x") for n in range(4 * MAP_PIECE + 1))
    assert len(Packed(entries, lambda: pauses.append(1))) == 4 * MAP_PIECE + 1
    assert len(pauses) == 2 * 4  # as it is read, and as its index is made


@pytest.mark.parametrize(("extra", "beside"), [(-1, False), (0, False), (1, True)])
def test_up_to_which_length_a_source_is_read_at_once(tmp_path, extra, beside):
    path = tmp_path / "m"
    path.write_text("a x\n")
    table = Table(f"texthash:{path}")
    path.write_text("a y" + "y" * (MAP_AT_ONCE_BYTES + extra - 4) + "\n")
    assert table.refresh() is not beside
    if beside:
        _refreshed(table)
    assert table.get("a").startswith("yy")


def _grows_after_it_is_looked_at(monkeypatch, path, text):
    """Has the file hold `text` from the moment on when its size has been seen for the first time."""
    seen, texts = maps.Contents._seen, [text]

    def see(contents):
        stamps = seen(contents)
        if texts:
            path.write_text(texts.pop())
        return stamps

    monkeypatch.setattr(maps.Contents, "_seen", see)


@pytest.mark.parametrize(("extra", "beside"), [(-1, False), (0, False), (1, True)])
@pytest.mark.parametrize("kind", ["texthash", "hash", "regexp"])
def test_a_source_that_grows_once_its_size_was_seen_is_read_on_the_loop_up_to_the_bound(
    tmp_path, monkeypatch, kind, extra, beside
):
    path = tmp_path / "m"
    path.write_text("/a/ x\n")
    table = Table(f"{kind}:{path}")
    path.write_text("/a/ xx\n")
    _grows_after_it_is_looked_at(monkeypatch, path, "/a/ y" + "y" * (MAP_AT_ONCE_BYTES + extra - 6) + "\n")
    assert table.refresh() is not beside
    if beside:
        assert table.get("/a/") == "x"
        table._contents._reader.join(30)
        assert table.refresh()
    assert table.get("/a/").startswith("yy")


def test_of_a_source_that_seems_empty_one_byte_over_the_bound_is_read_on_the_loop(tmp_path, monkeypatch):
    path = tmp_path / "m"
    path.write_text("a x\n")
    parsed = {}

    def counting(lines, name, bad):
        def counted():
            for line in lines:
                thread = threading.current_thread()
                parsed[thread] = parsed.get(thread, 0) + len(line) + 1
                yield line

        return parse_map(counted(), name, bad)

    table = Table(f"texthash:{path}", counting)
    _long(path, "newer")
    monkeypatch.setattr(maps, "_stamp", lambda path: (1, 0, 1))
    parsed.clear()
    assert not table.refresh()
    assert parsed.get(threading.main_thread(), 0) <= MAP_AT_ONCE_BYTES + 1
    table._contents._reader.join(30)
    assert table.refresh()
    assert not table.refresh(), "it is not read again and again"
    assert len(table) == 20_000


def test_a_new_source_that_grows_once_it_was_read_ahead_is_not_read_on_the_loop(tmp_path):
    path = tmp_path / "m"
    path.write_text("a x\n")
    contents = contents_of(f"texthash:{path}")
    thread = threading.Thread(target=contents.read_ahead)
    thread.start()
    thread.join(30)
    _long(path, "newer")
    table = Table(f"texthash:{path}")
    assert table.get("a") == "x"
    contents._reader.join(30)
    assert table.refresh()
    assert table.get("key1") == "newer"


def test_tables_of_one_name_are_read_once(tmp_path, monkeypatch):
    path = tmp_path / "m"
    _long(path, "x")
    first = Table(f"texthash:{path}")
    monkeypatch.setattr(maps, "Packed", None)  # nobody may call it
    assert Table(f"texthash:{path}").get("key1") == first.get("key1") == "x"


def test_what_was_read_ahead_is_there_at_the_next_look(tmp_path):
    path = tmp_path / "m"
    _long(path, "old")
    table = Table(f"texthash:{path}")
    _long(path, "newer")
    thread = threading.Thread(target=contents_of(f"texthash:{path}").read_ahead)
    thread.start()
    thread.join(30)
    assert table.get("key1") == "old"
    assert table.refresh()
    assert table.get("key1") == "newer"


def test_lines_longer_than_a_block_are_whole(tmp_path):
    path = tmp_path / "m"
    value = "é" * MAP_BLOCK_BYTES
    path.write_text(f"a {value}\nb x", "utf-8")
    assert read_source(path) == {"a": value, "b": "x"}


def test_every_table_that_a_configuration_names_is_found(tmp_path):
    for name in ("virtual", "aliases", "clients"):
        (tmp_path / name).write_text("a: x\n" if name == "aliases" else "a OK\n")
    config = msgspec.structs.replace(
        Config(),
        virtual_alias_maps=(f"hash:{tmp_path}/virtual",),
        alias_maps=(f"texthash:{tmp_path}/aliases",),
        smtpd_client_restrictions=("check_client_access", f"hash:{tmp_path}/clients"),
    )
    found = contents_named(config)
    for each in found:
        each.look()
    assert sorted(each.data.get("a") for each in found) == ["OK", "OK", "x"]


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.tuples(st.text(_CHARACTERS, max_size=4), st.text(_CHARACTERS, max_size=4))))
def test_a_packed_table_says_what_a_dict_says(rows):
    packed, plain = Packed(rows), {}
    for key, value in rows:
        plain.setdefault(key, value)
    assert len(packed) == len(plain)
    assert {key: packed.get(key) for key in plain} == plain
    assert sorted(packed.values()) == sorted(plain.values())
    for missing in ("nobody", "", "a\nb", *(f"{key}\n{value}" for key, value in rows)):
        assert packed.get(missing) == plain.get(missing)


def test_a_packed_table_takes_less_than_half_of_a_dict():
    rows = [(f"user{n}@elsewhere.test", f"somebody{n}@example.test") for n in range(20_000)]
    packed = Packed(rows)
    plain = dict(rows)
    octets = sys.getsizeof(plain) + sum(sys.getsizeof(each) for pair in rows for each in pair)
    assert 2 * (sys.getsizeof(packed._text) + sys.getsizeof(packed._index)) < octets
