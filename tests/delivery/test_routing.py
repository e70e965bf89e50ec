"""Router: the order of Postfix's transport(5), literals, relayhost, and what a wrong entry says."""

from types import SimpleNamespace

import pytest

from fastmta.delivery.routing import HOP_BYTES, Router, parse_hop
from fastmta.model.errors import ConfigError
from fastmta.model.routes import Host

DEFAULTS = {
    "transport_maps": (),
    "default_transport": "smtp",
    "relay_transport": "relay",
    "relay_domains": ("relay.test",),
}


def router(transport=None, relayhost="", local=("example.test",), recipient_delimiter="+", **given):
    return Router(
        SimpleNamespace(
            mailbox_domains=(*local, "virtual.test"),
            relayhost=relayhost,
            content_filter="",
            recipient_delimiter=recipient_delimiter,
            transport=transport or {},
            **{**DEFAULTS, **given},
            delivery=SimpleNamespace(smtp_tcp_port=2525, allow_loopback_mx=False),
        )
    )


def test_local_domains_are_local_in_any_case():
    assert router().hop_for(b"EXAMPLE.test").hop == b"local:"
    assert router().hop_for(b"virtual.test.").hop == b"local:"


def test_other_domains_go_to_their_own_mx():
    assert router().hop_for(b"Example.ORG").hop == b"smtp:example.org"


@pytest.mark.parametrize(
    ("domain", "hop"),
    [
        (b"example.org", b"smtp:[127.0.0.1]:2526"),
        (b"sub.example.org", b"smtp:[127.0.0.2]"),
        (b"a.b.example.org", b"smtp:[127.0.0.3]"),
        (b"else.test", b"smtp:fallback.test"),
        (b"own.test", b"smtp:own.test"),
        (b"lmtp.test", b"lmtp:unix:/run/x"),
        (b"gone.test", b"discard:"),
    ],
)
def test_transport_keys_match_most_specific_first(domain, hop):
    table = {
        "example.org": "smtp:[127.0.0.1]:2526",
        ".example.org": "smtp:[127.0.0.2]",
        ".b.example.org": "relay:[127.0.0.3]",
        "own.test": ":",
        "lmtp.test": "lmtp:unix:/run/x",
        "gone.test": "discard:",
        "*": "smtp:fallback.test",
    }
    assert router(table).hop_for(domain).hop == hop


def test_an_address_key_wins_over_its_domain():
    r = router({"example.org": "smtp:[a.test]", "bob@example.org": "smtp:[b.test]"})
    assert r.route(b"Bob@example.org").hop == b"smtp:[b.test]"
    assert r.route(b"al@example.org").hop == b"smtp:[a.test]"


def test_an_explicit_transport_overrides_a_local_domain():
    assert router({"example.test": "lmtp:[127.0.0.1]:24"}).hop_for(b"example.test").hop == b"lmtp:[127.0.0.1]:24"


def test_hold_keeps_the_route_for_release():
    r = router({"parked.example": "hold:", "p2.example": "hold:smtp:[127.0.0.1]"})
    assert (r.hop_for(b"parked.example").hop, r.hop_for(b"parked.example").held) == (b"smtp:parked.example", True)
    assert (r.hop_for(b"p2.example").hop, r.hop_for(b"p2.example").held) == (b"smtp:[127.0.0.1]", True)


def test_error_and_retry_refuse_with_their_text():
    r = router({"no.test": "error:5.1.2 no such domain", "later.test": "retry:come back"})
    assert str(r.hop_for(b"no.test").refusal) == "550 5.1.2 no such domain"
    assert str(r.hop_for(b"later.test").refusal) == "450 4.0.0 come back"
    assert parse_hop(r.hop_for(b"no.test").hop).reply.enhanced == "5.1.2"


def test_relayhost_takes_all_that_transport_does_not():
    r = router({"x.test": ":"}, relayhost="[relay.test]:587")
    assert r.hop_for(b"any.test").hop == b"smtp:[relay.test]:587"
    assert r.hop_for(b"x.test").hop == b"smtp:[relay.test]:587"
    assert router(relayhost="relay.test").hop_for(b"any.test").hop == b"smtp:relay.test"


@pytest.mark.parametrize("literal", [b"[127.0.0.1]", b"[10.0.0.1]", b"[169.254.169.254]", b"[0.0.0.0]", b"[IPv6:::1]"])
def test_a_literal_of_an_internal_address_is_refused_unless_routed(literal):
    refusal = router().hop_for(literal).refusal
    assert refusal is not None and refusal.code == 550
    assert router({literal.decode(): "smtp:[127.0.0.1]"}).hop_for(literal).refusal is None


def test_address_literals_go_straight_to_the_address():
    hop = router().hop_for(b"[192.0.2.1]").hop
    assert parse_hop(hop).hosts == (Host("192.0.2.1", 25, False, text="[192.0.2.1]"),)
    assert parse_hop(router().hop_for(b"[IPv6:2001:db8::1]").hop).hosts[0].name == "2001:db8::1"
    assert router().hop_for(b"[not an address]").refusal.code == 553


def test_utf8_domains_become_a_labels():
    assert router().hop_for("bücher.example".encode()).hop == b"smtp:xn--bcher-kva.example"
    assert router().hop_for(b"\xff\xfe").refusal.code == 553


def test_a_long_hop_is_a_digest_that_the_router_undoes():
    domain = b".".join([b"a" * 60] * 4)
    route = router().hop_for(domain)
    assert route.hop.startswith(b"smtp:#") and len(route.hop) <= HOP_BYTES
    assert router().full_hop(route.hop, b"u@" + domain) == b"smtp:" + domain


def test_parse_hop_knows_ports_mx_and_lists():
    assert parse_hop(b"smtp:a.test").hosts == (Host("a.test", 25, True, text="a.test"),)
    assert parse_hop(b"smtp:a.test:587").hosts == (Host("a.test", 587, True, text="a.test:587"),)
    assert parse_hop(b"smtp:[a.test]:smtp, b.test").hosts == (
        Host("a.test", 25, text="[a.test]:smtp"),
        Host("b.test", 25, True, text="b.test"),
    )
    assert parse_hop(b"lmtp:inet:a.test:2003").hosts == (Host("a.test", 2003, text="a.test:2003"),)
    assert parse_hop(b"lmtp:unix:/run/x").hosts == (Host(path="/run/x", text="unix:/run/x"),)


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("nonsense", "begins with one of"),
        ("ftp:x", "ftp"),
        ("uucp:x", "does not have"),
        ("pipe:", "[pipe.NAME]"),
        ("smtp:[a", "[host]:port"),
        ("smtp:a:99999", "neither a port"),
        ("smtp:a:nosuchservice", "neither a port"),
        ("lmtp:unix:rel", "absolute"),
    ],
)
def test_a_wrong_entry_is_a_config_error_that_names_it(entry, word):
    with pytest.raises(ConfigError, match=r"'x\.test'") as caught:
        router({"x.test": entry})
    assert word in str(caught.value)


def test_an_address_of_transport_serves_its_extensions_too():
    routes = router({"vip@d.test": "smtp:[127.0.0.1]:1", "vip+own@d.test": "smtp:[127.0.0.1]:2"})
    assert routes.route(b"vip+x@d.test").hop == b"smtp:[127.0.0.1]:1"
    assert routes.route(b"VIP+X+y@D.test").hop == b"smtp:[127.0.0.1]:1"
    assert routes.route(b"vip+own@d.test").hop == b"smtp:[127.0.0.1]:2"
    assert routes.route(b'"vip"@d.test').hop == b"smtp:[127.0.0.1]:1"
    assert routes.route(b"vip-x@d.test").hop == routes.route(b"+vip@d.test").hop == b"smtp:d.test"
    none = router({"vip@d.test": "smtp:[127.0.0.1]:1"}, recipient_delimiter="")
    assert none.route(b"vip+x@d.test").hop == b"smtp:d.test"


def test_who_named_a_hop_is_known():
    routes = router({"a.test": "smtp:b.test", "c.test": "smtp:", "d.test": "hold:smtp:e.test"}, relayhost="relay.test")
    assert routes.named_by(b"smtp:relay.test", b"x@any.test") == "relayhost"
    assert routes.named_by(b"smtp:b.test", b"x@a.test") == "transport"
    assert routes.named_by(b"smtp:b.test", b"x@b.test") == "transport"
    assert routes.named_by(b"smtp:e.test", b"x@e.test") == "transport"
    assert routes.named_by(b"smtp:c.test", b"x@c.test") == ""
    assert routes.named_by(b"smtp:old-relay.test", b"x@any.test") == "transport"  # yesterday's settings


@pytest.mark.parametrize("domain", [b"pipe:out", b"pipe", b"|cmd", b"local:", b"[pipe:out]", b"error:2.0.0 x"])
def test_no_address_names_a_transport(domain):
    route = router().hop_for(domain)
    assert route.refusal is not None or route.hop == b"smtp:" + domain


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (b"Bill+x@example.org", "bill+x@example.org"),
        (b"bill+y@example.org", "bill@example.org"),
        (b"ann@example.org", "example.org"),
        (b"ann@a.b.example.org", ".example.org"),
        (b"ann@[192.0.2.1]", "*"),
        (b"ann@else.test", "*"),
    ],
)
def test_the_line_that_decides_is_named_and_is_the_one_that_routes(path, key):
    keys = ("bill+x@example.org", "bill@example.org", "example.org", ".example.org", "*")
    made = router({each: f"smtp:[127.0.0.{n}]" for n, each in enumerate(keys, 1)})
    assert made.line_for(path) == (key, made.route(path).hop.decode())


def test_no_line_decides_where_none_is_like_that():
    assert router().line_for(b"a@example.org") is None
    assert router({"b.test": "smtp:x.test"}).line_for(b"a@example.org") is None


def hop(found, address):
    route = found.route(address.encode())
    return f"{'hold:' if route.held else ''}{route.hop.decode()}" if route.refusal is None else str(route.refusal)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ann@a.test", "smtp:[192.0.2.1]:25"),
        ("Ann+x@A.test", "smtp:[192.0.2.1]:25"),
        ("bob@a.test", "lmtp:[192.0.2.2]"),
        ("x@sub.a.test", "smtp:[192.0.2.3]"),
        ("x@example.test", "smtp:other.test"),
        ("x@both.test", "smtp:table.test"),
        ("x@c.test", "550 5.7.1 closed"),
        ("x@d.test", "smtp:d.test"),
        ("x@bad.test", "451 4.3.5 Mail system configuration error"),
        ("x@parked.test", "hold:smtp:parked.test"),
        ("x@else.test", "smtp:else.test"),
    ],
)
def test_transport_maps_are_asked_as_transport_5_says(tmp_path, address, expected):
    table = tmp_path / "transport"
    table.write_text(
        "ann@a.test smtp:[192.0.2.1]:25\na.test lmtp:[192.0.2.2]\n.a.test smtp:[192.0.2.3]\nexample.test :other.test\n"
        "both.test smtp:map.test\nc.test error:5.7.1 closed\nd.test :\nbad.test nonsense:x\nparked.test hold:\n"
    )
    found = router({"both.test": "smtp:table.test"}, transport_maps=(f"hash:{table}",))
    assert hop(found, address) == expected


def test_patterns_of_transport_maps_see_whole_addresses(tmp_path):
    table = tmp_path / "transport.re"
    table.write_text("/^bulk-.*@/ smtp:[192.0.2.9]\n/^else\\.test$/ error:never\n")
    found = router(transport_maps=(f"regexp:{table}",))
    assert (hop(found, "bulk-1@else.test"), hop(found, "x@else.test")) == ("smtp:[192.0.2.9]", "smtp:else.test")


@pytest.mark.parametrize(
    ("given", "relay", "other"),
    [
        ({}, "smtp:relay.test", "smtp:b.test"),
        ({"relayhost": "[gate.test]"}, "smtp:[gate.test]", "smtp:[gate.test]"),
        ({"default_transport": "lmtp:[192.0.2.1]:24"}, "smtp:relay.test", "lmtp:[192.0.2.1]:24"),
        ({"default_transport": "smtp:[a.test]", "relayhost": "[gate.test]"}, "smtp:[gate.test]", "smtp:[a.test]"),
        ({"default_transport": "error:5.4.1 no way out"}, "smtp:relay.test", "550 5.4.1 no way out"),
        ({"relay_transport": "smtp:[inner.test]"}, "smtp:[inner.test]", "smtp:b.test"),
        ({"relay_transport": "lmtp", "relayhost": "[gate.test]:26"}, "lmtp:[gate.test]:26", "smtp:[gate.test]:26"),
    ],
)
def test_where_no_line_decides_the_default_transport_does_and_then_relayhost(given, relay, other):
    found = router(**given)
    assert (hop(found, "x@relay.test"), hop(found, "x@b.test")) == (relay, other)
    assert hop(found, "x@sub.relay.test").endswith(relay.replace("relay.test", "sub.relay.test"))


@pytest.mark.parametrize("text", ["hold", "local", "uucp:x", "smtp:[", "nonsense"])
def test_a_default_transport_that_is_none_is_an_error(text):
    with pytest.raises(ConfigError):
        router(default_transport=text)


def test_the_sender_decides_only_where_no_line_does():
    found = router({"a.test": "smtp:[192.0.2.1]"}, relayhost="[gate.test]")
    assert found.route_from(b"x@a.test", "[own.test]", "") is None
    assert found.route_from(b"x@example.test", "[own.test]", "") is None
    assert found.route_from(b"x@b.test", "[own.test]:26", "").hop == b"smtp:[own.test]:26"
    assert found.route_from(b"x@b.test", "", "lmtp").hop == b"lmtp:[gate.test]"
    assert found.route_from(b"x@b.test", "[own.test]", "smtp:[mine.test]").hop == b"smtp:[mine.test]"
    assert found.route_from(b"x@relay.test", "", "smtp:[mine.test]").hop == b"smtp:[gate.test]"
    with pytest.raises(ValueError):
        found.route_from(b"x@b.test", "[", "")
