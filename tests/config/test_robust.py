"""Whatever stands in the file, the answer is a configuration or a list of problems, never another error."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmta.config.load import parse_all
from fastmta.config.schema import leaves

LEAVES = leaves()
TEXTS = st.text(max_size=30) | st.sampled_from(["$mydomain", "${", "$$", "unix:", "[::]:", "5d", "hash:", "a:1", "yes"])
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.booleans(), TEXTS, st.lists(TEXTS | st.integers(0, 9), max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LEAVES), VALUES), max_size=4, unique_by=lambda each: each[0].dotted))
def test_any_value_of_any_key(given_values):
    lines = []
    for leaf, value in sorted(given_values, key=lambda each: each[0].table):
        key = f"{leaf.table}.{leaf.name}" if leaf.table else leaf.name
        lines.append(f"{key} = {json.dumps(value)}")  # JSON is TOML here, but for surrogate pairs and DEL
    config, problems = parse_all("\n".join(lines), base="/x", name="f")
    assert (config is None) == bool(problems)
    assert all(str(problem).isprintable() for problem in problems)


@pytest.mark.parametrize("key", ["mynetworks", "smtpd_client_event_limit_exceptions", "proxy_interfaces"])
def test_a_problem_is_one_line(key):
    _, problems = parse_all(f'{key} = ["0\\n0\\u001b\\u2028"]', base="/x", name="f")
    assert problems and all("\\n0\\x1b\\u2028" in str(problem) for problem in problems)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab=[].\"' \n#\\{}$1,", max_size=60))
def test_any_text(text):
    config, problems = parse_all(text, base="/x", name="f")
    assert (config is None) == bool(problems)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=3))
def test_any_route(routes):
    text = "[transport]\n" + "".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in routes.items())
    config, problems = parse_all(text, base="/x", name="f")
    assert (config is None) == bool(problems)
    if config is not None:
        from fastmta.delivery.routing import Router

        Router(config)
