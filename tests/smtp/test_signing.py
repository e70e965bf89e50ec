"""The signature on submitted mail holds for what is stored, whatever the other checks have made of what came."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fastmta.authentication.signing import load_own_signer
from fastmta.config.load import parse
from fastmta.policy.plan import plan_for
from fastmta.store.dkim_keys import DkimKey
from tests.e2e.test_signing import verdicts
from tests.smtp.test_submission import submit
from tests.support.scripted_milter import CONTINUE, packet, scripted_milter, terms
from tests.support.smtp_rig import SmtpRig

LETTER = (
    b"From: bill@example.test\r\nTo: x@elsewhere.test\r\nBcc: y@elsewhere.test\r\nSubject: one\r\n two\r\n"
    b"Reply-To: old@example.test\r\nReferences: <1@x>\r\n\r\nHello\r\n"
)
HEADER = (
    packet(b"m", b"\0\0\0\1Subject\0 other\0")
    + packet(b"m", b"\0\0\0\1References\0\0")
    + packet(b"h", b"List-Id\0 <a.example.test>\0")
    + packet(b"i", b"\0\0\0\0Cc\0 z@elsewhere.test\0")
)
BODY = packet(b"b", b"Another  \r\nbo") + packet(b"b", b"dy\r\n\r\n\r\n")
TABLE = """
/^Subject:/ REPLACE Subject: replaced
/^References:/ IGNORE
/^Reply-To:/ PREPEND Cc: z@elsewhere.test
"""
KEY = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
Submit = Callable[..., Any]


@pytest.fixture
def submitted(rig: SmtpRig, tmp_path: Path) -> Submit:
    """What is stored of the letter with this configuration, and what its signatures come to."""

    async def put(keys: str, answers: dict[bytes, bytes], *recipients: bytes) -> tuple[bytes, list[str]]:
        await rig.store.dkim_keys.add(DkimKey("example.test", "s1", "ed25519", "active", KEY, 1, 1))
        config = parse(f'smtpd_milters = "unix:{tmp_path}/m"\nsmtpd_peername_lookup = false\n{keys}', base=tmp_path)
        rig.server.plan = lambda service: plan_for(service, config, rig)  # type: ignore[method-assign, arg-type]
        rig.server.reload(rig)  # type: ignore[arg-type]
        async with scripted_milter(tmp_path / "m", answers, offer=terms(actions=0x1FF)):
            client = submit(rig)
            client.say(b"MAIL FROM:<bill@example.test>\r\n")
            for each in recipients or (b"x@elsewhere.test",):
                client.say(b"RCPT TO:<%b>\r\n" % each)
            assert client.say(b"DATA\r\n").startswith(b"354 ")
            client.feed(LETTER + b".\r\n")
            async with asyncio.timeout(60):
                while not client.session.is_committing:
                    assert client.take() == b""
                    await asyncio.sleep(0)
            rig.settle()
        assert client.take().startswith(b"250 ")
        (stored,) = rig.blobs()
        return stored, await verified(stored, rig.clock.now())

    return put


async def verified(stored: bytes, now: float) -> list[str]:
    record = load_own_signer(KEY, "example.test", "s1").public_record()
    found = await verdicts(stored, {"s1._domainkey.example.test": {"TXT": [record]}}, now)
    return [f"{each.result} {each.reason}".rstrip() for each in found]


@pytest.mark.parametrize("answer", [HEADER, BODY, HEADER + BODY, b""], ids=["header", "body", "both", "nothing"])
async def test_it_holds_for_what_filters_make_of_a_message(submitted: Submit, answer: bytes) -> None:
    stored, found = await submitted("", {b"E": answer + CONTINUE})
    assert found == ["pass"], stored
    assert (b"Subject: other\r\n" in stored) is (HEADER in answer)
    assert (b"Another  \r\nbody\r\n" in stored) is (BODY in answer)
    assert b"\r\nDate: " in stored and b"\r\nMessage-ID: " in stored and b"Bcc" not in stored


@pytest.mark.parametrize(
    ("keys", "made"),
    [
        ('header_checks = "regexp:table"', b"Subject: replaced\r\n"),
        (
            'smtpd_recipient_restrictions = ["check_sender_access regexp:prepend", "permit"]',
            b"Cc: z@elsewhere.test\r\n",
        ),
        (
            'canonical_maps = "inline:{ {old@example.test = new@example.test} }"\n'
            'local_header_rewrite_clients = "permit_sasl_authenticated"',
            b"Reply-To: new@example.test\r\n",
        ),
    ],
    ids=["header_checks", "prepend", "rewriting"],
)
@pytest.mark.parametrize("answer", [HEADER + BODY, b""], ids=["filtered", "alone"])
async def test_it_holds_for_what_tables_make_of_it(
    submitted: Submit, tmp_path: Path, keys: str, made: bytes, answer: bytes
) -> None:
    (tmp_path / "table").write_text(TABLE)
    (tmp_path / "prepend").write_text("/./ PREPEND Cc: z@elsewhere.test\n")
    stored, found = await submitted(keys, {b"E": answer + CONTINUE})
    assert made in stored
    assert found == ["pass"], stored


async def test_it_is_made_for_those_whom_a_filter_does_not_refuse(submitted: Submit) -> None:
    refused = {b"R<y@elsewhere.test>\0": packet(b"y", b"550 5.7.1 not y\0"), b"E": HEADER + CONTINUE}
    stored, found = await submitted("", refused, b"x@elsewhere.test", b"y@elsewhere.test")
    assert b"Subject: other\r\n" in stored
    assert found == ["pass"], stored
