"""Our own reports pass the checks of our own mail: they are signed where our name has a key."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fastmta.authentication.signing import load_own_signer
from fastmta.model.envelope import NOTIFY_SUCCESS, LocalTarget, RecipientTail
from fastmta.store.dkim_keys import DkimKey
from tests.e2e.test_signing import verdicts

PEM = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(
    params=[{}, {"top": {"canonical_maps": "inline:{ {s@a.test = t@a.test} }"}}], ids=["plain", "rewriting"]
)
async def signing(make_rig, request):
    rig = make_rig(**request.param)
    await rig.store.dkim_keys.add(DkimKey("mx.test", "s1", "ed25519", "active", PEM, 1, 1))
    return rig


async def test_a_bounce_is_signed(signing):
    queue_id = await signing.queue(b"error:5.1.2 no such domain", b"x@b.test")
    await signing.gone(queue_id)
    ((message, row),) = signing.everything()
    raw = signing.store.queue.read(message.blob_id, 0, 100_000)
    assert raw.startswith(b"DKIM-Signature: ") and b"d=mx.test" in raw and b"\r\nReceived: by mx.test" in raw
    assert message.envelope.size_bytes == len(raw) and row.tail.forward_path == b"s@a.test"
    record = load_own_signer(PEM, "mx.test", "s1").public_record()
    found = await verdicts(raw, {"s1._domainkey.mx.test": {"TXT": [record]}}, signing.clock.now())
    assert [each.result for each in found] == ["pass"], found


async def test_a_report_of_success_into_a_mailbox_is_signed(signing):
    bob = await signing.store.accounts.add("bob@mx.test", "x")
    carl = await signing.store.accounts.add("carl@mx.test", "x")
    signing.directory.mailboxes[b"carl@mx.test"] = LocalTarget(carl.id, carl.inbox_id, b"carl@mx.test")
    await signing.queue(b"local:", RecipientTail(b"bob@mx.test", notify=NOTIFY_SUCCESS), sender=b"carl@mx.test")
    await signing.until(lambda: signing.store.mailboxes.by_id(carl.inbox_id).exists == 1)
    assert signing.store.mailboxes.by_id(bob.inbox_id).exists == 1
    raw = signing.store.mailboxes.read(carl.inbox_id, 1, 0, 100_000)
    assert b"DKIM-Signature: " in raw and b"Action: delivered" in raw


async def test_without_a_key_it_goes_out_as_it_is(rig):
    queue_id = await rig.queue(b"error:5.1.2 no such domain", b"x@b.test")
    await rig.gone(queue_id)
    ((message, _),) = rig.everything()
    assert rig.store.queue.read(message.blob_id, 0, 100).startswith(b"Received: by mx.test")
