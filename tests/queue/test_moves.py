"""The table of moves is the README's, pair by pair."""

import itertools
import re
from pathlib import Path

import fastmta.queue
from fastmta.model.envelope import RecipientState
from fastmta.queue.moves import LEGAL, LIVE, is_legal


def readme_moves():
    text = (Path(fastmta.queue.__file__).parent / "README.md").read_text()
    pattern = r"^\| ([a-z, ]+) \| ((?:active|deferred|held|delivered|bounced)[a-z, ]*) \|"
    return {
        (RecipientState[before.strip().upper()], RecipientState[after])
        for befores, afters in re.findall(pattern, text, re.MULTILINE)
        for before in befores.split(",")
        for after in RecipientState.__members__
        if after.lower() in afters
    }


def test_every_pair_of_states_is_legal_exactly_where_the_readme_says():
    assert readme_moves() == LEGAL
    for pair in itertools.product(RecipientState, repeat=2):
        assert is_legal(*pair) == (pair in LEGAL)


def test_nothing_leaves_a_final_state():
    assert {before for before, _ in LEGAL} == LIVE
