"""Throws damaged answers of filters at what reads them: milters, policy services, rspamd, spamd, clamd; see harness.py.

The first line of an input names the reader; what follows is what the filter has sent. Whatever it sends, what we write
because of it is whole header fields, cuts that lie in the message, and replies of printable characters.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fastmta.authentication.message import parse_fields
from fastmta.model.limits import MILTER_PACKET_BYTES
from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.policy.check import Context
from fastmta.policy.checks import clamav, rspamd, spamassassin
from fastmta.policy.delegation import NoAnswer, encode_request, parse_answer
from fastmta.policy.milter import Changes, Header, MilterError, Steps, Terms, packet, packet_octets, parse_reply
from fastmta.policy.scanner import ScannerTrouble
from tests.fuzz.harness import Target, main

CAME = b"From: a@b.test\r\nSubject: one\r\n\ttwo\r\nX-Spam: No\r\nX-A: 1\r\nSubject: again\r\n"
ADDED = b"Authentication-Results: mx.test; none\r\n"
FIELD = re.compile(rb"[!-9;-~]+:(?:[^\r\n\0]|\r\n(?=[ \t][^\r\n]*[^\r\n \t]))*\r\n")
NEGOTIATED = packet(b"O", bytes.fromhex("00000006 000001ff 00100000"))


def _change(letter: bytes, place: int, name: bytes, value: bytes) -> bytes:
    return packet(letter, (b"" if letter == b"h" else place.to_bytes(4, "big")) + name + b"\0" + value + b"\0")


MILTER = (
    NEGOTIATED + _change(b"h", 0, b"X-New", b" value\n folded") + packet(b"q", b"because\0") + packet(b"c"),
    NEGOTIATED
    + _change(b"m", 1, b"Subject", b"")
    + _change(b"m", 2, b"subject", b"new\r\nEvil: x\n\n.")
    + packet(b"a"),
    NEGOTIATED + _change(b"i", 0, b"X-Top", b"1") + _change(b"i", 99, b"X-Low", b"\xff") + packet(b"c"),
    NEGOTIATED
    + packet(b"+", b"<a@b.test>\0")
    + packet(b"2", b"c@d.test\0NOTIFY=NEVER\0")
    + packet(b"-", b"<x@y.test>\0")
    + packet(b"e", b"<>\0")
    + packet(b"b", b"another\nbody")
    + packet(b"c"),
    packet(b"O", bytes.fromhex("00000006 00000131 001fffff 00000000") + b"j {x} _\0" + bytes(4) + b"i\0"),
    NEGOTIATED + packet(b"y", b"550 5.7.1 no\r\n550 5.7.1 %%more\0"),
    NEGOTIATED + packet(b"y", b"451-4.7.1 a\n451 b\0"),
)
RSPAMD = (
    b'HTTP/1.1 200 OK\r\nX: y\r\n\r\n{"action":"rewrite subject","score":6.5,"required_score":15,"subject":"[x] y",'
    b'"milter":{"add_headers":{"X-A":{"value":"b","order":1},"X-B":["c","d"]},"remove_headers":{"Subject":0}},'
    b'"messages":{"smtp_message":"no"}}',
    b'HTTP/1.0 200 OK\r\n\r\n{"action":"reject","score":1e308,"messages":{"smtp_message":"a\\r\\nb"}}',
)
SPAMD = (b"SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\nSpam: True ; 15.0 / 5.0\r\n\r\nA,B_C,D\r\n",)
CLAMD = (b"stream: OK\0", b"stream: Eicar-Test (x) FOUND\0", b"INSTREAM size limit exceeded. ERROR\0")
POLICY = (
    b"action=DEFER_IF_PERMIT later\n\n",
    b"x=y\r\naction=PREPEND X-A: b\r\n\r\n",
    b"action=dunno\n\naction=ok\n\n",
)
KINDS = {b"milter": MILTER, b"rspamd": RSPAMD, b"spamd": SPAMD, b"clamd": CLAMD, b"policy": POLICY}


class Filters(Target):
    corpus = tuple(kind + b"\n" + answer for kind, answers in KINDS.items() for answer in answers)
    tokens = (
        NEGOTIATED,
        b"\0\0\0\1",
        b"\0\0\0\2",
        b"\xff\xff\xff\xff",
        b"Subject\0",
        b"550 5.7.1 ",
        b"%%",
        b"SPAMD/1.1 0 X\r\n",
        b"Spam: False ; -1 / 5\r\n",
        b" FOUND\0",
        b'{"value":"x\\r\\ny: z"}',
        b'"remove_headers":{"From":1}',
        b"action=",
        b"\n\n",
        b"milter\n",
        b"policy\n",
    )

    def one(self, data: bytes) -> None:
        kind, _, answer = data.partition(b"\n")
        readers = {
            b"milter": self._milter,
            b"rspamd": self._rspamd,
            b"spamd": self._spamd,
            b"clamd": self._clamd,
            b"policy": self._policy,
        }
        for read in [readers[kind]] if kind in readers else readers.values():
            read(answer)

    def _milter(self, data: bytes) -> None:
        packets = []
        try:
            while len(data) >= 4 and len(packets) < 3000:
                octets = packet_octets(data[:4])
                assert 1 <= octets <= MILTER_PACKET_BYTES
                packets.append((data[4:5], data[5 : 4 + octets]))
                data = data[4 + octets :]
        except MilterError:
            pass
        if not packets:
            return
        try:
            terms = Terms(*packets[0])
        except MilterError:
            return
        changes = Changes(terms)
        for letter, said in packets[1:]:
            try:
                if letter == b"y":
                    _look(parse_reply(said))
                    continue
                changes.take(letter, said)
            except MilterError:
                continue
        for address in [address for _, address in changes.recipients] + [changes.sender or b"a@b"]:
            assert b"@" in address and not re.search(rb"[\x00-\x1f\x7f<>]", address), address
        header = Header(parse_fields(CAME), parse_fields(ADDED))
        header.apply(changes.header, leading_space=bool(terms.steps & Steps.LEADING_SPACE))
        _fields(header.new)
        _cuts(header.cuts)
        assert ADDED in [field.raw for field in header.fields]
        for letter in (b"C", b"H", b"M", b"R", b"T", b"N", b"E"):
            terms.command(letter, b"x\0", {"j": "mx.test", "i": "1", "{client_name}": "a\0b"})
        for field in header.fields:
            terms.field(field)

    def _rspamd(self, data: bytes) -> None:
        try:
            answer = rspamd.parse_answer(data)
        except ScannerTrouble:
            return
        verdict = rspamd.verdict_of(answer, parse_fields(CAME))
        if verdict.reply is not None:
            _look(verdict.reply)
        _fields(verdict.fields)
        _cuts(list(verdict.cuts))

    def _spamd(self, data: bytes) -> None:
        try:
            _, score, required, symbols = spamassassin.parse_answer(data)
        except ScannerTrouble:
            return
        assert symbols.isascii() and symbols.isprintable() and "(" not in symbols
        assert score == score and required == required

    def _clamd(self, data: bytes) -> None:
        try:
            name = clamav.parse_answer(data)
        except ScannerTrouble:
            return
        assert not name or (name.isascii() and name.isprintable())

    def _policy(self, data: bytes) -> None:
        try:
            action = parse_answer(data)
        except NoAnswer:
            action = ""
        assert action is None or action.isprintable()
        text = data.decode("utf-8", "replace")
        context = Context(
            stage=Stage.RCPT,
            service="smtp",
            session=1,
            client_ip="192.0.2.1",
            client_name=text,
            trusted=False,
            tls=False,
            helo=text,
            login=text,
            sender=data,
            recipient=data,
        )
        request = encode_request(context)
        assert request.endswith(b"\n\n") and request.count(b"\n") == 28, "a peer has added a line"


def _fields(fields: tuple[bytes, ...]) -> None:
    for field in fields:
        assert FIELD.fullmatch(field), f"no field: {field!r}"


def _cuts(cuts: list[tuple[int, int]]) -> None:
    end = 0
    for at, octets in sorted(cuts):
        assert at >= end and octets > 0 and at + octets <= len(CAME), f"cuts {cuts}"
        end = at + octets


def _look(reply: Reply) -> None:
    assert 400 <= reply.code < 600 and all(line.isprintable() for line in reply.text.split("\n")), reply


if __name__ == "__main__":
    raise SystemExit(main(Filters, __doc__))
