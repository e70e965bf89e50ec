"""Restrictions about a domain's servers, backup MX hosts, lists of good names, and what the session itself is like."""

import gzip
import re
from pathlib import Path
from typing import Any

import pytest

from fastmta.config.load import parse
from fastmta.config.restrictions import WORDS, normalised
from fastmta.model.errors import ConfigError
from fastmta.model.limits import SERVER_ADDRESSES, SERVER_HOSTS, SERVER_PARENTS, SLEEP_S
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action
from tests.policy.test_restrictions import Judge, Parts, judge, parts, said, table  # noqa: F401

MANUAL = Path("/usr/share/man/man5/postconf.5.gz")
ZONE: dict[tuple[str, str], Any] = {
    ("sender.test", "MX"): ((20, "mail.good.test"), (10, "mx.evil.test")),
    ("sender.test", "NS"): ("ns.evil.test",),
    ("sender.test", "A"): ("192.0.2.80",),
    ("mx.evil.test", "A"): ("203.0.113.66",),
    ("ns.evil.test", "A"): ("203.0.113.53",),
    ("mail.good.test", "A"): ("198.51.100.1",),
    ("plain.test", "A"): ("203.0.113.9",),
}


@pytest.mark.parametrize(
    ("kind", "key", "found"),
    [
        ("mx", "mx.evil.test", True),
        ("mx", "evil.test", True),
        ("mx", "203.0.113", True),
        ("mx", "good.test", True),
        ("mx", "ns.evil.test", False),
        ("ns", "ns.evil.test", True),
        ("ns", "203.0.113.53", True),
        ("ns", "mx.evil.test", False),
        ("a", "192.0.2.80", True),
        ("a", "sender.test", False),
    ],
)
async def test_a_domain_is_judged_by_its_servers(
    judge: Judge,  # noqa: F811
    parts: Parts,  # noqa: F811
    tmp_path: Path,
    kind: str,
    key: str,
    found: bool,
) -> None:
    parts.resolver.zone |= ZONE
    name = table(tmp_path, f"{key} REJECT bad company\n")
    reply = await said(judge(Stage.MAIL, f"check_sender_{kind}_access {name}"))
    assert reply == ("554 5.7.1 <ann@sender.test>: Sender address rejected: bad company" if found else "NONE")


@pytest.mark.parametrize(
    ("word", "changes", "class_"),
    [
        ("check_client_mx_access", {"client_name": "sender.test"}, "Client host"),
        ("check_reverse_client_hostname_mx_access", {"reverse_name": "sender.test"}, "Unverified Client host"),
        ("check_helo_mx_access", {"helo": "Sender.Test."}, "Helo command"),
        ("check_sender_mx_access", {}, "Sender address"),
        ("check_recipient_mx_access", {"recipient": b"x@sender.test"}, "Recipient address"),
        ("check_sender_mx_access", {"sender": b"a@[203.0.113.66]"}, "Sender address"),
        ("check_sender_mx_access", {"sender": "a@sender。test".encode()}, "Sender address"),
    ],
)
async def test_whose_servers_they_are(
    judge: Judge,  # noqa: F811
    parts: Parts,  # noqa: F811
    tmp_path: Path,
    word: str,
    changes: dict[str, Any],
    class_: str,
) -> None:
    parts.resolver.zone |= ZONE
    name = table(tmp_path, "203.0.113.66 REJECT\n")
    reply = await said(judge(Stage.RCPT, f"{word} {name}", **changes))
    assert reply.startswith("554 5.7.1 <") and f">: {class_} rejected: Access denied" in reply


async def test_a_host_without_an_mx_is_its_own_and_one_without_servers_has_its_parents(
    judge: Judge,  # noqa: F811
    parts: Parts,  # noqa: F811
    tmp_path: Path,
) -> None:
    parts.resolver.zone |= ZONE
    name = table(tmp_path, "plain.test REJECT\nns.evil.test REJECT\n")
    assert (await said(judge(Stage.MAIL, f"check_sender_mx_access {name}", sender=b"a@plain.test"))).startswith("554")
    deep = b"a@" + b"x." * 40 + b"sender.test"
    assert (await said(judge(Stage.MAIL, f"check_sender_ns_access {name}", sender=deep))).startswith("554")
    assert await said(judge(Stage.MAIL, f"check_sender_ns_access {name}", sender=b"")) == "NONE"


async def test_a_table_of_servers_may_not_permit(
    judge: Judge,  # noqa: F811
    parts: Parts,  # noqa: F811
    tmp_path: Path,
) -> None:
    parts.resolver.zone |= ZONE
    for value in ("OK", "permit", "permit_mynetworks, permit"):
        name = table(tmp_path, f"mx.evil.test {value}\n")
        reply = await said(judge(Stage.MAIL, f"check_sender_mx_access {name}, reject"))
        assert reply == "451 4.3.5 Server configuration error"
    name = table(tmp_path, "mx.evil.test DUNNO\ngood.test REJECT\n")
    assert await said(judge(Stage.MAIL, f"check_sender_mx_access {name}")) == "NONE"  # the first that is found counts
    name = table(tmp_path, "client.test OK\n")
    words = f"check_reverse_client_hostname_access {name}, reject"
    reply = await said(judge(Stage.CONNECT, words, reverse_name="mail.client.test"))
    assert reply == "451 4.3.5 Server configuration error"


async def test_servers_that_nobody_can_name_refuse_nobody_and_are_told(
    judge: Judge,  # noqa: F811
    parts: Parts,  # noqa: F811
    tmp_path: Path,
) -> None:
    parts.resolver.zone |= {("sender.test", "MX"): "?"}
    assert await said(judge(Stage.MAIL, f"check_sender_mx_access {table(tmp_path, 'test REJECT')}")) == "NONE"
    assert parts.told == ["policy.servers_unknown"]
    parts.resolver.zone |= {("sender.test", "MX"): ((10, "mx.evil.test"),)}
    assert await said(judge(Stage.MAIL, "check_sender_mx_access texthash:/nowhere/x")) == (
        "451 4.3.0 Temporary lookup failure"
    )


async def test_who_writes_a_domains_dns_does_not_choose_how_much_is_asked(
    judge: Judge,  # noqa: F811
    parts: Parts,  # noqa: F811
    tmp_path: Path,
) -> None:
    asked: list[str] = []
    ask = parts.resolver._find

    def find(name: str, kind: str) -> Any:
        asked.append(name)
        return ask(name, kind)

    parts.resolver._find = find  # type: ignore[method-assign]
    many = tuple((1, f"h{number:05}.test") for number in range(10_000))
    addresses = tuple(f"192.0.{number // 250}.{number % 250}" for number in range(10_000))
    parts.resolver.zone |= {("sender.test", "MX"): many, ("h00000.test", "A"): addresses}
    assert await said(judge(Stage.MAIL, f"check_sender_mx_access {table(tmp_path, '192.0.39 REJECT')}")) == "NONE"
    assert len(asked) == 2
    last = f"192.0.0.{SERVER_ADDRESSES - 1} REJECT"
    assert (await said(judge(Stage.MAIL, f"check_sender_mx_access {table(tmp_path, last)}"))).startswith("554")
    over = f"192.0.0.{SERVER_ADDRESSES} REJECT"
    assert await said(judge(Stage.MAIL, f"check_sender_mx_access {table(tmp_path, over)}")) == "NONE"
    del parts.resolver.zone["h00000.test", "A"]
    asked.clear()
    assert await said(judge(Stage.MAIL, f"check_sender_mx_access {table(tmp_path, 'x REJECT')}")) == "NONE"
    assert len(asked) == 1 + SERVER_HOSTS
    asked.clear()
    deep = b"a@" + b"x." * 100 + b"example"
    assert await said(judge(Stage.MAIL, f"check_sender_ns_access {table(tmp_path, 'x REJECT')}", sender=deep)) == "NONE"
    assert len(asked) == 1 + SERVER_PARENTS


BACKUP: dict[tuple[str, str], Any] = {
    ("backup.test", "MX"): ((10, "primary.test"), (20, "mx.here.test")),
    ("best.test", "MX"): ((10, "mx.here.test"), (20, "primary.test")),
    ("other.test", "MX"): ((10, "primary.test"),),
    ("named.test", "MX"): ((10, "primary.test"), (20, "mx.example.test")),
    ("trouble.test", "MX"): "?",
    ("hidden.test", "MX"): ((10, "unknown.test"), (20, "mx.here.test")),
    ("away.test", "MX"): ((10, "primary.test"), (20, "unknown.test")),
    ("unknown.test", "A"): "?",
    ("primary.test", "A"): ("192.0.2.25",),
    ("mx.here.test", "A"): ("127.0.0.1",),
}
KEYS = 'myhostname = "mx.example.test"\n{}[listen]\nsmtp = ["127.0.0.1:2525"]\n'


@pytest.mark.parametrize(
    ("recipient", "networks", "expected"),
    [
        (b"x@backup.test", "", "ACCEPT"),
        (b"x@named.test", "", "ACCEPT"),
        (b"x@best.test", "", "554 5.7.1"),
        (b"x@other.test", "", "554 5.7.1"),
        (b"victim%target.test@backup.test", "", "554 5.7.1"),
        (b"target.test!victim@backup.test", "", "554 5.7.1"),
        (b'"victim@target.test"@backup.test', "", "554 5.7.1"),
        (b"x@nowhere.test", "", "554 5.7.1"),
        (b"x@[192.0.2.25]", "", "554 5.7.1"),
        (b"bob@example.test", "", "ACCEPT"),
        (b"x@trouble.test", "", "450 4.4.4"),
        (b"x@hidden.test", "", "ACCEPT"),
        (b"x@hidden.test", "192.0.2.0/24", "450 4.4.4"),
        (b"x@away.test", "", "450 4.4.4"),
        (b"x@backup.test", "192.0.2.0/24", "ACCEPT"),
        (b"x@backup.test", "198.51.100.0/24", "554 5.7.1"),
    ],
)
async def test_a_backup_mx_relays(
    judge: Judge,  # noqa: F811
    parts: Parts,  # noqa: F811
    recipient: bytes,
    networks: str,
    expected: str,
) -> None:
    parts.resolver.zone |= BACKUP
    keys = KEYS.format(f'permit_mx_backup_networks = "{networks}"\n' if networks else "")
    verdict = await judge(Stage.RCPT, "permit_mx_backup, reject_unauth_destination", keys=keys, recipient=recipient)
    assert str(verdict.if_alone or verdict.reply or verdict.action.name).startswith(expected)


async def test_lists_of_good_clients_permit_but_no_relaying(
    judge: Judge,  # noqa: F811
    parts: Parts,  # noqa: F811
) -> None:
    parts.resolver.zone |= {
        ("7.2.0.192.wl.test", "A"): ("127.0.0.2",),
        ("good.test.names.test", "A"): ("127.0.0.2",),
        ("8.2.0.192.wl.test", "A"): "?",
        ("bad.test.names.test", "A"): "?",
    }
    for words, changes in (
        ("permit_dnswl_client wl.test, reject", {}),
        ("permit_rhswl_client names.test, reject", {"client_name": "good.test"}),
    ):
        assert await said(judge(Stage.RCPT, words, **changes)) == "ACCEPT"
        assert await said(judge(Stage.CONNECT, words, **changes)) == "ACCEPT"
        reply = await said(judge(Stage.CONNECT, words, recipient=b"x@other.test", **changes))
        assert reply.startswith("554 5.7.1 <")  # a list of clients that is asked at RCPT
        reply = await said(judge(Stage.RCPT, words, recipient=b"x@other.test", **changes))
        assert reply.startswith("554 5.7.1 <x@other.test>")
    for words, changes in (
        ("permit_dnswl_client wl.test, reject", {"client_ip": "192.0.2.8"}),
        ("permit_rhswl_client names.test, reject", {"client_name": "bad.test"}),
    ):
        verdict = await judge(Stage.RCPT, words, **changes)
        assert str(verdict.if_alone).startswith("450 4.7.1") and verdict.action is Action.NONE
    assert (await said(judge(Stage.CONNECT, "permit_rhswl_client names.test, reject"))).startswith("554")


async def test_reverse_names_have_lists_and_tables(
    judge: Judge,  # noqa: F811
    parts: Parts,  # noqa: F811
    tmp_path: Path,
) -> None:
    parts.resolver.zone["bad.test.names.test", "A"] = ("127.0.0.2",)
    reply = await said(judge(Stage.CONNECT, "reject_rhsbl_reverse_client names.test", reverse_name="bad.test"))
    assert reply == "554 5.7.1 Service unavailable; Unverified Client host [bad.test] blocked using names.test"
    assert await said(judge(Stage.CONNECT, "reject_rhsbl_reverse_client names.test")) == "NONE"
    name = table(tmp_path, "dynamic.test REJECT\n")
    word = f"check_reverse_client_hostname_access {name}"
    reply = await said(judge(Stage.CONNECT, word, reverse_name="a.dynamic.test"))
    assert reply == "554 5.7.1 <a.dynamic.test>: Unverified Client host rejected: Access denied"


async def test_what_the_session_is_like(judge: Judge, tmp_path: Path) -> None:  # noqa: F811
    assert await said(judge(Stage.MAIL, "reject_plaintext_session")) == "450 4.7.1 Session encryption is required"
    keys = "plaintext_reject_code = 550\n"
    assert (await said(judge(Stage.MAIL, "reject_plaintext_session", keys=keys))).startswith("550 5.7.1")
    assert await said(judge(Stage.MAIL, "reject_plaintext_session", tls=True)) == "NONE"
    assert await said(judge(Stage.MAIL, "reject_unauth_pipelining")) == "NONE"
    assert await said(judge(Stage.MAIL, "reject_unauth_pipelining", pipelined=True)) == (
        "503 5.5.0 <ann@sender.test>: Sender address rejected: Improper use of SMTP command pipelining"
    )
    name = table(tmp_path, "eve@example.test REJECT\nexample.test OK\n")
    word = f"check_sasl_access {name}"
    assert await said(judge(Stage.MAIL, word, login="eve@example.test")) == (
        "554 5.7.1 <eve@example.test>: SASL login name rejected: Access denied"
    )
    assert await said(judge(Stage.MAIL, f"{word}, reject", login="bob@example.test")) != "ACCEPT"  # no parent domains
    assert await said(judge(Stage.MAIL, word)) == "NONE"
    keys = KEYS.format("")
    assert await said(judge(Stage.CONNECT, "permit_inet_interfaces, reject", keys=keys, client_ip="127.0.0.1")) == (
        "ACCEPT"
    )
    assert (await said(judge(Stage.CONNECT, "permit_inet_interfaces, reject", keys=keys))).startswith("554")
    assert await said(judge(Stage.CONNECT, "sleep 0, permit")) == "ACCEPT"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("check_etrn_access hash:/x", "ETRN is not spoken here"),
        ("permit_naked_ip_addr", "permit_mynetworks or permit_sasl_authenticated"),
        ("reject_maps_rbl", "reject_rbl_client with each zone"),
        ("hash:/etc/postfix/access", "check_client_access"),
        ("sleep", "a seconds behind sleep"),
        (f"sleep {SLEEP_S + 1}", f"whole seconds up to {SLEEP_S}"),
        ("sleep ³", "whole seconds"),
        ("check_sender_mx_access", "a map behind check_sender_mx_access"),
        ("check_sender_x_access hash:/x", "a restriction such as check_sender_"),
        ("reject_unauth_pipeline", "a restriction such as reject_unauth_pipelining, "),
        ("qwertz", "a restriction (docs/restrictions.md), or a class of smtpd_restriction_classes, not qwertz"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_with_a_remedy(text: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(remedy)):
        parse(f'smtpd_client_restrictions = "{text}"')


@pytest.mark.skipif(not MANUAL.exists(), reason="Postfix's manuals are not installed")
def test_every_restriction_of_the_manual_is_one_here_or_refused_with_a_remedy() -> None:
    text = gzip.decompress(MANUAL.read_bytes()).decode().replace("\\-", "-")
    at = text.index(".SH smtpd_client_restrictions (default")
    sections = [text[at : text.index("\n.SH ", at + 1)]]
    for key in ("helo", "etrn", "recipient", "relay", "sender", "data"):
        at = text.index(f".SH smtpd_{key}_restrictions (default")
        sections.append(text[at : text.index("\n.SH ", at + 1)])
    named = {
        word
        for section in sections
        for word in re.findall(r'^\.IP "\\fB([a-z_0-9]+)', section, re.MULTILINE)
        if re.match(r"check_|permit|reject|defer|warn_if|sleep", word)
    }
    assert len(named) > 60
    arguments = {"map": ["hash:/x"], "zone": ["bl.test"], "service": ["unix:/x"], "seconds": ["1"], "": []}
    unknown = set()
    for word in named:
        given = WORDS[word].given if word in WORDS else ""
        try:
            normalised([word, *arguments[given]], Path("/"))
        except ValueError:
            unknown.add(word)
    assert unknown == {"check_etrn_access"}
