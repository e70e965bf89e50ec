"""MTA-STS: what a policy's text means, when it is fetched, and for how long it counts (RFC 8461)."""

import pytest

from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.runtime.log import Log
from fastmta.tls import mta_sts
from fastmta.tls.contexts import https_context
from fastmta.tls.mta_sts import MtaSts, Policy, parse_policy
from tests.support.authority import issue
from tests.support.https_stub import HttpsStub

TEXT = b"version: STSv1\nmode: enforce\nmx: mx.b.test\nmx: *.c.test\nmax_age: 86400\n"
PATH = "/.well-known/mta-sts.txt"


def test_a_policy_is_read():
    found = parse_policy(TEXT, "1", 1000.0)
    assert found == Policy("1", "enforce", ("mx.b.test", "*.c.test"), 87400.0, 86400)
    assert parse_policy(TEXT.replace(b"\n", b"\r\n"), "1", 1000.0) == found


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        TEXT.replace(b"STSv1", b"STSv2"),
        TEXT.replace(b"enforce", b"strict"),
        TEXT.replace(b"86400", b"-1"),
        TEXT.replace(b"86400", b"31557601"),
        TEXT.replace(b"max_age", b"age"),
        TEXT.replace(b"mx: mx.b.test\nmx: *.c.test\n", b""),
        TEXT.replace(b"mx.b.test", b"*"),
        TEXT.replace(b"mx.b.test", b"a.*.test"),
        b"\xff" + TEXT,
    ],
)
def test_what_is_no_policy_is_refused(raw):
    with pytest.raises(ValueError):
        parse_policy(raw, "1", 0.0)


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("mx.b.test", True),
        ("MX.b.test.", True),
        ("x.c.test", True),
        ("x.y.c.test", False),
        ("c.test", False),
        ("xc.test", False),
    ],
)
def test_hosts_are_matched_by_one_label(host, admitted):
    assert parse_policy(TEXT, "1", 0.0).admits(host) == admitted


class Names:
    """DNS of one domain; `record` None: no TXT record, an exception: raised."""

    def __init__(self):
        self.record = b"v=STSv1; id=1;"

    async def txt(self, name):
        assert name == "_mta-sts.b.test"
        if isinstance(self.record, Exception):
            raise self.record
        if self.record is None:
            raise NotFound(name, "TXT", name_exists=True)
        return self.record if isinstance(self.record, tuple) else (self.record,)

    async def addresses(self, name):
        assert name == "mta-sts.b.test"
        return ("127.0.0.1",)


@pytest.fixture
async def world(tmp_path):
    """A policy host, DNS, and a maker of policy keepers that share files and a clock."""
    certificate = issue(["mta-sts.b.test"], root := issue(["Root"], ca=True))
    root.write(tmp_path, "ca")

    class World:
        names, now = Names(), 1_000_000.0

        def make(self):
            context = https_context(str(tmp_path / "ca.pem"))
            self.sts = MtaSts(tmp_path, self.names, lambda: context, lambda: self.now, Log(2, level="error"), stub.port)
            return self.sts

    async with HttpsStub(certificate.context(tmp_path), {PATH: (200, "text/plain", TEXT)}) as stub:
        world = World()
        world.stub = stub
        yield world


async def test_a_policy_host_in_a_private_network_is_not_asked_unless_that_is_said(world, tmp_path):
    context = https_context(str(tmp_path / "ca.pem"))
    sts = MtaSts(
        tmp_path, world.names, lambda: context, lambda: world.now, Log(2, level="error"), world.stub.port, False
    )
    assert await sts.policy("b.test") is None
    assert sts.problem("b.test") == "sts-policy-fetch-error" and not world.stub.requests
    assert (await world.make().policy("b.test")).mode == "enforce"


async def test_a_policy_is_fetched_once_and_outlives_a_restart(world):
    sts = world.make()
    assert (await sts.policy("b.test")).mode == "enforce"
    assert (await sts.policy("b.test")).mode == "enforce"
    assert len(world.stub.requests) == 1
    assert (await world.make().policy("b.test")).mx == ("mx.b.test", "*.c.test")
    assert len(world.stub.requests) == 1


@pytest.mark.parametrize(
    "record", [None, LookupTrouble("x"), b"v=STSv2; id=2", (b"v=STSv1; id=2", b"v=STSv1; id=3"), b"v=STSv1; id=-"]
)
async def test_a_kept_policy_counts_whatever_becomes_of_dns(world, record):
    sts = world.make()
    await sts.policy("b.test")
    world.names.record = record
    assert (await sts.policy("b.test")).mode == "enforce"
    world.now += 86_401
    assert await sts.policy("b.test") is None
    assert await world.make().policy("b.test") is None


async def test_a_new_id_brings_the_new_policy(world):
    sts = world.make()
    await sts.policy("b.test")
    world.stub.answers[PATH] = (200, "text/plain; charset=utf-8", TEXT.replace(b"enforce", b"none"))
    world.names.record = b"v=STSv1;id=2"
    assert (await sts.policy("b.test")).mode == "none"


@pytest.mark.parametrize(
    "answer",
    [
        (404, "text/plain", b"no"),
        (301, "text/plain", TEXT),
        (200, "text/html", TEXT),
        (200, "text/plain", b"nonsense"),
        (200, "text/plain", TEXT + b"#" * 70_000),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9999\r\n\r\nbreaks off",
        b"SMTP, what else\r\n\r\n",
    ],
)
async def test_a_fetch_that_fails_leaves_what_was_known_and_is_not_repeated_at_once(world, answer):
    sts = world.make()
    if answer[0] == 404:
        await sts.policy("b.test")
    good, world.stub.answers[PATH] = world.stub.answers[PATH], answer
    if isinstance(answer, bytes) and b"9999" in answer:
        world.stub.cut = True
    known = await sts.policy("b.test")
    world.names.record = b"v=STSv1; id=2"
    count = len(world.stub.requests)
    assert await sts.policy("b.test") == known
    await sts.policy("b.test")
    assert len(world.stub.requests) <= count + 1
    world.stub.answers[PATH] = good
    world.now += mta_sts.RETRY_S + 1
    assert (await sts.policy("b.test")).id == "2"


@pytest.mark.parametrize("domain", ["", "b", "../x.test", "b..test", "[192.0.2.1]", "b test", "x/y.test"])
async def test_only_domains_are_asked_for(world, domain):
    assert await world.make().policy(domain) is None


async def test_a_policy_host_must_prove_its_name(world, tmp_path):
    sts = MtaSts(tmp_path, world.names, https_context, lambda: world.now, Log(2, level="error"), world.stub.port)
    assert await sts.policy("b.test") is None and not world.stub.requests
