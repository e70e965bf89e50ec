"""soft_bounce: every 5xx that a client would hear is a 4xx, with its enhanced code; nothing else changes."""

from fastmta.model.reply import Reply


def test_refusals_of_every_stage_become_temporary(make_rig: object) -> None:
    rig = make_rig(soft_bounce=True)  # type: ignore[operator]
    client = rig.connect().start()
    assert client.codes(b"NONSENSE\r\nRCPT TO:<x@relay.test>\r\nMAIL FROM:<a@b>\r\n") == [400, 403, 250]
    said = client.say(b"RCPT TO:<nobody@example.test>\r\n")
    assert said.startswith(b"450 4.1.1")
    assert client.codes(b"RCPT TO:<x@relay.test>\r\nDATA\r\n") == [250, 354]
    assert client.codes(b"bare\nnewline\r\n.\r\n") == [450]


def test_an_lmtp_client_hears_it_for_each_recipient(make_rig: object) -> None:
    rig = make_rig(soft_bounce=True)  # type: ignore[operator]
    client = rig.connect("lmtp").start(b"LHLO me")
    assert client.codes(b"MAIL FROM:<a@b>\r\nRCPT TO:<x@relay.test>\r\nRCPT TO:<y@relay.test>\r\n") == [250, 250, 250]
    client.say(b"DATA\r\n")
    assert client.codes(b"a\nb\r\n.\r\n") == [450, 450]


def test_only_permanent_replies_are_softened() -> None:
    assert Reply(550, "5.1.1", "unknown").softened() == Reply(450, "4.1.1", "unknown")
    assert Reply(550, "", "no").softened() == Reply(450, "", "no")
    for reply in (Reply(250, "2.0.0", "ok"), Reply(421, "4.7.0", "later"), Reply(354, "", "go on")):
        assert reply.softened() is reply
