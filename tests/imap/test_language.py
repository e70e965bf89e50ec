"""LANGUAGE (RFC 5255): English is all there is, and said so."""

import pytest

from tests.imap.harness import World


@pytest.mark.parametrize(
    ("arguments", "told", "answer"),
    [
        ("", [b"* LANGUAGE (EN i-default)"], b"OK "),
        (" EN", [b"* LANGUAGE (EN)"], b"OK "),
        (" fr-CA en-CA", [b"* LANGUAGE (EN)"], b"OK "),
        (' "default"', [b"* LANGUAGE (i-default)"], b"OK "),
        (' "*"', [b"* LANGUAGE (EN)"], b"OK "),
        (" DE", [], b"NO "),
        (" ENG", [], b"NO "),
        (" x" * 101, [], b"BAD "),
    ],
)
async def test_what_is_answered(world: World, arguments: str, told: list[bytes], answer: bytes) -> None:
    client = world.connect()  # it is for every state
    await client.settle()
    client.take()
    lines = await client.do(f"LANGUAGE{arguments}")
    assert lines[:-1] == told
    assert lines[-1].startswith(answer)
