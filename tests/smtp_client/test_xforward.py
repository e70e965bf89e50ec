"""XFORWARD: a filter that wants to hear it is told who handed a message in, and nobody else."""

import pytest

from fastmta.smtp.client_states import Event
from tests.smtp_client.test_client_rules import EHLO, Peer, codes, transaction

ALL = EHLO.replace("250-DSN", "250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n250-DSN")


def ready(ehlo=ALL, **options):
    peer = Peer(forwards=True, **options)
    assert peer.hello(ehlo) == Event.READY
    return peer


@pytest.mark.parametrize("answer", ["250 2.0.0 Ok", "501 5.5.4 Bad XFORWARD", "450 4.7.1 later"])
@pytest.mark.parametrize("trickle", [False, True])
def test_the_client_is_told_before_each_message_whatever_is_said_of_it(answer, trickle):
    peer = ready(trickle=trickle)
    for host in ("mail.client.test", "unknown"):
        tx = transaction(client=f"{host}[192.0.2.7]", protocol="ESMTP")
        peer.start(tx)
        name = b"[UNAVAILABLE]" if host == "unknown" else host.encode()
        assert peer.take() == (
            b"XFORWARD NAME=%b ADDR=192.0.2.7 PROTO=ESMTP IDENT=[UNAVAILABLE] SOURCE=REMOTE PORT=[UNAVAILABLE]"
            b" HELO=[UNAVAILABLE]\r\n" % name
        )
        assert peer.say(answer) == Event.NOTHING
        assert peer.take().startswith(b"MAIL FROM:<s@a.test>")
        peer.say("250 ok\r\n250 ok\r\n354 go")
        assert peer.say("250 ok") == Event.DONE
        assert codes(tx) == [250]
        peer.take()


@pytest.mark.parametrize(
    ("client", "words", "line"),
    [
        ("six.test[2001:db8::1]", "NAME ADDR", b"XFORWARD NAME=six.test ADDR=IPV6:2001:db8::1\r\n"),
        ("bill (uid 1000)", "SOURCE ADDR NAME", b"XFORWARD NAME=localhost ADDR=127.0.0.1 SOURCE=LOCAL\r\n"),
        ("odd=name+[192.0.2.1]", "NAME", b"XFORWARD NAME=odd+3Dname+2B\r\n"),
        ("a.test[192.0.2.1]", "proto", b"XFORWARD PROTO=ESMTP\r\n"),
    ],
)
def test_only_what_is_wanted_is_told(client, words, line):
    peer = ready(EHLO.replace("250-DSN", f"250-XFORWARD {words}"))
    peer.start(transaction(client=client))
    assert peer.take() == line


@pytest.mark.parametrize(
    "ehlo", [EHLO, EHLO.replace("250-DSN", "250-XFORWARD"), EHLO.replace("250-DSN", "250-XFORWARD X")]
)
def test_who_wants_nothing_hears_nothing(ehlo):
    peer = ready(ehlo)
    peer.start(transaction(client="a.test[192.0.2.1]"))
    assert peer.take().startswith(b"MAIL")


def test_without_the_setting_nobody_hears_anything():
    peer = Peer()
    peer.hello(ALL)
    peer.start(transaction(client="a.test[192.0.2.1]"))
    assert peer.take().startswith(b"MAIL")


def test_an_idle_connection_is_asked_first_and_one_that_ends_there_has_decided_nothing():
    peer = ready()
    peer.start(transaction(client="a.test[192.0.2.1]"), probe=True)
    assert peer.take() == b"RSET\r\n"
    peer.say("250 ok")
    assert peer.take().startswith(b"XFORWARD")
    assert peer.say("421 4.3.2 bye") == Event.CLOSED
    assert peer.client.unanswered
