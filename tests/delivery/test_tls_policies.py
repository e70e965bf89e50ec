"""Which TLS a destination gets, and which server is turned away: levels, smtp_tls_policy_maps, DANE, MTA-STS.

Each case of DANE is the zones, whose answers are not signed, the server's certificate, the level, and what becomes of
the mail: `dane-ee` and the like for a verified server, `none` for TLS without, `plain`, or None: the mail waits.
"""

import msgspec
import pytest

from fastmta.config.delivery_keys import DeliveryConfig
from fastmta.config.load import parse_all
from fastmta.delivery import service as delivery_service
from fastmta.delivery.tls_policy import keys_of, parse_entry
from fastmta.model.envelope import RecipientState
from fastmta.runtime.metrics import METRICS
from fastmta.tls.contexts import Contexts
from tests.support.authority import issue
from tests.support.dns_stub import SERVFAIL, DnsStub
from tests.support.https_stub import HttpsStub
from tests.support.smtp_sink import SmtpSink

ROOT = issue(["Root of Tests"], ca=True)
LEAF = issue(["mx.b.test"], ROOT)
OTHER = issue(["mx.b.test"])


async def outcome(rig, sink, hop, recipient=b"r@b.test"):
    """What became of one message: by what its server was verified, "plain", or None and the reply."""
    queue_id = await rig.queue(hop, recipient)
    await rig.until(lambda: all(row.state == RecipientState.DEFERRED for row in rig.rows(queue_id)))
    await rig.settled()
    if rig.store.queue.message(queue_id) is not None:
        assert not sink.messages
        return None, rig.rows(queue_id)[0].last_reply
    (message,) = sink.messages
    if not message.tls:
        return "plain", b""
    (line,) = [line for line in rig.log() if line["event"] == "delivery.tls"]
    assert rig.services.cells[METRICS.delivery_tls_total[line["security_level"], line["verified"]]] == 1
    return line["verified"], line["security_level"].encode()


def trusting(rig, path):
    rig.services.contexts = Contexts(msgspec.structs.replace(rig.config.tls, smtp_tls_CAfile=path))


ENTRIES = [
    ("none", True, "plain"),
    ("may", True, "none"),
    ("may", False, "plain"),
    ("encrypt", True, "none"),
    ("encrypt", False, None),
    ("verify match=mx.b.test", True, "other"),
    ("verify match=hostname", True, None),
    ("secure match=mx.b.test:.c.test", True, "other"),
    ("secure match=.b.test", True, "other"),
    ("secure", True, None),
    ("fingerprint match={cert}", True, "fingerprint"),
    ("fingerprint match=00:11|{key}", True, "fingerprint"),
    ("fingerprint match={lower}", True, "fingerprint"),
    ("fingerprint match=00:11", True, None),
    ("encrypt protocols=TLSv1.3", True, "none"),
    ("encrypt protocols=!TLSv1.3 ciphers=high", True, "none"),
    ("encrypt protocols=SSLv3", True, None),
    ("nonsense", True, None),
    ("encrypt match=x", True, None),
    ("encrypt colour=red", True, None),
    ("none protocols=TLSv1.3", True, "plain"),
    ("fingerprint", True, None),
]


@pytest.mark.parametrize(("entry", "offers", "wanted"), ENTRIES)
async def test_an_entry_of_the_policy_map_decides(make_rig, tmp_path, entry, offers, wanted):
    context = LEAF.context(tmp_path) if offers else None
    async with SmtpSink(tls=context) as sink:
        names = {"cert": LEAF.fingerprint(), "key": LEAF.fingerprint(key=True), "lower": LEAF.fingerprint().lower()}
        (tmp_path / "map").write_text(f"[127.0.0.1]:{sink.port} {entry.format(**names)}\n")
        rig = make_rig(smtp_tls_policy_maps=(f"texthash:{tmp_path / 'map'}",))
        trusting(rig, ROOT.write(tmp_path, "ca"))
        found, reply = await outcome(rig, sink, b"smtp:[127.0.0.1]:%d" % sink.port)
        if wanted == "other":
            assert found in ("mx.b.test", ".b.test")
        else:
            assert found == wanted
        assert found is not None or b"4.7" in reply


async def test_a_policy_is_found_by_next_hop_and_by_its_parents(make_rig, tmp_path):
    assert list(keys_of("a.b.test")) == ["a.b.test", ".b.test", ".test"]
    assert list(keys_of("[a.b.test]:25")) == ["[a.b.test]:25"] and list(keys_of("a.b.test:26")) == ["a.b.test:26"]


@pytest.mark.parametrize("entry", [entry for entry, _, wanted in ENTRIES if wanted])
def test_good_entries_are_taken(entry):
    assert parse_entry(DeliveryConfig(), entry.format(cert="A", key="B", lower="c")).is_ours


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('smtp_tls_protocols = "TLSv9"', "names no version"),
        ('smtp_tls_mandatory_protocols = "!TLSv1 !TLSv1.1 !TLSv1.2 !TLSv1.3"', "leaves no version"),
        ('smtp_bind_address = "::1"', "not an IPv4 address"),
        ('smtp_tls_security_level = "fingerprint"', "smtp_tls_fingerprint_cert_match"),
        ('smtp_tls_security_level = "dane"\n[dns]\nnameservers = ["192.0.2.53"]', "validating resolver on loopback"),
    ],
)
def test_settings_that_could_not_work_are_errors(text, says):
    config, problems = parse_all(f"[delivery]\n{text}\n", base="/", name="f")
    assert config is None and says in problems[0].text


def test_a_stranger_may_be_believed_where_that_is_said():
    text = '[delivery]\nsmtp_tls_security_level = "dane"\n[dns]\nnameservers = ["192.0.2.53"]\ntrust_ad = true\n'
    assert parse_all(text, base="/", name="f")[0] is not None


def zones(port, *records, host="mx.b.test"):
    out = {
        "b.test": {"MX": [(10, "mx.b.test")]},
        "mx.b.test": {"A": ["127.0.0.1"]},
        f"_{port}._tcp.{host}": {"TLSA": list(records)},
    }
    return out if records else {name: out[name] for name in ("b.test", "mx.b.test")}


UNUSABLE = "0 0 1 " + "ab" * 32
DANE = {
    # name: (level, records, unsigned owners, certificate, what becomes of it)
    "ee": ("dane", ["3 1 1"], (), LEAF, "dane-ee"),
    "ee certificate": ("dane", ["3 0 2"], (), LEAF, "dane-ee"),
    "ee of another key": ("dane", ["3 1 1"], (), OTHER, None),
    "ee, no STARTTLS": ("dane", ["3 1 1"], (), None, None),
    "ee, only": ("dane-only", ["3 1 1"], (), LEAF, "dane-ee"),
    "ta": ("dane", ["2 0 1"], (), LEAF, "dane-ta"),
    "ta of another": ("dane", ["2 0 1"], (), OTHER, None),
    "one of two": ("dane", [UNUSABLE, "3 1 1"], (), LEAF, "dane-ee"),
    "unusable": ("dane", [UNUSABLE], (), LEAF, "none"),
    "unusable, no STARTTLS": ("dane", [UNUSABLE], (), None, None),
    "unusable, only": ("dane-only", [UNUSABLE], (), LEAF, None),
    "no record": ("dane", [], (), LEAF, "none"),
    "no record, no STARTTLS": ("dane", [], (), None, "plain"),
    "no record, only": ("dane-only", [], (), LEAF, None),
    "unsigned record": ("dane", ["3 1 1"], ("_tcp.mx.b.test",), OTHER, "none"),
    "unsigned record, only": ("dane-only", ["3 1 1"], ("_tcp.mx.b.test",), LEAF, None),
    "unsigned host": ("dane", ["3 1 1"], ("mx.b.test",), OTHER, "none"),
    "unsigned host, only": ("dane-only", ["3 1 1"], ("mx.b.test",), LEAF, None),
    "all unsigned": ("dane", ["3 1 1"], ("test",), OTHER, "none"),
}


@pytest.mark.parametrize("name", DANE)
async def test_dane(make_rig, tmp_path, name):
    level, wanted, insecure, certificate, becomes = DANE[name]
    async with SmtpSink(tls=certificate and certificate.context(tmp_path)) as sink:
        texts = {"3 1 1": LEAF.tlsa(3, 1, 1), "3 0 2": LEAF.tlsa(3, 0, 2), "2 0 1": ROOT.tlsa(2, 0, 1)}
        records = [texts.get(each, each) for each in wanted]
        async with DnsStub(zones(sink.port, *records), insecure=insecure) as dns:
            rig = make_rig(
                nameservers=(dns.address,),
                allow_loopback_mx=True,
                smtp_tcp_port=sink.port,
                smtp_tls_security_level=level,
            )
            found, reply = await outcome(rig, sink, b"smtp:b.test")
            assert found == becomes, reply
            if found is None:
                assert b"4.7." in reply


@pytest.mark.parametrize(
    ("policy", "becomes"), [("", "dane-ee"), ("dane", "dane-ee"), ("encrypt", "none"), ("may", "none")]
)
async def test_dane_behind_an_unsigned_mx_is_as_the_key_says(make_rig, tmp_path, policy, becomes):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink:
        answers = {**zones(sink.port, LEAF.tlsa(3, 1, 1), host="mx.c.test"), "b.test": {"MX": [(10, "mx.c.test")]}}
        answers["mx.c.test"] = {"A": ["127.0.0.1"]}
        async with DnsStub(answers, insecure=("b.test",)) as dns:
            rig = make_rig(
                nameservers=(dns.address,),
                allow_loopback_mx=True,
                smtp_tcp_port=sink.port,
                smtp_tls_security_level="dane",
                smtp_tls_dane_insecure_mx_policy=policy,
            )
            assert (await outcome(rig, sink, b"smtp:b.test"))[0] == becomes


@pytest.mark.parametrize(
    ("owner", "insecure", "becomes"),
    [
        ("real.c.test", (), "dane-ee"),  # where the alias leads
        ("mx.b.test", (), "dane-ee"),  # the alias itself
        ("mx.b.test", ("c.test",), "none"),  # the alias is in an unsigned answer, as a resolver gives it
    ],
)
async def test_an_aliased_host_has_records_at_either_end(make_rig, tmp_path, owner, insecure, becomes):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink:
        answers = zones(sink.port, LEAF.tlsa(3, 1, 1), host=owner)
        answers |= {"mx.b.test": {"CNAME": "real.c.test"}, "real.c.test": {"A": ["127.0.0.1"]}}
        async with DnsStub(answers, insecure=insecure) as dns:
            rig = make_rig(
                nameservers=(dns.address,),
                allow_loopback_mx=True,
                smtp_tcp_port=sink.port,
                smtp_tls_security_level="dane",
            )
            found = (await outcome(rig, sink, b"smtp:b.test"))[0]
            # With the alias signed and its target not, the records at the alias count (RFC 7672 §2.2.2).
            assert found == ("dane-ee" if insecure else becomes)


async def test_a_tlsa_look_up_that_fails_turns_dane_not_off(make_rig, tmp_path):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink, DnsStub(zones(sink.port)) as dns:
        dns.zones[f"_{sink.port}._tcp.mx.b.test"] = SERVFAIL
        rig = make_rig(
            nameservers=(dns.address,),
            allow_loopback_mx=True,
            smtp_tcp_port=sink.port,
            smtp_tls_security_level="dane",
        )
        found, reply = await outcome(rig, sink, b"smtp:b.test")
        assert found is None and b"TLSA lookup error" in reply


async def test_a_second_exchanger_that_proves_itself_gets_the_mail(make_rig, tmp_path):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink:
        answers = zones(sink.port, LEAF.tlsa(3, 1, 1))
        answers["b.test"] = {"MX": [(5, "bad.b.test"), (10, "mx.b.test")]}
        answers["bad.b.test"] = {"A": ["127.0.0.1"]}
        answers[f"_{sink.port}._tcp.bad.b.test"] = {"TLSA": [OTHER.tlsa(3, 1, 1)]}
        async with DnsStub(answers) as dns:
            rig = make_rig(
                nameservers=(dns.address,),
                allow_loopback_mx=True,
                smtp_tcp_port=sink.port,
                smtp_tls_security_level="dane",
            )
            assert (await outcome(rig, sink, b"smtp:b.test"))[0] == "dane-ee"


POLICY = "version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n"
STS = {
    # name: (mode, mx, certificate of the server, level of the configuration, DANE records, what becomes of it)
    "enforce": ("enforce", "mx.b.test", LEAF, "may", [], "hostname"),
    "enforce, wildcard": ("enforce", "*.b.test", LEAF, "may", [], "hostname"),
    "enforce, another exchanger": ("enforce", "mx.c.test", LEAF, "may", [], None),
    "enforce, nobody vouches": ("enforce", "mx.b.test", OTHER, "may", [], None),
    "enforce, no STARTTLS": ("enforce", "mx.b.test", None, "may", [], None),
    "testing": ("testing", "mx.b.test", LEAF, "may", [], "hostname"),
    "testing, nobody vouches": ("testing", "mx.b.test", OTHER, "may", [], "none"),
    "testing, another exchanger": ("testing", "mx.c.test", LEAF, "may", [], "none"),
    "testing, no STARTTLS": ("testing", "mx.b.test", None, "may", [], "plain"),
    "none": ("none", "mx.b.test", None, "may", [], "plain"),
    "enforce below encrypt": ("enforce", "mx.b.test", OTHER, "encrypt", [], None),
    "DANE wins": ("enforce", "mx.c.test", OTHER, "dane", ["other"], "dane-ee"),
    "DANE fails": ("enforce", "mx.b.test", LEAF, "dane", ["other"], None),
    "DANE without records": ("enforce", "mx.b.test", LEAF, "dane", [], "hostname"),
    "without TLS by the configuration": ("enforce", "mx.b.test", LEAF, "none", [], "plain"),
}


@pytest.mark.parametrize("name", STS)
async def test_mta_sts(make_rig, tmp_path, monkeypatch, name):
    mode, mx, certificate, level, records, becomes = STS[name]
    host = issue(["mta-sts.b.test"], ROOT)
    text = POLICY.format(mode=mode, mx=mx).encode()
    answers = {"/.well-known/mta-sts.txt": (200, "text/plain", text)}
    async with (
        HttpsStub(host.context(tmp_path, "policy"), answers) as https,
        SmtpSink(tls=certificate and certificate.context(tmp_path)) as sink,
    ):
        monkeypatch.setattr(delivery_service, "STS_PORT", https.port)
        names = zones(sink.port, *[OTHER.tlsa(3, 1, 1) for _ in records])
        names |= {"_mta-sts.b.test": {"TXT": ["v=STSv1; id=1;"]}, "mta-sts.b.test": {"A": ["127.0.0.1"]}}
        async with DnsStub(names) as dns:
            rig = make_rig(
                nameservers=(dns.address,),
                allow_loopback_mx=True,
                smtp_tcp_port=sink.port,
                smtp_tls_security_level=level,
                mta_sts=True,
                mta_sts_allow_private_hosts=True,
                data_directory=str(tmp_path),
            )
            trusting(rig, ROOT.write(tmp_path, "ca"))
            rig.service.reload()
            found, reply = await outcome(rig, sink, b"smtp:b.test")
            assert found == becomes, reply
            assert (tmp_path / "mta-sts" / "b.test.json").exists() == bool(https.requests)


async def test_a_relay_host_has_no_policy_of_mta_sts(make_rig, tmp_path):
    async with SmtpSink() as sink, DnsStub({}) as dns:
        rig = make_rig(
            nameservers=(dns.address,), mta_sts=True, mta_sts_allow_private_hosts=True, data_directory=str(tmp_path)
        )
        assert (await outcome(rig, sink, b"smtp:[127.0.0.1]:%d" % sink.port))[0] == "plain"
        assert not dns.queries
