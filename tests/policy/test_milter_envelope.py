"""What filters ask for beside the header: other recipients, another sender, another body."""

import time
from pathlib import Path

import pytest

from fastmta.model.limits import CHECK_COPIES
from fastmta.model.verdict import Action
from tests.policy.test_milters import LETTER, Parts, added, ask, placed
from tests.support.scripted_milter import CONTINUE, packet, scripted_milter, terms

ALL = terms(actions=0x1FF)
BOB, EVE = b"-<bob@example.test>\0", b"-<eve@example.test>\0"
HEADER = LETTER.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def answer(*packets: bytes) -> dict[bytes, bytes]:
    return {b"E": b"".join(packet(each[:1], each[1:]) for each in packets) + CONTINUE}


async def test_recipients_are_added_and_removed(tmp_path: Path) -> None:
    parts = Parts()
    asked = answer(b"+<new@example.test>\0", b"2<par@example.test>\0NOTIFY=NEVER\0", b"+bob@EXAMPLE.test\0", EVE)
    async with scripted_milter(tmp_path / "m", asked, offer=ALL):
        verdict = await ask(f"unix:{tmp_path}/m", parts=parts)
    assert verdict.copies == (b"new@example.test", b"par@example.test")
    assert verdict.removed == (1,) and verdict.action is Action.NONE
    assert parts.told == [("policy.recipient_removed", "eve@example.test")]


@pytest.mark.parametrize("packets", [(BOB, EVE), (b"+x@y.test\0", BOB, EVE, b"-x@y.test\0")])
async def test_a_message_for_nobody_is_dropped_with_a_word(tmp_path: Path, packets: tuple[bytes, ...]) -> None:
    parts = Parts()
    async with scripted_milter(tmp_path / "m", answer(*packets), offer=ALL):
        verdict = await ask(f"unix:{tmp_path}/m", parts=parts)
    assert verdict.action is Action.DISCARD and verdict.reason
    assert len(parts.told) == 2


async def test_who_is_removed_and_added_again_stays(tmp_path: Path) -> None:
    async with scripted_milter(tmp_path / "m", answer(EVE, b"+eve@example.test\0"), offer=ALL):
        verdict = await ask(f"unix:{tmp_path}/m")
    assert (verdict.removed, verdict.copies) == ((), ())


async def test_added_recipients_are_bounded(tmp_path: Path) -> None:
    many = [b"+u%d@example.test\0" % number for number in range(CHECK_COPIES + 1)]
    parts = Parts()
    async with scripted_milter(tmp_path / "m", answer(*many), offer=ALL):
        verdict = await ask(f"unix:{tmp_path}/m", parts=parts)
    assert len(verdict.copies) == CHECK_COPIES
    assert parts.told == [("policy.recipient_not_added", f"u{CHECK_COPIES}@example.test")]


async def test_changes_of_many_recipients_are_found_without_looking_all_through(tmp_path: Path) -> None:
    everybody = tuple(b"u%d@example.test" % number for number in range(2000))
    changes = [b"-<u%d@EXAMPLE.test>\0" % number for number in range(1999, 2999)]
    spent = []
    for each in "12345":
        async with scripted_milter(tmp_path / each, answer(*changes), offer=terms(0x1FF, steps=0x100008)):
            began = time.process_time()
            verdict = await ask(f"unix:{tmp_path}/{each}", recipients=everybody)
            spent.append(time.process_time() - began)
        assert verdict.removed == (1999,)
    assert min(spent) < 0.2, spent  # looking all through took 0.5 s more


@pytest.mark.parametrize("sender", [b"<new@sender.test>", b"new@sender.test", b"<>"])
async def test_the_sender_is_changed(tmp_path: Path, sender: bytes) -> None:
    async with scripted_milter(tmp_path / "m", answer(b"e" + sender + b"\0SIZE=3\0"), offer=ALL):
        verdict = await ask(f"unix:{tmp_path}/m")
    assert verdict.sender == sender.strip(b"<>")


async def test_the_body_is_replaced_in_pieces_and_filters_behind_see_all_of_it(tmp_path: Path) -> None:
    big = b"y" * 60_000 + b"\n"
    first = answer(b"bAnother\r\n", b"b" + big, b"bend", BOB, b"e<new@sender.test>\0")
    first[b"E"] = added(b"X-New", b" a") + placed(b"m", 1, b"Subject", b"") + first[b"E"]
    parts = Parts()
    setting = f"unix:{tmp_path}/a, unix:{tmp_path}/b"
    async with (
        scripted_milter(tmp_path / "a", first, offer=ALL),
        scripted_milter(tmp_path / "b") as second,
    ):
        verdict = await ask(setting, parts=parts)
    whole = b"Another\r\n" + big[:-1] + b"\r\nend\r\n"
    assert verdict.body.blob.octets == HEADER + whole  # cuts still lie where they did
    assert [LETTER[at : at + octets] for at, octets in verdict.cuts] == [b"Subject: one\r\n two\r\n"]
    assert b"".join(second.data(b"B")) == whole
    assert second.data(b"M") == [b"<new@sender.test>\0"]
    assert second.data(b"R") == [b"<eve@example.test>\0"]


@pytest.mark.parametrize(
    ("came", "header"), [(b"Subject: x\r\n", b"Subject: x\r\n\r\n"), (b"\r\nHello\r\n", b"\r\n"), (LETTER, HEADER)]
)
async def test_a_body_is_put_in_behind_an_empty_line(tmp_path: Path, came: bytes, header: bytes) -> None:
    async with scripted_milter(tmp_path / "m", answer(b"bAnother\r\n"), offer=ALL):
        verdict = await ask(f"unix:{tmp_path}/m", came)
    assert verdict.body.blob.octets == header + b"Another\r\n"


async def test_the_last_body_counts_and_the_others_are_given_up(tmp_path: Path) -> None:
    parts = Parts()
    setting = f"unix:{tmp_path}/a, unix:{tmp_path}/b"
    async with (
        scripted_milter(tmp_path / "a", answer(b"bone"), offer=ALL),
        scripted_milter(tmp_path / "b", answer(b"btwo\r\n"), offer=ALL),
    ):
        verdict = await ask(setting, parts=parts)
    assert verdict.body.blob.octets == HEADER + b"two\r\n"
    assert [each.given_up for each in parts.blobs] == [True, False]


@pytest.mark.parametrize("last", [packet(b"?"), b"\xff\xff\xff\xff", packet(b"t"), packet(b"b", b"x" * 65_000) * 8])
async def test_a_body_of_a_filter_that_fails_refuses_or_says_too_much_is_given_up(tmp_path: Path, last: bytes) -> None:
    parts = Parts()
    async with scripted_milter(tmp_path / "m", {b"E": packet(b"b", b"x") + last}, offer=ALL):
        verdict = await ask(f"unix:{tmp_path}/m", parts=parts)
    assert verdict.action is Action.DEFER and verdict.body is None
    assert [each.given_up for each in parts.blobs] == [True]
