"""What is made of a message that is not in memory waits until a thread has brought it: reports, and 7-bit forms."""

import asyncio

import pytest

from fastmta.model.envelope import HAS_8BIT, RecipientState
from tests.support.smtp_sink import SmtpSink

BLOCK = 4096
BODY = b"Subject: x\r\n\r\n" + b"gr\xc3\xbcn, and then some more of it\r\n" * 6000


@pytest.fixture
def cold(rig, monkeypatch):
    """The queue's messages as if none were in memory: what is read before it was brought is noted."""
    queue = rig.store.queue
    brought: set[tuple[int, int]] = set()
    waited: list[tuple[int, int]] = []
    read = queue.read

    def blocks(blob_id, offset, length):
        return {(blob_id, block) for block in range(offset // BLOCK, -(-(offset + length) // BLOCK))}

    def need(blob_id, offset, length):
        wanted = blocks(blob_id, offset, length)

        async def bring():
            await asyncio.sleep(0)
            brought.update(wanted)

        return None if wanted <= brought else bring()

    def reading(blob_id, offset, length, fresh=False):
        piece = read(blob_id, offset, length, fresh)
        if piece and not blocks(blob_id, offset, len(piece)) <= brought:
            waited.append((offset, len(piece)))
        return piece

    monkeypatch.setattr(queue, "need", need)
    monkeypatch.setattr(queue, "read", reading)
    return waited


async def test_what_a_bounce_quotes(rig, cold):
    queue_id = await rig.queue(b"error:5.1.2 no such domain", b"x@b.test", body=BODY[:30_000])
    await rig.gone(queue_id)
    ((message, row),) = rig.everything()
    assert row.state == RecipientState.HELD
    assert message.envelope.size_bytes > 30_000
    assert cold == []


async def test_what_is_made_7_bit(rig, cold):
    async with SmtpSink(capabilities=("SIZE 50000000",)) as sink:
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port, body=BODY, bits=HAS_8BIT)
        await rig.gone(queue_id)
        assert sink.messages[0].data.isascii()
    assert cold == []
