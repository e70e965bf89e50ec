"""SORT, THREAD and the base subject (RFC 5256, RFC 5957, RFC 5267)."""

import random

import pytest

from fastmta import _imap
from fastmta.imap import threads
from fastmta.imap.subject import base_subject
from tests.imap.built_threads import Built
from tests.imap.harness import Client, World


@pytest.mark.parametrize(
    ("subject", "base", "answers"),
    [
        ("", "", False),
        ("Hello", "HELLO", False),
        ("Re: Hello", "HELLO", True),
        ("RE : re: Hello  there ", "HELLO THERE", True),
        ("Fw: Fwd: FWD: x", "X", True),
        ("Re[2]: x", "X", True),
        ("re [list]: [blob] x", "X", True),
        ("[list] Re: [other] x", "X", True),
        ("[list] x", "X", False),
        ("[list]", "[LIST]", False),
        ("x (fwd)", "X", True),
        ("x (fwd) (FWD)", "X", True),
        ("[Fwd: x]", "X", True),
        ("[fwd: re: x (fwd)]", "X", True),
        ("Re:", "", True),
        ("Reply: x", "REPLY: X", False),
        ("=?UTF-8?Q?Re:_=C3=84rger?=", "A\u0308RGER", True),
        ("a\tb   c", "A B C", False),
    ],
)
def test_base_subject(subject: str, base: str, answers: bool) -> None:
    assert base_subject(subject.encode()) == (base, answers)


@pytest.mark.parametrize(
    "text", ["[" * 1000, "[]" * 500, "Re:" * 333, "(fwd)" * 200, " \u3000" * 250, "[fwd:" * 200 + "]" * 200]
)
def test_a_hostile_subject_costs_little(text: str) -> None:
    base_subject(text.encode())


async def mail(client: Client, header: str, date: str = "") -> None:
    raw = header.replace("\n", "\r\n").encode() + b"\r\n\r\n"
    assert (await client.append(raw, arguments=date)).startswith(b"OK")


async def box(world: World) -> Client:
    client = await world.login("INBOX")
    await mail(client, "From: Zoe <b@x.test>\nTo: c@x.test\nSubject: Re: beta\nDate: Tue, 3 Mar 2026 10:00:00 +0000")
    await mail(
        client, "From: A <c@x.test>\nTo: b@x.test\nSubject: alpha\nDate: Tue, 3 Mar 2026 11:00:00 +0200\nCc: q@x.test"
    )
    await mail(
        client,
        "From: a@x.test\nTo: Bob <a@x.test>\nSubject: Beta\nDate: 1 Mar 2026 00:00 UT\nX: a long one, so it is larger",
    )
    await mail(client, "Subject: gamma\nDate: nonsense", '"01-Jan-2026 00:00:00 +0000"')
    await client.ok("NOOP")
    return client


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        ("SUBJECT", "2 1 3 4"),
        ("REVERSE SUBJECT", "4 1 3 2"),
        ("SUBJECT DATE", "2 3 1 4"),
        ("DATE", "4 3 2 1"),
        ("REVERSE DATE", "1 2 3 4"),
        ("FROM", "4 3 1 2"),
        ("TO", "4 3 2 1"),
        ("CC", "1 3 4 2"),
        ("DISPLAYFROM", "4 2 3 1"),
        ("DISPLAYTO", "4 2 3 1"),
        ("SIZE", "4 1 2 3"),
        ("ARRIVAL", "4 1 2 3"),
        ("REVERSE ARRIVAL REVERSE SIZE", "3 2 1 4"),
    ],
)
async def test_sort_orders_by_each_key(world: World, keys: str, order: str) -> None:
    client = await box(world)
    lines = await client.ok(f"SORT ({keys}) UTF-8 ALL")
    assert lines == [f"* SORT {order}".encode()]


async def test_sort_with_return_and_bad_syntax(world: World) -> None:
    client = await box(world)
    await client.ok("UID STORE 1 +FLAGS.SILENT (\\Deleted)")
    await client.ok("EXPUNGE")
    tag = b"t%d" % (client._tag + 1)
    lines = await client.ok("UID SORT RETURN (COUNT MIN MAX ALL) (REVERSE DATE) US-ASCII UNDELETED")
    assert lines == [b'* ESEARCH (TAG "' + tag + b'") UID MIN 2 MAX 4 COUNT 3 ALL 2:4']
    lines = await client.ok("SORT RETURN (PARTIAL 1:2) (DATE) US-ASCII ALL")
    assert lines[0].endswith(b"PARTIAL (1:2 3,2)")
    await client.ok("SORT RETURN (SAVE PARTIAL 1:2) (DATE) US-ASCII ALL")
    assert await client.ok("FETCH $ UID") == [b"* 2 FETCH (UID 3)", b"* 3 FETCH (UID 4)"]
    assert (await client.ok("SORT (DATE) UTF-8 SUBJECT nothing")) == [b"* SORT"]
    lines = await client.ok("SORT (DATE) UTF-8 MODSEQ 1")
    assert lines[-1].startswith(b"* SORT 3 2 1 (MODSEQ ")
    assert (await client.do("SORT (DATE) X-NONE ALL"))[-1].startswith(b"NO [BADCHARSET")
    for bad in (
        "SORT (DATE) UTF-8",
        "SORT () UTF-8 ALL",
        "SORT (FANCY) UTF-8 ALL",
        "SORT (REVERSE) UTF-8 ALL",
        "SORT DATE UTF-8 ALL",
    ):
        assert (await client.do(bad))[-1].startswith(b"BAD"), bad
    assert (await client.do("SORT (" + "DATE " * 16 + "DATE) UTF-8 ALL"))[-1].startswith(b"BAD")


@pytest.mark.parametrize("store_kind", ["memory"])
async def test_a_long_list_is_sorted_in_runs(world: World) -> None:
    client = await box(world)
    for _ in range(10):
        await client.ok("UID COPY 1:* INBOX")
    lines = await client.ok("SORT (SUBJECT REVERSE ARRIVAL) UTF-8 ALL")
    got = [int(each) for each in lines[0].split()[2:]]
    assert len(got) == 4096
    rank = {1: 1, 2: 0, 3: 1, 0: 2}
    assert got == sorted(range(1, 4097), key=lambda seq: (rank[seq % 4], seq % 4 == 0, seq))


@pytest.mark.parametrize("numbers", [",".join(["1:*"] * 15_000), ",".join(f"{n % 4 + 1}:4" for n in range(15_000))])
async def test_a_set_of_very_many_ranges_is_one_range(world: World, numbers: str) -> None:
    client = await box(world)
    for command in ("SORT (SUBJECT ARRIVAL) UTF-8", "UID SORT (DATE) UTF-8", "THREAD REFERENCES UTF-8"):
        assert await client.ok(f"{command} {numbers}") == await client.ok(f"{command} ALL")
        assert await client.ok(f"{command} UID {numbers}") == await client.ok(f"{command} ALL")


async def test_threads_by_references(world: World) -> None:
    client = await world.login("INBOX")
    day = "Date: Tue, {} Mar 2026 10:00:00 +0000\n"
    await mail(client, day.format(1) + "Message-ID: <1@x>\nSubject: one")
    await mail(client, day.format(4) + "Message-ID: <4@x>\nReferences: <1@x> <2@x>\nSubject: Re: one")
    await mail(client, day.format(2) + "Message-ID: <2@x>\nIn-Reply-To: <1@x>\nSubject: Re: one")
    await mail(client, day.format(3) + "Message-ID: <3@x>\nReferences: <gone@x>\nSubject: two")
    await mail(client, day.format(5) + "Message-ID: <5@x>\nReferences:\n <gone@x>\nSubject: Re: two")
    await mail(client, day.format(6) + "Message-ID: <6@x>\nSubject: Re: one")
    await mail(client, day.format(7) + "Message-ID: <7@x>\nReferences: <1@x>\nSubject: other")
    await mail(client, day.format(8) + "Message-ID: <1@x>\nSubject: a second one of this name")
    await client.ok("NOOP")
    assert await client.ok("THREAD REFERENCES UTF-8 ALL") == [b"* THREAD (1 (3 2)(6)(7))((4)(5))(8)"]
    assert await client.ok("THREAD REFS UTF-8 ALL") == [b"* THREAD ((4)(5))(6)(1 (3 2)(7))(8)"]
    assert await client.ok("UID THREAD ORDEREDSUBJECT UTF-8 ALL") == [b"* THREAD (1 (3)(2)(6))(4 5)(7)(8)"]
    assert await client.ok("THREAD REFERENCES UTF-8 SUBJECT nothing") == [b"* THREAD "]
    assert (await client.do("THREAD FANCY UTF-8 ALL"))[-1].startswith(b"BAD")
    assert (await client.do("THREAD REFERENCES X-NONE ALL"))[-1].startswith(b"NO [BADCHARSET")


def _built(messages: list[tuple[str, list[str]]]) -> bytes:
    built = Built(len(messages))
    for at, (name, references) in enumerate(messages):
        built.add(at, name, references)
    return built.text()


def test_loops_of_references_are_broken() -> None:
    assert _built([("a", ["b"]), ("b", ["a"])]) == b"(2 1)"
    assert _built([("a", ["a"])]) == b"(1)"
    assert _built([("a", ["b", "c"]), ("b", ["c", "a"]), ("c", ["a", "b"])]).count(b"1") == 1


def test_every_message_is_in_one_thread_once_whatever_the_references() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        names = [f"m{n}" for n in range(30)]
        messages = [(rng.choice(names), rng.sample(names, rng.randint(0, 5))) for _ in range(25)]
        text = _built(messages)
        numbers = [int(each) for each in text.replace(b"(", b" ").replace(b")", b" ").split()]
        assert sorted(numbers) == list(range(1, 26)), text


def test_a_long_chain_needs_no_recursion_and_a_bounded_look_for_loops() -> None:
    count = 20_000
    chain = [(f"m{n}", [f"m{n - 1}"] if n else []) for n in range(count)]
    text = _built(chain)
    assert text.count(b"(") == 1
    assert len(text.split()) == count
    random.Random(1).shuffle(chain)
    _built(chain)


def test_values_of_an_envelope() -> None:
    line = (
        b'* 3 FETCH (ENVELOPE ("Tue, 3 Mar 2026 10:00:00 +0100" "a \\"b\\"" ((NIL NIL "group" NIL)(NIL NIL "m" "h")'
        b'(NIL NIL NIL NIL)) NIL NIL (("N" NIL "m2" "h2")) NIL NIL "<i>" {3}\r\n<m>))\r\n* 4 FETCH (UID 1)\r\n'
    )
    got = _imap.envelope_values(line)
    assert got == [
        (
            3,
            1772528400,
            b"Tue, 3 Mar 2026 10:00:00 +0100",
            b'a "b"',
            (None, b"group", b""),
            (b"N", b"m2", b"h2"),
            None,
            b"<i>",
            b"<m>",
        )
    ]
    rng = random.Random(3)
    for _ in range(2000):  # nothing that is damaged breaks it
        broken = bytearray(line)
        broken[rng.randrange(len(broken))] = rng.choice(b'"(){}\\ N0\r\n')
        _imap.envelope_values(bytes(broken[: rng.randrange(len(broken))]))


@pytest.mark.parametrize(
    "date", ["3 Mar 2026 10:00:00 +0000", "Tue, 03 Mar 2026 10:00:00 -0330", "Tue, 3 Mar 2026 10:00:00 +0000 (UTC)"]
)
def test_plain_dates_are_read_as_the_library_reads_them(date: str) -> None:
    from email.utils import mktime_tz, parsedate_tz

    parsed = parsedate_tz(date)
    assert parsed is not None
    line = b'* 1 FETCH (ENVELOPE ("%b" NIL NIL NIL NIL NIL NIL NIL NIL NIL))\r\n' % date.encode()
    assert _imap.envelope_values(line)[0][1] == mktime_tz(parsed)


@pytest.mark.parametrize(("bound", "taken"), [(3, False), (4, True), (5, True)])
async def test_more_messages_than_the_bound_are_not_sorted(
    world: World, monkeypatch: pytest.MonkeyPatch, bound: int, taken: bool
) -> None:
    monkeypatch.setattr("fastmta.imap.commands.sort.IMAP_SORT_MESSAGES", bound)
    monkeypatch.setattr("fastmta.imap.commands.thread.IMAP_SORT_MESSAGES", bound)
    client = await box(world)
    for command in ("SORT (DATE) UTF-8 ALL", "THREAD REFERENCES UTF-8 ALL"):
        answer = (await client.do(command))[-1]
        assert answer.startswith(b"OK" if taken else b"NO [LIMIT]"), answer


@pytest.mark.parametrize(("bound", "text"), [(2, b"(1 2 3 4)(5)"), (3, b"(1 2 3 4)(5)"), (4, b"(1 2 3 4 5)")])
def test_a_loop_is_looked_for_to_a_bound(monkeypatch: pytest.MonkeyPatch, bound: int, text: bytes) -> None:
    """ "e" has an answer, so whether it is above "d" is asked; where that is not seen in time, the link is not made."""
    monkeypatch.setattr(threads, "IMAP_THREAD_DEPTH", bound)
    built = threads.Threads(6)
    chain = [("a", []), ("b", ["a"]), ("c", ["b"]), ("d", ["c"]), ("e", ["d"]), ("f", ["e"])]
    for at, (name, _) in enumerate(chain):
        built.add(at, name.encode(), None, at, "", False)
    for at in (0, 1, 2, 3, 5, 4):
        for _ in built.refer(at, [each.encode() for each in chain[at][1]]):
            pass
    for _ in built.link(range(6), by_subject=False):
        pass
    got = b"".join(built.forest.lines(range(1, 7)))
    assert got == text.replace(b"5", b"5 6")


async def test_marks_between_the_cases_stand_behind_the_letters(world: World) -> None:
    """i;unicode-casemap turns small letters into title case, and "[" and "_" come behind "Z" (RFC 5051)."""
    client = await world.login("INBOX")
    for subject in ("_", "b", "[x", "A", "=?utf-8?q?=C3=A9?=", "f", "ß", "ss", "~", "0"):
        await mail(client, f"Subject: {subject}")
    await client.ok("NOOP")
    assert (await client.ok("SORT (SUBJECT) UTF-8 ALL"))[0] == b"* SORT 10 4 2 5 6 8 3 1 9 7"


async def test_a_group_is_sorted_by_its_name(world: World) -> None:
    client = await world.login("INBOX")
    for field in ("z: aa@aa.test, bb@bb.test;", "b@c.test", "a: xx@xx.test;", "empty:;", '"D d": q@q.test;'):
        await mail(client, f"To: {field}\nCc: {field}")
    await client.ok("NOOP")
    for key in ("DISPLAYTO", "TO", "CC"):
        assert (await client.ok(f"SORT ({key}) UTF-8 ALL"))[0] == b"* SORT 3 2 5 4 1"


async def test_threads_of_one_date_stand_in_the_order_of_their_numbers(world: World) -> None:
    client = await world.login("INBOX")
    for subject in ("z", "a", "m", "Re: a"):
        await mail(client, f"Subject: {subject}\nDate: Tue, 3 Mar 2026 10:00:00 +0000")
    await client.ok("NOOP")
    assert (await client.ok("THREAD ORDEREDSUBJECT UTF-8 ALL"))[0] == b"* THREAD (1)(2 4)(3)"
