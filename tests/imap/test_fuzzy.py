"""FUZZY, RELEVANCY as a return option and as a sort key (RFC 6203)."""

import pytest

from tests.imap.harness import Client, World


async def filled(world: World) -> Client:
    client = await world.login("INBOX")
    for sender, subject, body in (
        ("ann", "other things", "the report of the year"),
        ("report", "the year", "nothing"),
        ("bob", "Year of the report", "body"),
        ("bob", "=?utf-8?q?Report_Year?=", "body"),
        ("bob", "report", "no more"),
    ):
        await client.append(f"From: {sender} <x@y.test>\r\nSubject: {subject}\r\n\r\n{body}\r\n".encode())
    return client


async def test_the_words_of_a_fuzzy_key_stand_anywhere(world: World) -> None:
    client = await filled(world)
    assert await client.ok('SEARCH TEXT "report year"') == [b"* SEARCH 4"]
    assert await client.ok('SEARCH FUZZY TEXT "report year"') == [b"* SEARCH 1 2 3 4"]
    assert await client.ok('SEARCH FUZZY SUBJECT "year REPORT"') == [b"* SEARCH 3 4"]
    assert await client.ok('SEARCH FUZZY HEADER X-NONE "year REPORT"') == [b"* SEARCH"]
    assert await client.ok('SEARCH NOT FUZZY BODY "year report"') == [b"* SEARCH 2 3 4 5"]
    assert await client.ok('SEARCH FUZZY (SUBJECT report FROM "  bob ")') == [b"* SEARCH 3 4 5"]
    assert await client.ok('SEARCH FUZZY TEXT ""') == [b"* SEARCH 1 2 3 4 5"]
    assert await client.ok("SEARCH FUZZY UNSEEN") == [b"* SEARCH 1 2 3 4 5"]


async def test_relevancy_is_told_of_what_is_returned(world: World) -> None:
    client = await filled(world)
    key = 'FUZZY TEXT "report year"'
    assert (await client.ok(f"SEARCH RETURN (RELEVANCY ALL) {key}"))[0].endswith(b" ALL 1:4 RELEVANCY (33 83 99 100)")
    assert (await client.ok(f"UID SEARCH RETURN (MAX RELEVANCY) {key}"))[0].endswith(b" UID MAX 4 RELEVANCY (100)")
    partial = await client.ok(f"SEARCH RETURN (PARTIAL 1:2 RELEVANCY) {key}")
    assert partial[0].endswith(b" PARTIAL (1:2 1:2) RELEVANCY (33 83)")
    assert (await client.ok("SEARCH RETURN (RELEVANCY) FUZZY TEXT nowhere"))[0].endswith(b" RELEVANCY ()")
    assert (await client.ok("SEARCH RETURN (ALL RELEVANCY) FUZZY UNSEEN 1"))[0].endswith(b" RELEVANCY (100)")
    several = await client.ok(f"ESEARCH IN (personal) RETURN (COUNT RELEVANCY) {key}")
    assert several[0].endswith(b" UID COUNT 4 RELEVANCY (33 83 99 100)")


async def test_what_is_most_relevant_sorts_first(world: World) -> None:
    client = await filled(world)
    key = 'UTF-8 FUZZY TEXT "report year"'
    assert await client.ok(f"SORT (RELEVANCY) {key}") == [b"* SORT 4 3 2 1"]
    assert await client.ok(f"SORT (REVERSE RELEVANCY SUBJECT) {key}") == [b"* SORT 1 2 3 4"]
    told = await client.ok(f"SORT RETURN (ALL RELEVANCY) (RELEVANCY) {key}")
    assert told[0].endswith(b" ALL 4,3,2,1 RELEVANCY (100 99 83 33)")
    told = await client.ok(f"UID SORT RETURN (PARTIAL 1:1 RELEVANCY) (ARRIVAL) {key}")
    assert told[0].endswith(b" PARTIAL (1:1 1) RELEVANCY (33)")


@pytest.mark.parametrize(
    "command",
    [
        "SEARCH RETURN (RELEVANCY) TEXT a",
        "SORT (RELEVANCY) UTF-8 TEXT a",
        "SORT RETURN (RELEVANCY) (DATE) UTF-8 TEXT a",
        "ESEARCH IN (personal) RETURN (RELEVANCY) TEXT a",
        "SEARCH FUZZY",
        "SEARCH FUZZY " + "FUZZY " * 100 + "ALL",
    ],
)
async def test_what_makes_no_sense_is_bad(world: World, command: str) -> None:
    client = await filled(world)
    assert (await client.do(command))[-1].startswith(b"BAD")


async def test_very_many_words_are_too_many_keys(world: World) -> None:
    client = await filled(world)
    words = b"w " * 2000
    assert (await client.do(b"SEARCH FUZZY TEXT {%d+}\r\n" % len(words) + words))[-1].startswith(b"BAD")


async def test_fuzzy_search_is_announced(world: World) -> None:
    client = await world.login()
    assert b" SEARCH=FUZZY " in (await client.ok("CAPABILITY"))[0]
