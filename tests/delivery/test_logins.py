"""Logins at relay hosts: who logs in where, what a refused login costs, and what nobody must share or see."""

import asyncio
import json
import sys
from types import SimpleNamespace
from urllib.parse import parse_qs

import msgspec
import pytest

from fastmta.model.envelope import RecipientState
from fastmta.runtime.metrics import METRICS
from fastmta.tls.certificate import write_self_signed
from fastmta.tls.contexts import Contexts, server_context
from tests.support.dns_stub import DnsStub
from tests.support.https_stub import HttpsStub
from tests.support.smtp_sink import SmtpSink

ALL = "AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER"
OPEN = {"smtp_sasl_security_options": (), "smtp_sasl_tls_security_options": ()}


@pytest.fixture
def table(tmp_path):
    """A map with these lines; gives its name."""

    def make(**entries):
        path = tmp_path / "passwords"
        path.write_text("".join(f"{key} {value}\n" for key, value in entries.items()))
        return f"texthash:{path}"

    return make


def sink(**options):
    options.setdefault("capabilities", ("SIZE", ALL))
    options.setdefault("passwords", {"bill": "secret", "ann": "other"})
    return SmtpSink(**options)


async def delivered(rig, queue_id):
    await rig.gone(queue_id)
    await rig.settled()


async def deferred(rig, queue_id):
    await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
    return rig.rows(queue_id)[0].last_reply


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_each_mechanism_logs_in(make_rig, table, mechanism):
    async with sink() as relay:
        rig = make_rig(
            smtp_sasl_auth_enable=True,
            smtp_sasl_password_maps=(table(**{"127.0.0.1": "bill:secret"}),),
            smtp_sasl_mechanism_filter=(mechanism,),
            **OPEN,
        )
        await delivered(rig, await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port))
        assert relay.logins == [(mechanism, "bill")] and relay.messages[0].login == "bill"
        assert rig.services.cells[METRICS.delivery_logins_total[mechanism, "success"]] == 1
        (line,) = [line for line in rig.log() if line["event"] == "delivery.login"]
        assert line["user"] == "bill" and line["mechanism"] == mechanism


@pytest.mark.parametrize("form", ["[127.0.0.1]:{port}", "127.0.0.1"])
async def test_an_entry_is_found_by_next_hop_as_written_and_by_host(make_rig, table, form):
    async with sink() as relay:
        entries = {form.format(port=relay.port): "bill:secret"}
        rig = make_rig(smtp_sasl_auth_enable=True, smtp_sasl_password_maps=(table(**entries),), **OPEN)
        await delivered(rig, await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port))
        assert relay.messages[0].login == "bill"


@pytest.mark.parametrize("enabled", [True, False])
async def test_without_an_entry_or_the_key_they_meet_as_strangers(make_rig, table, enabled):
    async with sink() as relay:
        entries = {"elsewhere" if enabled else "127.0.0.1": "bill:secret"}
        rig = make_rig(smtp_sasl_auth_enable=enabled, smtp_sasl_password_maps=(table(**entries),), **OPEN)
        await delivered(rig, await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port))
        assert relay.logins == [] and not any(command.startswith(b"AUTH") for command in relay.commands)


async def test_the_default_options_keep_a_password_out_of_plain_text(make_rig, table):
    async with sink(capabilities=("AUTH PLAIN LOGIN",)) as relay:
        rig = make_rig(smtp_sasl_auth_enable=True, smtp_sasl_password_maps=(table(**{"127.0.0.1": "bill:secret"}),))
        reply = await deferred(rig, await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port))
        assert b"noplaintext forbids PLAIN and LOGIN" in reply and not relay.messages
        assert not any(command.startswith(b"AUTH") for command in relay.commands)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
async def test_a_refused_login_defers_with_one_line_and_a_pause(make_rig, table, mechanism):
    async with sink() as relay:
        rig = make_rig(
            smtp_sasl_auth_enable=True,
            smtp_sasl_password_maps=(table(**{"127.0.0.1": "bill:wrong-pass"}),),
            smtp_sasl_mechanism_filter=(mechanism,),
            **OPEN,
        )
        hop = b"smtp:[127.0.0.1]:%d" % relay.port
        first = await rig.queue(hop)
        reply = await deferred(rig, first)
        assert b"4.7.8" in reply and b"SASL authentication failed" in reply
        await rig.settled()
        connections = relay.connections
        assert connections == 1
        reply = await deferred(rig, await rig.queue(hop))
        assert b"suspended" in reply and relay.connections == connections  # nobody hammers at the account
        (line,) = [line for line in rig.log() if line["event"] == "delivery.login_failed"]
        assert line["level"] == "warning" and line["user"] == "bill" and line["mechanism"] == mechanism
        assert rig.services.cells[METRICS.delivery_logins_total[mechanism, "failure"]] == 1
        said = json.dumps(rig.log()) + repr([row.last_reply for _, rows in [(0, rig.rows(first))] for row in rows])
        answers = [command.decode() for command in relay.commands if not command.startswith((b"EHLO", b"AUTH"))]
        assert "wrong-pass" not in said and not any(each and each in said for each in answers)


async def test_a_password_that_was_mended_counts_without_a_restart(make_rig, table):
    async with sink() as relay:
        entries = table(**{"127.0.0.1": "bill:wrong"})
        rig = make_rig(smtp_sasl_auth_enable=True, smtp_sasl_password_maps=(entries,), **OPEN)
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port)
        await deferred(rig, queue_id)
        table(**{"127.0.0.1": "bill:secret", "other": "x:y"})
        await rig.settled()
        rig.tick(2000)
        await delivered(rig, queue_id)
        assert relay.messages[0].login == "bill"


async def test_a_server_that_does_not_know_the_password_gets_no_mail(make_rig, table):
    async with sink(lies=True) as relay:
        rig = make_rig(
            smtp_sasl_auth_enable=True, smtp_sasl_password_maps=(table(**{"127.0.0.1": "bill:secret"}),), **OPEN
        )
        reply = await deferred(rig, await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port))
        assert b"does not know the password" in reply and not relay.messages


async def test_a_relay_host_that_wants_a_login_defers_and_a_strangers_does_not(make_rig):
    async with SmtpSink(replies={"MAIL": ["530 5.7.0 Authentication required"]}) as relay:
        rig = make_rig()
        reply = await deferred(rig, await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port))
        assert b"530" in reply


async def test_senders_have_logins_and_connections_of_their_own(make_rig, table):
    async with sink() as relay:
        entries = {"bill@a.test": "bill:secret", "@c.test": "ann:other", "127.0.0.1": "ann:other"}
        rig = make_rig(
            smtp_sasl_auth_enable=True,
            smtp_sender_dependent_authentication=True,
            smtp_sasl_password_maps=(table(**entries),),
            **OPEN,
        )
        hop = b"smtp:[127.0.0.1]:%d" % relay.port
        senders = (b"Bill@a.test", b"x@c.test", b"y@d.test")
        for sender in senders * 3:
            await delivered(rig, await rig.queue(hop, sender=sender))
        assert [taken.login for taken in relay.messages] == ["bill", "ann", "ann"] * 3
        assert relay.connections == 3  # each login's own, kept and used again
        ids = [await rig.queue(hop, sender=sender) for sender in senders * 20]
        await rig.until(lambda: all(rig.store.queue.message(queue_id) is None for queue_id in ids))
        for taken in relay.messages:
            assert taken.login == ("bill" if taken.sender.lower() == b"bill@a.test" else "ann")


async def test_one_senders_wrong_password_stops_nobody_else(make_rig, table):
    async with sink() as relay:
        entries = {"bill@a.test": "bill:wrong", "ann@a.test": "ann:other"}
        rig = make_rig(
            smtp_sasl_auth_enable=True,
            smtp_sender_dependent_authentication=True,
            smtp_sasl_password_maps=(table(**entries),),
            **OPEN,
        )
        hop = b"smtp:[127.0.0.1]:%d" % relay.port
        await deferred(rig, await rig.queue(hop, sender=b"bill@a.test"))
        await delivered(rig, await rig.queue(hop, sender=b"ann@a.test"))
        reply = await deferred(rig, await rig.queue(hop, sender=b"bill@a.test"))
        assert b"suspended" in reply and relay.connections == 2


async def test_a_map_that_cannot_be_read_defers(make_rig, tmp_path):
    async with sink() as relay:
        rig = make_rig(smtp_sasl_auth_enable=True, smtp_sasl_password_maps=(f"texthash:{tmp_path / 'none'}",), **OPEN)
        reply = await deferred(rig, await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port))
        assert b"4.3.0" in reply and not relay.messages


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("output", ["the-token", '{"access_token": "the-token", "expires_in": 3600}'])
async def test_a_token_command_gives_tokens_that_are_kept(make_rig, table, tmp_path, mechanism, output):
    program = tmp_path / "token"
    program.write_text(f"#!{sys.executable}\nopen({str(tmp_path / 'calls')!r}, 'a').write('x')\nprint({output!r})\n")
    program.chmod(0o755)
    async with sink(passwords={"bill": "the-token"}) as relay:
        rig = make_rig(
            smtp_sasl_auth_enable=True,
            smtp_sasl_password_maps=(table(**{"127.0.0.1": "bill:oauth:"}),),
            smtp_sasl_mechanism_filter=(mechanism,),
            smtp_sasl_oauth_token_command=(str(program),),
            **OPEN,
        )
        hop = b"smtp:[127.0.0.1]:%d" % relay.port
        for _ in range(2):
            await delivered(rig, await rig.queue(hop))
            rig.service._owners[hop].close_idle()
            await asyncio.sleep(0)
        assert relay.logins == [(mechanism, "bill")] * 2 and (tmp_path / "calls").read_text() == "x"


@pytest.mark.parametrize("body", ["exit(3)", "print('x' * 20000)", "print('two words')", "print('{}')"])
async def test_a_token_command_that_fails_defers(make_rig, table, tmp_path, body):
    program = tmp_path / "token"
    program.write_text(f"#!{sys.executable}\n{body}\n")
    program.chmod(0o755)
    async with sink() as relay:
        rig = make_rig(
            smtp_sasl_auth_enable=True,
            smtp_sasl_password_maps=(table(**{"127.0.0.1": "bill:oauth:"}),),
            smtp_sasl_oauth_token_command=(str(program),),
            **OPEN,
        )
        reply = await deferred(rig, await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port))
        assert b"no OAuth token for bill" in reply and not relay.messages


@pytest.fixture
def https(tmp_path):
    """A server's context for tokens.test, and the file of the authority that vouches for it."""
    write_self_signed(tmp_path / "https.pem", tmp_path / "https.key", ["tokens.test"])
    files = {"cert_file": str(tmp_path / "https.pem"), "key_file": str(tmp_path / "https.key")}
    return server_context(SimpleNamespace(**files, ssl_min_protocol="TLSv1.2", smtpd_tls_eccert_file="")), files[
        "cert_file"
    ]


@pytest.mark.parametrize("works", [True, False])
async def test_a_refresh_token_is_exchanged_for_one_access_token(make_rig, table, tmp_path, https, works):
    context, authority = https
    (tmp_path / "client-secret").write_text("hush\n")
    answer = b'{"access_token":"the-token","token_type":"Bearer","expires_in":3600}'
    failure = b'{"error":"invalid_grant","error_description":"refresh-me"}'
    answers = {"/token": (200, "application/json", answer) if works else (400, "application/json", failure)}
    async with (
        HttpsStub(context, answers) as stub,
        DnsStub({"tokens.test": {"A": ["127.0.0.1"]}}) as dns,
        sink(passwords={"bill": "the-token"}) as relay,
    ):
        rig = make_rig(
            nameservers=(dns.address,),
            smtp_sasl_auth_enable=True,
            smtp_sasl_password_maps=(table(**{"127.0.0.1": "bill:oauth:refresh-me"}),),
            smtp_sasl_oauth_token_url=f"https://tokens.test:{stub.port}/token",
            smtp_sasl_oauth_client_id="us",
            smtp_sasl_oauth_client_secret_file=str(tmp_path / "client-secret"),
            **OPEN,
        )
        rig.services.contexts = Contexts(msgspec.structs.replace(rig.config.tls, smtp_tls_CAfile=authority))
        rig.service.reload()
        hop = b"smtp:[127.0.0.1]:%d" % relay.port
        if not works:
            reply = await deferred(rig, await rig.queue(hop))
            assert b"tokens.test answers 400 invalid_grant" in reply and b"refresh-me" not in reply
            return
        ids = [await rig.queue(hop) for _ in range(10)]
        await rig.until(lambda: all(rig.store.queue.message(queue_id) is None for queue_id in ids))
        assert {user for _, user in relay.logins} == {"bill"} and len(stub.requests) == 1
        form = parse_qs(stub.requests[0][2].decode())
        assert form == {
            "grant_type": ["refresh_token"],
            "refresh_token": ["refresh-me"],
            "client_id": ["us"],
            "client_secret": ["hush"],
        }


async def test_a_token_that_is_refused_is_fetched_anew(make_rig, table, tmp_path):
    program = tmp_path / "token"
    program.write_text(f"#!/bin/sh\ncat {tmp_path / 'now'}\n")
    program.chmod(0o755)
    (tmp_path / "now").write_text("old-token")
    async with sink(passwords={"bill": "new-token"}) as relay:
        rig = make_rig(
            smtp_sasl_auth_enable=True,
            smtp_sasl_password_maps=(table(**{"127.0.0.1": "bill:oauth:"}),),
            smtp_sasl_oauth_token_command=(str(program),),
            **OPEN,
        )
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port)
        await deferred(rig, queue_id)
        (tmp_path / "now").write_text("new-token")
        await rig.settled()
        rig.tick(400)
        await delivered(rig, queue_id)
        assert relay.messages[0].login == "bill"
