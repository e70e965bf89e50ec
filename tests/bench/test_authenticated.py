"""The message of the rows with authentication: it passes all checks, at a known number of public-key operations."""

import asyncio
from pathlib import Path

from bench import authenticated, native
from tests.support.smtp_sink import SmtpSink


def test_the_signed_message_passes_with_three_verifications() -> None:
    raw = authenticated.signed_message()
    assert authenticated.verifications(raw) == 3  # DKIM, ARC's message signature, ARC's seal
    assert authenticated.OCTETS <= len(raw) < authenticated.OCTETS + 2400


def test_ratios_are_medians_of_the_rounds_own() -> None:
    rows = {
        "fastmta-bare": {"whole_us": [100.0, 200.0, 100.0], "less_us": [100.0, 200.0, 100.0]},
        "fastmta-verify": {"whole_us": [400.0, 800.0, 300.0], "less_us": [300.0, 600.0, 200.0]},
        "postfix-verify": {"whole_us": [4000.0, 8000.0, 6000.0], "less_us": [3900.0, 7900.0, 5900.0]},
    }
    found = authenticated.ratios(rows)
    assert found["verify, less, to the bare accept"] == 3.0
    assert found["verify, whole, to Postfix"] == 0.1
    assert "sign, whole, to Postfix" not in found


async def test_the_generator_sends_the_message_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "letter"
    path.write_bytes(authenticated.plain_message())
    async with SmtpSink() as sink:
        await asyncio.to_thread(
            native.smtp_load, sink.port, sessions=1, messages=2, size=0, to="a@b.example", message=path
        )
        assert [message.data for message in sink.messages] == [authenticated.plain_message()] * 2
