"""canonical_maps, masquerade_domains, smtp_generic_maps and their kin: the same envelopes and headers as Postfix's.

Each case is one message, handed to a Postfix and to us with the same keys; compared is what arrives at the next hop:
the envelope, and the addresses with their display names in each header field. Where fields stand is not: what we write
anew stands on top.
"""

import asyncio
import contextlib
import email
import email.utils
import smtplib
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import postfix
from tests.support.postfix import Postfix
from tests.support.server import Server
from tests.support.smtp_sink import SmtpSink

FIELDS = (
    "From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-To", "Errors-To", "Return-Receipt-To",
    "Disposition-Notification-To", "Mail-Followup-To", "Resent-Reply-To", "X-Other", "Apparently-To",
)  # fmt: skip


class Case(NamedTuple):
    sender: str
    recipients: tuple[str, ...]
    header: tuple[str, ...]


def case(sender: str, to: str | tuple[str, ...], *header: str) -> Case:
    return Case(sender, (to,) if isinstance(to, str) else to, header)


def inline(*pairs: tuple[str, str]) -> str:
    return "inline:{ " + ", ".join(f"{{ {key} = {value} }}" for key, value in pairs) + " }"


CANONICAL = {
    "canonical_maps": inline(
        ("ann@local.example", "Ann.Smith@public.example"),
        ("bob", "bob.jones"),
        ("@old.example", "@new.example"),
        ("loop1@x.example", "loop2@x.example"),
        ("loop2@x.example", "loop3@x.example"),
        ("same@x.example", "same@x.example"),
        ("case@x.example", "case2@x.example"),
        ("quoted@x.example", '"q u"@x.example'),
        ("multi@x.example", "one@x.example two@x.example"),
    ),
    "sender_canonical_maps": inline(
        ("only@local.example", "sender@public.example"), ("chain@local.example", "ann@local.example")
    ),
    "recipient_canonical_maps": inline(
        ("only@local.example", "recipient@away.example"), ("list@local.example", "list@away.example")
    ),
}
CANONICAL_CASES = [
    case("ann@local.example", "r@away.example", "From: Ann <ann@local.example>", "To: r@away.example"),
    case("ann+x@local.example", "r@away.example", "From: ann+x@local.example (Ann)", "To: <r@away.example>"),
    case("bob@local.example", "r@away.example", 'From: "Bob, J." <bob@local.example>', "Cc: bob+y@local.example"),
    case("bob+z@local.example", "r@away.example", "From: bob", "To: bob, ann"),
    case("bob@elsewhere.example", "r@away.example", "From: bob@elsewhere.example", "Reply-To: ann@local.example"),
    case("u@old.example", "v+e@old.example", "From: u@old.example", "To: v+e@old.example, w@OLD.example"),
    case("only@local.example", "only@local.example", "From: only@local.example", "To: only@local.example"),
    case("chain@local.example", "list@local.example", "From: chain@local.example", "To: chain@local.example"),
    case("loop1@x.example", "loop1@x.example", "From: loop1@x.example", "To: Loop <loop2@x.example>"),
    case("same@x.example", "r@away.example", "From: Same <same@X.example>", "To: same@x.example"),
    case("case@x.example", "CASE@x.example", "From: Case@x.example", "To: CASE@X.EXAMPLE"),
    case("quoted@x.example", "r@away.example", "From: quoted@x.example", "To: quoted@x.example"),
    case("multi@x.example", "r@away.example", "From: multi@x.example", "To: multi@x.example"),
    case("", "r@away.example", "From: ann@local.example", "To: r@away.example"),
    case("other@public.example", "r@away.example", "From: other@public.example", "X-Other: ann@local.example"),
    case("ann@local.example", "r@away.example", "Sender: ann@local.example", "From: a@b.example, ann@local.example"),
    case("s@away.example", "r@away.example", "To: Group: ann@local.example, bob;, c@d.example", "From: x@y.example"),
    case("s@away.example", "r@away.example", "To: undisclosed-recipients:;", "From: ann@local.example"),
    case("s@away.example", "r@away.example", "From: x@y.example", "To: <@relay.example:ann@local.example>"),
    case("s@away.example", "r@away.example", "From: x@y.example", "To: \"ann\"@local.example, 'ann'@local.example"),
    case("s@away.example", "r@away.example", "From: (c (nested) ann@local.example) bob@local.example (d)", "To: a@b.c"),
    case("s@away.example", "r@away.example", "From: x@y.example", "To: a@b.c,\r\n ann@local.example,\r\n\tbob"),
    case("s@away.example", "r@away.example", "Resent-From: ann@local.example", "Resent-To: bob", "From: x@y.example"),
    case("s@away.example", "r@away.example", "Errors-To: ann@local.example", "Return-Receipt-To: bob", "From: x@y.z"),
    case("s@away.example", "r@away.example", "Disposition-Notification-To: only@local.example", "From: x@y.z"),
    case("s@away.example", "r@away.example", "Mail-Followup-To: only@local.example", "From: x@y.z"),
    case("s@away.example", "r@away.example", "Resent-Reply-To: only@local.example", "Resent-From: x@y.z"),
    case("s@away.example", "r@away.example", "Apparently-To: only@local.example", "From: x@y.z"),
    case("s@away.example", ("ann@local.example", "list@local.example", "r@away.example"), "From: x@y.z", "To: ann"),
    case("s@away.example", "r@away.example", "From: user%host.example", "To: host.example!user"),
]  # fmt: skip
CLASSES = {
    **CANONICAL,
    "canonical_classes": "header_sender, envelope_recipient",
    "sender_canonical_classes": "envelope_sender",
    "recipient_canonical_classes": "header_recipient",
    "masquerade_domains": "sub.deep.example !host.deep.example deep.example",
    "masquerade_exceptions": "root admin",
    "masquerade_classes": "envelope_sender, envelope_recipient, header_sender, header_recipient",
}
CLASSES_CASES = [
    case("ann@local.example", "ann@local.example", "From: ann@local.example", "To: ann@local.example"),
    case("only@local.example", "only@public.example", "From: only@local.example", "To: only@local.example"),
    case("u@a.deep.example", "v@b.deep.example", "From: U <u@a.deep.example>", "To: V <v@b.c.deep.example>"),
    case("u@deep.example", "v@sub.deep.example", "From: u@deep.example", "To: v@x.sub.deep.example"),
    case("u@host.deep.example", "v@y.host.deep.example", "From: u@host.deep.example", "To: v@y.host.deep.example"),
    case("root@a.deep.example", "Admin@b.deep.example", "From: root@a.deep.example", "To: ADMIN@b.deep.example"),
    case("u@notdeep.example", "v@A.DEEP.example", "From: u@notdeep.example", "To: v@A.DEEP.EXAMPLE"),
    case("root+x@a.deep.example", "r@away.example", "From: root+x@a.deep.example", "To: r@away.example"),
]  # fmt: skip
MASQUERADE = {"masquerade_domains": "deep.example"}
MASQUERADE_CASES = [
    case("u@a.deep.example", "v@b.deep.example", "From: u@a.deep.example", "To: v@b.deep.example"),
    case("", "v@b.deep.example", "From: u@a.deep.example", "Cc: v@b.deep.example, x@y.example"),
]  # fmt: skip
GENERIC = {
    "smtp_generic_maps": inline(
        ("ann@local.example", "ann@isp.example"),
        ("bob", "bobby@isp.example"),
        ("@inner.example", "@isp.example"),
        ("one@x.example", "two@x.example"),
        ("two@x.example", "three@x.example"),
    )
}
GENERIC_CASES = [
    case("ann@local.example", "r@away.example", "From: Ann <ann@local.example>", "To: r@away.example"),
    case("ann+x@local.example", "r@away.example", "From: ann+x@local.example", "To: ann@local.example"),
    case("bob@local.example", "r@away.example", "From: bob@local.example (Bob)", "Reply-To: bob+e@local.example"),
    case("u@inner.example", "v+e@inner.example", "From: u@inner.example", "To: v+e@inner.example"),
    case("one@x.example", "two@x.example", "From: one@x.example", "To: two@x.example, one@x.example"),
    case("", "one@x.example", "From: one@x.example", "X-Other: ann@local.example"),
    case("s@y.example", "r@away.example", "Resent-From: ann@local.example", "Resent-To: Bob <bob@local.example>"),
]  # fmt: skip
REMOTE = {**CANONICAL, "local_header_rewrite_clients": ""}
REMOTE_CASES = [
    case("ann@local.example", "list@local.example", "From: ann@local.example", "To: bob, ann@local.example"),
    case("bob@local.example", "r@away.example", "From: bob", "To: r@away.example"),
]  # fmt: skip
COMPLETED = {**REMOTE, "remote_header_rewrite_domain": "domain.invalid"}
TABLES = {
    "canonical": (CANONICAL, CANONICAL_CASES),
    "classes": (CLASSES, CLASSES_CASES),
    "masquerade": (MASQUERADE, MASQUERADE_CASES),
    "generic": (GENERIC, GENERIC_CASES),
    "remote": (REMOTE, REMOTE_CASES),
    "remote-domain": (COMPLETED, REMOTE_CASES),
}


def test_there_are_cases_enough() -> None:
    assert sum(len(cases) for _, cases in TABLES.values()) >= 40


def _send(port: int, cases: list[Case]) -> None:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=60) as client:
        for number, each in enumerate(cases):
            lines = (*each.header, f"Subject: case {number}", "Message-ID: <m@client.example>", "", "text", "")
            client.sendmail(each.sender, list(each.recipients), "\r\n".join(lines).encode())


def _folded(named: tuple[str, str]) -> tuple[str, str]:
    """A domain may be spelt as it came or as a table has it."""
    local_part, at, domain = named[1].rpartition("@")
    return named[0], local_part + at + domain.lower()


Seen = dict[str, tuple[bytes, list[bytes], dict[str, list[tuple[str, str]]]]]


def _seen(sink: SmtpSink) -> Seen:
    """By subject: envelope sender, recipients, and of each field the names and addresses."""
    out: Seen = {}
    for taken in sink.messages:
        message = email.message_from_bytes(taken.data)
        fields = {
            name: [_folded(each) for each in email.utils.getaddresses(message.get_all(name, []))]
            for name in FIELDS
            if message.get_all(name)
        }
        known = out.get(message["Subject"])
        recipients = sorted([*taken.recipients, *(known[1] if known else [])])
        out[message["Subject"]] = (taken.sender, recipients, fields)
    return out


@pytest.mark.parametrize("table", sorted(TABLES))
async def test_what_leaves_has_the_addresses_that_postfix_gives_it(table: str, tmp_path: Path) -> None:
    if reason := postfix.missing():
        pytest.skip(f"{reason} (tests/install_packages.sh)")
    keys, cases = TABLES[table]
    common = {"myorigin": "local.example", "mydestination": "local.example", "recipient_delimiter": "+"}
    expected = sum(len(each.recipients) for each in cases)
    with contextlib.ExitStack() as closing:
        async with SmtpSink(pipelining=True) as theirs, SmtpSink(pipelining=True) as ours:
            relay = f"[127.0.0.1]:{theirs.port}"
            parameters = {"smtp_tls_security_level": "none", "local_recipient_maps": "", **common, **keys}
            other = Postfix({**parameters, "relayhost": relay, "virtual_alias_maps": ""})
            await asyncio.to_thread(closing.enter_context, other)
            server = Server(
                tmp_path,
                domains=["local.example"],
                services=("smtp",),
                settings={
                    "relayhost": f"[127.0.0.1]:{ours.port}",
                    "dkim_signing": False,
                    **{name: value for name, value in {**common, **keys}.items() if not name.startswith("smtp_")},
                    "delivery": {name: value for name, value in keys.items() if name.startswith("smtp_")},
                },
            )
            await asyncio.to_thread(closing.enter_context, server)
            await asyncio.to_thread(_send, other.port, cases)
            await asyncio.to_thread(_send, server.port("smtp"), cases)
            for sink in (theirs, ours):
                async with asyncio.timeout(60):
                    await sink.until(lambda: sum(len(one.recipients) for one in sink.messages) >= expected)  # noqa: B023
            mine, his = _seen(ours), _seen(theirs)
            await asyncio.to_thread(closing.close)
    assert sorted(his) == sorted(mine)
    wrong = {name: (his[name], mine[name]) for name in his if his[name] != mine[name]}
    assert wrong == {}, "\n".join(f"{name}\n  {theirs!s}\n  {mine!s}" for name, (theirs, mine) in wrong.items())
