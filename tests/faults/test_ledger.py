"""Nothing that was answered 250 is lost, under five rounds of kill -9; `make faults` does many more."""

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import ledger

ROUNDS = 5


@pytest.mark.timeout(300)
def test_what_was_promised_is_delivered_whatever_is_killed() -> None:
    seed = int(os.environ.get("FASTMTA_SEED") or int.from_bytes(os.urandom(3), "big"))
    rounds = int(os.environ.get("FASTMTA_LEDGER_ROUNDS") or ROUNDS)
    problems = ledger.run(rounds, seed, load_s=0.7)
    assert not problems, "\n".join(problems)


SENT = {"m1": "aa", "m2": "bb"}
PROMISED = [("m1", "anna@example.test", "aa"), ("m2", "x@remote.example", "bb")]
AT_ANNA, AT_SINK = PROMISED


def test_the_verdict_is_clean_when_all_is_where_it_belongs() -> None:
    verdict = ledger.judge(SENT, PROMISED, Counter([AT_ANNA]), Counter([AT_SINK]))
    assert verdict.problems(duplicates_allowed=0) == []


@pytest.mark.parametrize(
    ("in_mailboxes", "at_sink", "complaint"),
    [
        ([], [AT_SINK], "1 lost: m1 for anna@example.test"),
        ([("m1", "bill@example.test", "aa")], [AT_SINK], "1 lost: m1 for anna@example.test"),
        ([AT_ANNA, ("m2", "bill@example.test", "cc")], [AT_SINK], "1 corrupt: m2 for bill@example.test"),
        ([AT_ANNA, ("m9", "bill@example.test", "aa")], [AT_SINK], "1 unknown: m9 for bill@example.test"),
        ([AT_ANNA, AT_ANNA], [AT_SINK], "1 doubled in mailboxes: m1 for anna@example.test"),
        ([AT_ANNA], [AT_SINK] * 3, "2 doubled at the sink, 1 allowed"),
    ],
)
def test_the_verdict_names_what_is_wrong(
    in_mailboxes: list[ledger.Entry], at_sink: list[ledger.Entry], complaint: str
) -> None:
    verdict = ledger.judge(SENT, PROMISED, Counter(in_mailboxes), Counter(at_sink))
    assert complaint in verdict.problems(duplicates_allowed=1)


def test_what_was_answered_before_the_kill_is_told_apart_from_what_was_on_its_way(tmp_path: Path) -> None:
    """m1 was answered, then its server was killed and sent it again; m2 was answered after the kill both times."""
    sink_file = tmp_path / "at-sink"
    Path(f"{sink_file}.answered").write_text(
        "m1 x@d 9.90\nm3 x@d 9.95\nm2 x@d 10.01\nm2 y@d 10.01\nm1 x@d 11\nm2 x@d 11\n"
    )
    at_sink = Counter({("m1", "x@d", ""): 2, ("m2", "x@d", ""): 2, ("m2", "y@d", ""): 1, ("m3", "x@d", ""): 1})
    assert ledger.doubled_after_answer(ledger.answers_of(sink_file), [10.0]) == 1
    assert ledger.summary(sink_file, at_sink, [10.0]) == (
        "1 kills, 10 recipients a second before them: doubled after their answer 1 (1.00 a kill),"
        " on their way 1 (1.00 a kill)"
    )
