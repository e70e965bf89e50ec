"""What a worker remembers of recipients never decides who may relay: each class of client has a memory of its own."""

import itertools

import pytest

from tests.support.smtp_rig import Client, SmtpRig

LOGIN = b"AUTH PLAIN AGJpbGxAZXhhbXBsZS50ZXN0AHNlY3JldA==\r\n"
FAR = (b"<x@far.test>", b"<X@Far.test>", b"far@other.test", b'<"x"@far.test>', b"<@relay.test:x@far.test>")


def stranger(rig: SmtpRig, service: str = "smtp") -> Client:
    return rig.connect(service, ip="198.51.100.1").start()


def neighbour(rig: SmtpRig, service: str = "smtp") -> Client:
    return rig.connect(service, ip="127.0.0.1").start()


def user(rig: SmtpRig, service: str = "smtp") -> Client:
    client = rig.connect(service, ip="198.51.100.2", tls=True).start()
    assert client.codes(LOGIN) == [235]
    return client


def asks(client: Client, path: bytes) -> int:
    """The code of one RCPT."""
    client.say(b"RSET\r\nMAIL FROM:<bill@example.test>\r\n")
    (code,) = client.codes(b"RCPT TO:" + path + b"\r\n")
    return code


WHO = {stranger: 554, neighbour: 250, user: 250}


@pytest.mark.parametrize("path", FAR)
@pytest.mark.parametrize(
    "order", list(itertools.permutations(WHO)), ids=lambda order: "-".join(w.__name__ for w in order)
)
def test_a_far_recipient_that_one_client_was_allowed_is_refused_to_a_stranger(
    rig: SmtpRig, order: tuple[object, ...], path: bytes
) -> None:
    """In any order, again and again, on connections that are open side by side."""
    clients = [(make(rig), WHO[make]) for make in order]  # type: ignore[index, operator]
    for _ in range(3):
        for client, code in clients:
            assert asks(client, path) == code


def test_a_stranger_who_logs_in_may_relay_from_then_on_and_not_before(rig: SmtpRig) -> None:
    first = neighbour(rig)
    client = rig.connect(ip="198.51.100.1", tls=True).start()
    assert asks(first, b"<x@far.test>") == 250
    assert asks(client, b"<x@far.test>") == 554
    client.say(b"RSET\r\n")
    assert client.codes(LOGIN) == [235]
    assert asks(client, b"<x@far.test>") == 250
    assert asks(stranger(rig), b"<x@far.test>") == 554


def test_a_login_is_forgotten_with_its_session_not_lent_to_the_next(rig: SmtpRig) -> None:
    client = user(rig)
    assert asks(client, b"<x@far.test>") == 250
    client.say(b"QUIT\r\n")
    client.lose()
    assert asks(rig.connect(ip="198.51.100.2", tls=True).start(), b"<x@far.test>") == 554


def test_tls_after_a_login_makes_a_stranger_again(rig: SmtpRig) -> None:
    """RFC 3207 §4.2: what was learnt in plain text is forgotten, and with it the right that the memo was asked for."""
    client = rig.connect(ip="198.51.100.1").start()
    client.session.login = "bill@example.test"
    assert asks(client, b"<x@far.test>") == 250
    client.say(b"RSET\r\nSTARTTLS\r\n")
    secure = rig.secure(client)
    secure.start()
    assert asks(secure, b"<x@far.test>") == 554


def test_a_domain_that_is_no_longer_relayed_is_refused_though_it_was_remembered(rig: SmtpRig) -> None:
    client = stranger(rig)
    assert asks(client, b"<x@relay.test>") == 250
    resolve = rig.directory.resolve
    rig.directory.resolve = lambda path, *, may_relay: resolve(  # type: ignore[method-assign]
        path.replace(b"relay.test", b"gone.test"), may_relay=may_relay
    )
    rig.directory.version += 1
    assert asks(client, b"<x@relay.test>") == 554
    assert asks(neighbour(rig), b"<x@relay.test>") == 250


def test_a_full_memory_starts_anew_and_stays_right(rig: SmtpRig) -> None:
    from fastmta.model.limits import SMTP_RESOLUTIONS

    near, far = neighbour(rig), stranger(rig)
    for first in range(0, SMTP_RESOLUTIONS + 300, 300):
        near.say(
            b"RSET\r\nMAIL FROM:<a@b>\r\n"
            + b"".join(b"RCPT TO:<%d@far.test>\r\n" % n for n in range(first, first + 300))
        )
    for number in (0, 1, SMTP_RESOLUTIONS, SMTP_RESOLUTIONS + 299):
        assert asks(far, b"<%d@far.test>" % number) == 554
        assert asks(near, b"<%d@far.test>" % number) == 250
