"""From a domain in the queue to a server: MX, what is permanent and what is not, ourselves, TLS and its fall back."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from fastmta.delivery.hang_ups import BELIEVED, HangUps
from fastmta.model.envelope import HAS_8BIT, RecipientState
from fastmta.runtime.metrics import METRICS
from fastmta.tls.certificate import write_self_signed
from fastmta.tls.contexts import Contexts, server_context
from tests.support.dns_stub import SERVFAIL, DnsStub
from tests.support.smtp_sink import CLOSE, SmtpSink


async def test_a_domain_goes_to_its_mx_and_the_second_where_the_first_is_down(make_rig):
    zones = {
        "b.test": {"MX": [(10, "down.test"), (20, "up.test")]},
        "down.test": {"A": ["127.0.0.9"]},
        "up.test": {"A": ["127.0.0.1"]},
    }
    async with DnsStub(zones) as dns, SmtpSink() as sink:
        rig = make_rig(nameservers=(dns.address,), allow_loopback_mx=True, smtp_tcp_port=sink.port)
        queue_id = await rig.queue(b"smtp:b.test")
        await rig.gone(queue_id)
        assert len(sink.messages) == 1
        await rig.settled()
        (line,) = [line for line in rig.log() if line["event"] == "delivery.delivered"]
        assert line["relay"] == f"up.test[127.0.0.1]:{sink.port}"


@pytest.mark.parametrize(
    ("domain", "status"),
    [("null.test", b"5.1.10"), ("nosuch.test", b"5.4.4"), ("lo.test", b"5.4.4")],
)
async def test_permanent_trouble_bounces(make_rig, domain, status):
    zones = {"null.test": {"MX": [(0, ".")]}, "lo.test": {"A": ["127.0.0.1"]}}
    async with DnsStub(zones) as dns:
        rig = make_rig(nameservers=(dns.address,))
        queue_id = await rig.queue(b"smtp:" + domain.encode(), b"r@" + domain.encode())
        await rig.gone(queue_id)
        ((message, _),) = rig.everything()
        assert b"Status: " + status in rig.store.queue.read(message.blob_id, 0, 100_000)


async def test_mail_for_ourselves_is_a_loop_and_not_a_connection(make_rig):
    async with SmtpSink() as sink, DnsStub({"us.test": {"A": ["127.0.0.1"]}}) as dns:
        rig = make_rig(
            nameservers=(dns.address,),
            allow_loopback_mx=True,
            smtp_tcp_port=sink.port,
            listen=(f"127.0.0.1:{sink.port}",),
        )
        for hop in (b"smtp:us.test", b"smtp:[127.0.0.1]:%d" % sink.port):
            queue_id = await rig.queue(hop)
            await rig.gone(queue_id)
        assert sink.connections == 0
        raws = [rig.store.queue.read(message.blob_id, 0, 100_000) for message, _ in rig.everything()]
        assert all(b"Status: 5.4.6" in raw for raw in raws) and len(raws) == 2


@pytest.mark.parametrize(
    "hop",
    [
        b"smtp:gone.test",
        b"smtp:[gone.test]",
        b"smtp:[gone.test]:2525",
        b"lmtp:gone.test",
        b"smtp:null.test",
        b"smtp:gone.test,[nowhere.test]",
    ],
)
async def test_a_host_of_the_administrators_that_does_not_resolve_defers_with_a_warning(make_rig, hop):
    async with DnsStub({"null.test": {"MX": [(0, ".")]}}) as dns:
        rig = make_rig(nameservers=(dns.address,))
        queue_id = await rig.queue(hop, b"r@b.test")
        await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
        assert b"4.3.5" in rig.rows(queue_id)[0].last_reply
        (line,) = [line for line in rig.log() if line["event"] == "delivery.configuration_problem"]
        assert line["level"] == "warning" and line["setting"] == "transport"


async def test_a_broken_name_server_defers(make_rig):
    async with DnsStub({"b.test": SERVFAIL}) as dns:
        rig = make_rig(nameservers=(dns.address,))
        queue_id = await rig.queue(b"smtp:b.test")
        await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
        assert b"4.4.3" in rig.rows(queue_id)[0].last_reply


@pytest.fixture
def certificate(tmp_path):
    write_self_signed(tmp_path / "c.pem", tmp_path / "k.pem", ["sink.test"])
    return server_context(
        SimpleNamespace(
            cert_file=str(tmp_path / "c.pem"),
            key_file=str(tmp_path / "k.pem"),
            ssl_min_protocol="TLSv1.2",
            smtpd_tls_eccert_file="",
        )
    )


async def test_tls_is_used_where_it_is_offered(make_rig, certificate):
    rig = make_rig(smtp_tls_security_level="may")
    async with SmtpSink(tls=certificate) as sink:
        for _ in range(3):
            queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port)
            await rig.gone(queue_id)
        assert [m.tls for m in sink.messages] == [True] * 3 and sink.connections == 1


async def test_a_failed_handshake_falls_back_to_plain_text_where_it_may(make_rig):
    rig = make_rig(smtp_tls_security_level="may")
    capabilities = ("SIZE", "STARTTLS")  # offered, but what follows 220 is no TLS
    async with SmtpSink(capabilities=capabilities, replies={"STARTTLS": ["220 go"]}) as sink:
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port)
        await rig.gone(queue_id)
        assert [m.tls for m in sink.messages] == [False] and sink.connections == 2


async def test_a_server_may_begin_with_tls_and_is_never_spoken_to_without(make_rig, certificate):
    """Port 465 of a relay host; a session of before is resumed there too."""
    rig = make_rig(smtp_tls_security_level="encrypt", smtp_tls_wrappermode=True)
    async with SmtpSink(tls=certificate, wrapped=True) as sink, SmtpSink(tls=certificate) as other:
        for _ in range(2):
            await rig.gone(await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port))
            await rig.settled()
            rig.service._owners[b"smtp:[127.0.0.1]:%d" % sink.port].close_idle()
        assert [m.tls for m in sink.messages] == [True, True] and b"STARTTLS" not in sink.commands
        assert [line.get("resumed") for line in rig.log() if line["event"] == "delivery.tls"] == [None, True]
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % other.port)
        await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
        assert not any(b"EHLO" in line for line in other.commands)
        assert b"Cannot start TLS" in rig.rows(queue_id)[0].last_reply


@pytest.mark.parametrize(("entry", "tls"), [("may", [True]), ("none", [])])
async def test_a_policy_of_may_is_encrypt_where_servers_begin_with_tls(make_rig, tmp_path, certificate, entry, tls):
    async with SmtpSink(tls=certificate, wrapped=True) as sink:
        (tmp_path / "map").write_text(f"[127.0.0.1]:{sink.port} {entry}\n")
        rig = make_rig(
            smtp_tls_security_level="encrypt",
            smtp_tls_wrappermode=True,
            smtp_tls_policy_maps=(f"texthash:{tmp_path / 'map'}",),
            smtp_helo_timeout=60.0 if tls else 0.2,
        )
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port)
        await rig.until(lambda: rig.store.queue.message(queue_id) is None or rig.rows(queue_id)[0].last_reply)
        assert [m.tls for m in sink.messages] == tls


async def test_a_failed_handshake_defers_where_tls_is_required(make_rig, certificate):
    rig = make_rig(smtp_tls_security_level="verify")
    async with SmtpSink(tls=certificate) as sink:
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port)
        await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
        assert b"4.7.5" in rig.rows(queue_id)[0].last_reply and sink.messages == []


@pytest.fixture
def trusted(tmp_path):
    """A server's context for some names, and the file of the authority that vouches for it."""

    def make(*names):
        write_self_signed(tmp_path / "trusted.pem", tmp_path / "trusted.key", names)
        files = {"cert_file": str(tmp_path / "trusted.pem"), "key_file": str(tmp_path / "trusted.key")}
        return server_context(SimpleNamespace(**files, ssl_min_protocol="TLSv1.2", smtpd_tls_eccert_file="")), files[
            "cert_file"
        ]

    return make


@pytest.mark.parametrize(
    ("level", "names", "verified"),
    [
        ("secure", ["mx.evil.test"], None),  # a forged MX with a good certificate for itself
        ("secure", ["b.test"], "nexthop"),
        ("secure", ["mx1.b.test"], "dot-nexthop"),
        ("secure", ["*.b.test"], "dot-nexthop"),
        ("secure", ["xb.test", "b.test.evil.test"], None),
        ("verify", ["mx.evil.test"], "hostname"),
        ("verify", ["*.evil.test"], "hostname"),
        ("verify", ["b.test"], None),
        ("encrypt", ["whatever.test"], "none"),
    ],
)
async def test_a_certificate_must_be_of_whom_the_level_asks_for(make_rig, trusted, level, names, verified):
    context, authority = trusted(*names)
    zones = {"b.test": {"MX": [(10, "mx.evil.test")]}, "mx.evil.test": {"A": ["127.0.0.1"]}}
    async with DnsStub(zones) as dns, SmtpSink(tls=context) as sink:
        rig = make_rig(
            nameservers=(dns.address,), allow_loopback_mx=True, smtp_tcp_port=sink.port, smtp_tls_security_level=level
        )
        rig.services.contexts = Contexts(msgspec.structs.replace(rig.config.tls, smtp_tls_CAfile=authority))
        queue_id = await rig.queue(b"smtp:b.test", b"r@b.test")
        if verified is None:
            await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
            assert b"4.7.5" in rig.rows(queue_id)[0].last_reply and not sink.messages
            return
        await rig.gone(queue_id)
        (line,) = [line for line in rig.log() if line["event"] == "delivery.tls"]
        assert line["verified"] == verified and line["security_level"] == level
        assert rig.services.cells[METRICS.delivery_tls_total[level, verified]] == 1


async def test_a_handshake_that_does_not_end_obeys_smtp_starttls_timeout(make_rig):
    async def deaf(reader, writer):
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-me\r\n250 STARTTLS\r\n")
        await reader.readline()
        writer.write(b"220 go\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    rig = make_rig(smtp_tls_security_level="encrypt", smtp_starttls_timeout=0.2)
    queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % server.sockets[0].getsockname()[1])
    await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
    assert b"4.7.5" in rig.rows(queue_id)[0].last_reply
    server.close()
    await server.wait_closed()


async def test_a_reload_takes_new_routes_without_losing_mail(rig):
    async with SmtpSink() as sink:
        await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port)
        await rig.until(lambda: len(sink.messages) == 1)
        await rig.settled()
        rig.service.reload()
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port)
        await rig.gone(queue_id)
        assert sink.connections == 2


async def test_connections_are_bounded_and_hops_take_turns(rig):
    rig.service._connection_limit = 2
    async with SmtpSink() as one, SmtpSink() as two, SmtpSink() as three:
        ids = []
        for _ in range(30):
            ids += [await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port) for sink in (one, two, three)]
        await rig.until(lambda: all(rig.store.queue.message(queue_id) is None for queue_id in ids))
        assert [len(sink.messages) for sink in (one, two, three)] == [30, 30, 30]


async def test_the_connection_that_rests_longest_makes_room(rig):
    rig.service._connection_limit = 2
    async with SmtpSink() as one, SmtpSink() as two, SmtpSink() as three:
        for sink in (one, two, three, two, one, two):
            await rig.gone(await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port))
            await rig.settled()
        assert [sink.connections for sink in (one, two, three)] == [2, 1, 1]


async def test_a_server_that_ends_each_connection_behind_a_message_is_not_asked_for_more(make_rig):
    """What was seen twice in a row is believed."""
    rig = make_rig(initial_destination_concurrency=1, default_destination_concurrency_limit=1)
    enough = "421 4.7.0 enough for one connection"
    for _ in range(10):  # a connection that rests a moment, since the next message has not been read yet, tells nothing
        async with SmtpSink(replies={"MAIL": [None, enough, None, CLOSE]}) as sink:
            hop = b"smtp:[127.0.0.1]:%d" % sink.port
            owner = rig.service._own(hop)
            owner.is_suspended = True
            queued = [await rig.queue(hop) for _ in range(6)]
            owner.is_suspended = False
            owner.kick()
            for queue_id in queued:
                await rig.gone(queue_id)
            await rig.settled()
            assert len(sink.messages) == 6
            if sink.connections == 6:
                break
    assert sink.connections == 6
    assert sum(line.startswith(b"MAIL") for line in sink.commands) == 8


def test_what_a_server_did_is_believed_for_a_while_and_tried_again():
    seen = HangUps()
    assert seen.limit(100) == 100
    seen.saw(10)
    assert seen.limit(100) == 100  # it may have been a restart
    seen.saw(10)
    assert [seen.limit(100) for _ in range(BELIEVED)] == [10] * BELIEVED and seen.limit(5) == 5
    seen.saw(10)
    seen.saw(10)
    assert [seen.limit(100) for _ in range(BELIEVED + 1)] == [10] * BELIEVED + [100]
    assert seen.limit(100) == 100  # and it went well
    seen.saw(10)
    assert seen.limit(100) == 10
    seen.saw(3)
    assert seen.limit(100) == 100


@pytest.mark.parametrize(
    ("table", "used"),
    [
        ("127.0.0.1 8bitmime, Size", [b"MAIL FROM:<s@a.test>"]),
        ("127.0.0.2 size", [b"MAIL FROM:<s@a.test> SIZE=20"]),
        ("127.0.0.1 silent-discard", [b"MAIL FROM:<s@a.test> SIZE=20 BODY=8BITMIME"]),
    ],
)
async def test_what_a_map_says_of_a_server_stands_instead_of_the_keywords_for_all(make_rig, tmp_path, table, used):
    (tmp_path / "map").write_text(table + "\n")
    rig = make_rig(
        smtp_discard_ehlo_keywords=("8bitmime",),
        smtp_discard_ehlo_keyword_address_maps=(f"texthash:{tmp_path / 'map'}",),
        disable_mime_output_conversion=True,
    )
    async with SmtpSink() as sink:
        await rig.gone(
            await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port, body=b"Subject: x\r\n\r\nb\xf6dy\r\n", bits=HAS_8BIT)
        )
        assert [line for line in sink.commands if line.startswith(b"MAIL")] == used


async def test_connections_come_from_the_address_that_is_set(make_rig):
    seen = []

    async def look(reader, writer):
        seen.append(writer.get_extra_info("peername")[0])
        writer.close()

    server = await asyncio.start_server(look, "127.0.0.1", 0)
    rig = make_rig(smtp_bind_address="127.0.0.7", smtp_bind_address6="::1")
    queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % server.sockets[0].getsockname()[1])
    await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
    assert set(seen) == {"127.0.0.7"}
    server.close()
    await server.wait_closed()


async def test_an_address_that_is_not_ours_defers_and_says_so(make_rig):
    async with SmtpSink() as sink:
        rig = make_rig(smtp_bind_address="192.0.2.1")
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port)
        await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
        assert sink.connections == 0 and b"4.4.1" in rig.rows(queue_id)[0].last_reply


ZONES = {
    "b.test": {"MX": [(10, "down.test")]},
    "down.test": {"A": ["127.0.0.9"]},
    "null.test": {"MX": [(0, ".")]},
    "us.test": {"A": ["127.0.0.8"]},
    "relay.test": {"A": ["127.0.0.1"]},
}


@pytest.mark.parametrize(
    "relay", ["[127.0.0.1]:{port}", "relay.test:{port}", "[relay.test]:{port}", "[127.0.0.9]:1,[127.0.0.1]:{port}"]
)
@pytest.mark.parametrize("domain", ["b.test", "gone.test"])
async def test_what_is_not_found_or_reached_goes_to_the_fallback_relay(make_rig, relay, domain):
    async with DnsStub(ZONES) as dns, SmtpSink() as sink:
        relays = tuple(relay.format(port=sink.port).split(","))
        rig = make_rig(nameservers=(dns.address,), allow_loopback_mx=True, smtp_tcp_port=1, smtp_fallback_relay=relays)
        queue_id = await rig.queue(b"smtp:" + domain.encode(), b"r@" + domain.encode())
        await rig.gone(queue_id)
        assert len(sink.messages) == 1


async def test_a_host_that_fails_each_session_gives_way_to_the_fallback_relay(make_rig):
    async with SmtpSink(replies={"GREETING": ["421 busy"] * 20}) as busy, SmtpSink() as sink:
        rig = make_rig(smtp_fallback_relay=(f"[127.0.0.1]:{sink.port}",))
        places = ",".join(f"[127.0.0.{n}]:{busy.port}" for n in (1,))
        queue_id = await rig.queue(f"smtp:{places}".encode())
        await rig.gone(queue_id)
        assert len(sink.messages) == 1 and busy.connections == 1


def says(*parts):
    """A reply for whoever has the first word in his address."""
    return lambda address: next((reply for word, reply in parts if word in address), None)


async def test_whom_the_destination_puts_off_the_fallback_relay_gets_and_nobody_else(make_rig):
    async with SmtpSink() as busy, SmtpSink() as sink:
        busy.reply_for = says((b"late", "450 4.2.1 later"), (b"no", "550 5.1.1 never"))
        rig = make_rig(smtp_fallback_relay=(f"[127.0.0.1]:{sink.port}",))
        hop = f"smtp:[127.0.0.1]:{busy.port}".encode()
        queue_id = await rig.queue(hop, b"yes@b.test", b"late@b.test", b"no@b.test")
        await rig.gone(queue_id)
        assert [each.recipients for each in busy.messages] == [[b"yes@b.test"]]
        assert [each.recipients for each in sink.messages] == [[b"late@b.test"]]
        # The next message tries the destination first again: no connection to the relay was kept for it.
        queue_id = await rig.queue(hop, b"again@b.test")
        await rig.gone(queue_id)
        assert (len(busy.messages), len(sink.messages)) == (2, 1)
        failed = [line for line in rig.log() if line["event"] == "delivery.attempt_failed"]
        assert [line["reply"] for line in failed] == ["450 4.2.1 later"]


@pytest.mark.parametrize("verb", ["MAIL", "DATA", "DOT"])
async def test_a_4yz_to_the_whole_message_goes_to_the_fallback_relay_too(make_rig, verb):
    async with SmtpSink(replies={verb: ["451 4.3.0 not now"]}) as busy, SmtpSink() as sink:
        rig = make_rig(smtp_fallback_relay=(f"[127.0.0.1]:{sink.port}",))
        queue_id = await rig.queue(f"smtp:[127.0.0.1]:{busy.port}".encode(), b"a@b.test", b"b@b.test")
        await rig.gone(queue_id)
        assert [each.recipients for each in sink.messages] == [[b"a@b.test", b"b@b.test"]]
        assert not any(each.data for each in busy.messages)


async def test_where_the_fallback_relay_puts_off_too_its_answer_counts(make_rig):
    async with SmtpSink() as busy, SmtpSink() as sink:
        busy.reply_for = says((b"late", "450 4.2.1 later"))
        sink.reply_for = says((b"late1", "452 4.3.1 full here too"))
        rig = make_rig(smtp_fallback_relay=(f"[127.0.0.1]:{sink.port}",))
        hop = f"smtp:[127.0.0.1]:{busy.port}".encode()
        queue_id = await rig.queue(hop, b"late1@b.test")
        await rig.until(lambda: any(line["event"] == "delivery.deferred" for line in rig.log()))
        row = rig.store.queue.recipient(queue_id, 0)
        assert b"full here too" in row.last_reply and row.attempts == 1


async def test_where_the_fallback_relay_is_not_reached_the_destinations_answer_is_kept(make_rig):
    async with SmtpSink() as busy:
        busy.reply_for = says((b"late", "450 4.2.1 later"))
        rig = make_rig(smtp_fallback_relay=("[127.0.0.1]:1",))
        queue_id = await rig.queue(f"smtp:[127.0.0.1]:{busy.port}".encode(), b"late2@b.test")
        await rig.until(lambda: any(line["event"] == "delivery.deferred" for line in rig.log()))
        row = rig.store.queue.recipient(queue_id, 0)
        assert b"450 4.2.1 later" in row.last_reply
        assert not any(line["event"] == "destination.dead" for line in rig.log())


@pytest.mark.parametrize(("domain", "status"), [("null.test", b"5.1.10"), ("us.test", b"5.4.6")])
async def test_a_fallback_relay_does_not_get_what_would_loop_or_is_not_wanted(make_rig, domain, status):
    async with DnsStub(ZONES) as dns, SmtpSink() as sink:
        rig = make_rig(
            nameservers=(dns.address,),
            allow_loopback_mx=True,
            listen=("127.0.0.8:25",),
            smtp_fallback_relay=(f"[127.0.0.1]:{sink.port}",),
        )
        queue_id = await rig.queue(b"smtp:" + domain.encode(), b"r@" + domain.encode())
        await rig.gone(queue_id)
        ((message, _),) = rig.everything()
        assert b"Status: " + status in rig.store.queue.read(message.blob_id, 0, 100_000)
        assert sink.connections == 0


async def test_a_fallback_relay_that_does_not_resolve_is_told_and_changes_nothing(make_rig):
    async with DnsStub(ZONES) as dns:
        rig = make_rig(nameservers=(dns.address,), smtp_fallback_relay=("nowhere.test",))
        queue_id = await rig.queue(b"smtp:gone.test", b"r@gone.test")
        await rig.gone(queue_id)
        lines = [line for line in rig.log() if line["event"] == "delivery.configuration_problem"]
        assert {line["setting"] for line in lines} == {"smtp_fallback_relay"}
