"""Throws damaged text at the rest of policy: access tables, words of lists, header_checks, greylist and bans, SRS,
DMARC reports, and names of certificates; see harness.py.

The first line of an input names the reader. What comes of it is one of the answers that are allowed: a decision, a
refusal that says what is wrong, or the error that the reader is documented with.
"""

import ipaddress
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fastmta.authentication.dmarc_report import ReportError, parse_report
from fastmta.authentication.report_files import reports_in
from fastmta.config.restrictions import Restriction, class_problem, normalised, parse
from fastmta.config.schema import Config
from fastmta.directory import addresses
from fastmta.directory.srs import Srs, SrsRefused, is_srs
from fastmta.model.certificate import PeerCertificate
from fastmta.model.limits import SMTP_COMMAND_LINE_BYTES, SRS_PATH_BYTES
from fastmta.model.verdict import Verdict
from fastmta.policy.bans import network_of
from fastmta.policy.checks.access import AccessTables
from fastmta.policy.contents import Kind, Walk, parse_action, problem_of, rejection
from fastmta.policy.greylist import sender_key
from fastmta.runtime.clock import SystemClock
from fastmta.smtp.handshake import _told
from tests.fuzz.harness import Target, main

MESSAGE = (
    b'From: a@b\r\nContent-Type: multipart/mixed; boundary="a\\"b"\r\nSubject: x\r\n folded\r\n\r\n--a"b\r\n'
    b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: multipart/x; boundary=c\r\n\r\n--c\r\n\r\n"
    b'body\r\n--c--\r\n--a"b--\r\nepilogue\r\n'
)
REPORT = (
    b"<?xml version='1.0'?><feedback><report_metadata><org_name>o</org_name><date_range><begin>1</begin><end>2</end>"
    b"</date_range></report_metadata><policy_published><domain>a.test</domain><p>none</p></policy_published><record>"
    b"<row><source_ip>192.0.2.1</source_ip><count>3</count><policy_evaluated><disposition>none</disposition>"
    b"</policy_evaluated></row><identifiers><header_from>a.test</header_from></identifiers></record></feedback>"
)
KINDS = {
    b"access": (
        b"REJECT 5.7.9 go away",
        b"450 4.7.1 later",
        b"DEFER_IF_PERMIT x",
        b"PREPEND X-A: b",
        b"REDIRECT a@b.test",
        b"reject_rbl_client a.test=127.0.0.[2..4;9], strict, check_sender_access hash:/x",
        b"HOLD",
        b"2501",
    ),
    b"words": (b"permit_mynetworks, reject_rhsbl_client a.test=127.[0..2].1.[3;4], check_policy_service inet:a:25",),
    b"content": (MESSAGE, b"no header\r\n\r\n", b"A: b\n\tc\n\nbody\n" * 3),
    b"action": (b"REPLACE Subject: x", b"REJECT 5.1.2 text", b"FILTER smtp:x", b"BCC a@b", b"PREPEND X: y"),
    b"sender": (b"list-return-1234+a=b@lists.test", b"SRS0=ABCD=AB=author.test=ann@x.test", b'"a b"@[192.0.2.1]'),
    b"network": (b"192.0.2.77", b"2001:db8::1", b"::ffff:192.0.2.1", b"fe80::1%eth0"),
    b"srs": (
        b"ann@author.test",
        b"SRS0=ABCD=AB=author.test=ann",
        b"SRS1=ABCD=f.test==ABCD=AB=author.test=ann",
        b"SRS0+x",
    ),
    b"report": (REPORT, b"PK\x03\x04", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"From: a\r\n\r\n" + REPORT),
    b"certificate": (b"branch.test", b'evil) (by "x\\', b"\xc3\xa9"),
}


class Policy(Target):
    corpus = tuple(kind + b"\n" + text for kind, texts in KINDS.items() for text in texts)
    tokens = (
        b"REJECT ",
        b"5.7.1 ",
        b"warn_if_reject ",
        b"check_client_access ",
        b'--a"b\r\n',
        b"--c--\r\n",
        b"Content-Type: message/rfc822\r\n\r\n",
        b'boundary="',
        b"SRS0=",
        b"SRS1=",
        b"==",
        b"<record>",
        b"</record>",
        b"<!ENTITY a '&a;&a;'>",
        b"&lt;",
        b"<count>99999999999999999999</count>",
        b"[1..255]",
        b"\xff\xfe",
        b"\r\n\r\n",
    )

    def __init__(self) -> None:
        self._config = Config(smtpd_restriction_classes={"strict": ("reject",)})
        self._tables = AccessTables(self._config, SystemClock())
        self._rewriter = Srs("srs.test", (b"secret",), (), 21 * 86_400, lambda: 1_800_000_000.0)

    def one(self, data: bytes) -> None:
        kind, _, text = data.partition(b"\n")
        if kind in KINDS:
            getattr(self, f"_{kind.decode()}")(text)

    def _access(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace")
        found = self._tables.action(text.strip(), text, "Client host", "x")
        if isinstance(found, tuple):
            _verdict(found[1])
        for each in found if isinstance(found, list) else ():
            assert isinstance(each, Restriction)
        name = text[:SMTP_COMMAND_LINE_BYTES]
        for key in (("client", name, name), ("domain", name), ("mail", name), ("certificate", name)):
            assert len(list(self._tables._forms(key))) <= 2 * len(name) + 8

    def _words(self, raw: bytes) -> None:
        words = raw.decode("utf-8", "replace").replace(",", " ").split()
        try:
            parse(normalised(words, Path("/"), {"strict"}))
        except ValueError:
            pass
        class_problem(words[0] if words else "", {"strict": words})

    def _content(self, raw: bytes) -> None:
        pieces = []
        for step in (len(raw) or 1, 7):
            walk = Walk(frozenset(Kind), 2000)
            seen = []
            for at in range(0, len(raw), step):
                seen += list(walk.feed(raw[at : at + step]))
            seen += list(walk.end())
            for piece in seen:
                assert piece.at >= 0 and piece.at + piece.size <= len(raw), piece
            pieces.append(seen)
            if len(raw) > 20_000:
                return
        assert pieces[0] == pieces[1], "what is seen depends on how it comes"

    def _action(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace")
        try:
            parse_action(text)
        except ValueError:
            pass
        for kind in Kind:
            problem_of(kind, text)
        reply = rejection(text)
        assert reply.text.isascii() and reply.text.isprintable()

    def _sender(self, raw: bytes) -> None:
        assert isinstance(sender_key(raw.decode("utf-8", "surrogateescape")), str)

    def _network(self, raw: bytes) -> None:
        try:
            ipaddress.ip_network(network_of(raw.decode("utf-8", "replace")))
        except ValueError:
            pass

    def _srs(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "surrogateescape")
        try:
            sender = addresses.parse(text if "@" in text else text + "@author.test")
        except ValueError:
            return
        path = self._rewriter.forward(sender)
        if path is not None:
            assert len(path) <= SRS_PATH_BYTES
            back = addresses.parse(path.decode("utf-8", "surrogateescape"))
            if not is_srs(sender.local_part):
                assert self._rewriter.reverse(back.local_part).raw.lower() == sender.raw.lower(), (path, sender.raw)
        if is_srs(text):
            try:
                self._rewriter.reverse(text)
            except SrsRefused:
                pass

    def _report(self, raw: bytes) -> None:
        try:
            for text in reports_in(raw):
                parse_report(text)
        except ReportError:
            pass

    def _certificate(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace")
        for trusted in (True, False):
            said = _told(PeerCertificate(text, text, "", "", trusted))
            assert said.isascii() and said.isprintable() and said.count("(") == said.count(")") == 1
            assert said.count('"') == 4 and "\\" not in said


def _verdict(verdict: Verdict) -> None:
    for field in verdict.fields:
        assert field.endswith(b"\r\n") and b"\n" not in field[:-2].replace(b"\r\n\t", b""), field
    if verdict.reply is not None:
        str(verdict.reply)


if __name__ == "__main__":
    raise SystemExit(main(Policy, __doc__))
