"""Mail that aliases pass on: its sender, who shares a transaction with whom, and what stands in front of it."""

import asyncio
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fastmta.authentication.arc import verify_arc
from fastmta.authentication.bodies import Bodies, forms_needed
from fastmta.authentication.dkim import verify_dkim
from fastmta.authentication.message import parse_fields, split_message
from fastmta.authentication.signing import load_own_signer
from fastmta.directory.srs import Srs
from fastmta.model.envelope import HAS_DOT_LINE, RecipientTail
from fastmta.store.dkim_keys import DkimKey
from tests.authentication.zone import Zone
from tests.support.smtp_sink import SmtpSink

PASSED = RecipientTail(b"r@b.test", original=b"list@mx.test")
BODY = b"From: x@author.test\r\nSubject: x\r\n\r\n.body\r\n"


@pytest.fixture
async def sink():
    async with SmtpSink() as running:
        yield running


@pytest.fixture
async def rig(make_rig):
    made = make_rig(top={"srs_domain": "mx.test", "arc_sealing": True})
    made.directory.srs = Srs("mx.test", (b"secret",), ("kept.test",), 21 * 86_400, made.clock.now)
    made.service.reload()
    return made


def hop(sink):
    return f"smtp:[127.0.0.1]:{sink.port}".encode()


async def key_of(rig):
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    await rig.store.dkim_keys.add(DkimKey("mx.test", "s1", "ed25519", "active", pem, 0, 0))
    return {"s1._domainkey.mx.test": {"TXT": [load_own_signer(pem, "mx.test", "s1").public_record().encode()]}}


async def inline(operation, *arguments):
    return operation(*arguments)


async def test_only_who_is_passed_on_gets_it_from_a_rewritten_sender(rig, sink):
    await rig.queue(hop(sink), RecipientTail(b"direct@b.test"), PASSED, sender=b"x@author.test")
    await sink.until(lambda: len(sink.messages) == 2)
    by_recipient = {taken.recipients[0]: taken.sender for taken in sink.messages}
    assert by_recipient[b"direct@b.test"] == b"x@author.test"
    assert by_recipient[b"r@b.test"].startswith(b"SRS0=")
    assert by_recipient[b"r@b.test"].endswith(b"=author.test=x@mx.test")


@pytest.mark.parametrize("sender", [b"", b"me@a.test", b"x@kept.test", b"SRS0=AAAA=BB=c.test=d@mx.test"])
async def test_some_senders_stay(rig, sink, sender):
    await rig.queue(hop(sink), PASSED, sender=sender)
    await sink.until(lambda: sink.messages)
    assert sink.messages[0].sender == sender


async def test_a_refusal_is_reported_to_the_original_sender(rig, sink):
    sink.replies["RCPT"] = ["550 5.1.1 nobody"]
    await rig.gone(await rig.queue(hop(sink), PASSED, sender=b"x@author.test"))
    (told,) = [line for line in rig.log() if line["event"] == "delivery.bounce_dropped"]  # nobody is at author.test
    assert "x@author.test" in str(told)


@pytest.mark.parametrize("size", [0, 300_000])
async def test_what_is_passed_on_is_sealed_and_signed_whole(rig, sink, size):
    zone = await key_of(rig)
    body = BODY + (b"0123456789" * 7 + b"\r\n") * (size // 72)
    await rig.queue(hop(sink), PASSED, sender=b"x@author.test", body=body, bits=HAS_DOT_LINE)
    await sink.until(lambda: sink.messages)
    raw = sink.messages[0].data
    assert raw.endswith(body) and len(raw) > len(body)
    assert b"SIZE=%d" % len(raw) in sink.messages[0].parameters
    header, text = split_message(raw)
    fields = parse_fields(header)
    bodies = Bodies({*forms_needed(fields)})
    bodies.update(text)
    now = rig.clock.now()
    (verdict,) = await verify_dkim(fields, bodies, Zone(zone), inline, now)
    assert (verdict.result, verdict.domain) == ("pass", "mx.test"), verdict
    arc = await verify_arc(fields, bodies, Zone(zone), inline, now)
    assert (arc.result, arc.instance, arc.sealers) == ("pass", 1, ("mx.test",)), arc


async def test_what_is_not_passed_on_has_nothing_in_front(rig, sink):
    await key_of(rig)
    await rig.queue(hop(sink), RecipientTail(b"direct@b.test"), sender=b"x@author.test", body=BODY, bits=HAS_DOT_LINE)
    await sink.until(lambda: sink.messages)
    assert sink.messages[0].data == BODY


async def test_a_connection_that_is_lost_while_it_is_sealed_loses_nothing(rig, sink):
    await key_of(rig)
    began = asyncio.Event()
    real = rig.services.offload

    async def slow(operation, *arguments):
        began.set()
        await asyncio.sleep(0.01)
        return await real(operation, *arguments)

    rig.services.offload = slow
    queue_id = await rig.queue(hop(sink), PASSED, sender=b"x@author.test", body=BODY, bits=HAS_DOT_LINE)
    await began.wait()
    started = time.monotonic()
    for owner in rig.service._owners.values():
        owner.abort()
    await rig.until(lambda: rig.rows(queue_id)[0].attempts == 1 or time.monotonic() - started > 5)
    rig.services.offload = real
    rig.tick(8000)
    await sink.until(lambda: sink.messages)
    assert sink.messages[0].data.endswith(BODY)


async def test_a_server_that_leaves_while_it_is_sealed_does_not_let_it_out_by_halves(rig, sink):
    await key_of(rig)
    real, calls, left = rig.services.offload, [], asyncio.Event()

    async def slow(operation, *arguments):
        calls.append(operation)
        if len(calls) == 1:
            await left.wait()
        return await real(operation, *arguments)

    async def leave(reader, writer):
        writer.write(b"220 hasty.test\r\n")
        await reader.readline()
        writer.write(b"250 hasty.test\r\n")
        while not calls:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        writer.transport.abort()
        for _ in range(100):  # turns in which it could go elsewhere as it is
            await asyncio.sleep(0.001)
        left.set()

    rig.services.offload = slow
    async with await asyncio.start_server(leave, "127.0.0.1", 0) as hasty:
        route = b"smtp:[127.0.0.1]:%d,[127.0.0.1]:%d" % (hasty.sockets[0].getsockname()[1], sink.port)
        queue_id = await rig.queue(route, PASSED, sender=b"x@author.test", body=BODY, bits=HAS_DOT_LINE)
        await rig.gone(queue_id)
    (taken,) = sink.messages
    assert taken.data.startswith(b"DKIM-Signature:") and taken.data.endswith(BODY)
    assert taken.data.count(b"ARC-Seal:") == 1
    assert b"SIZE=%d" % len(taken.data) in taken.parameters
