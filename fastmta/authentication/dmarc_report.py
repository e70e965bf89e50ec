"""Aggregate reports of DMARC: read in the forms of RFC 7489 and RFC 9990, written in RFC 9990's.

What is read is a stranger's: no document type, so no entity; sizes, depth and counts are bounded.
"""

import gzip
import re
from collections.abc import Iterator
from html import escape
from typing import Final, NamedTuple
from xml.parsers import expat

from fastmta.model.limits import (
    DMARC_REPORT_BYTES,
    DMARC_REPORT_DEPTH,
    DMARC_REPORT_ELEMENTS,
    DMARC_REPORT_RECORDS,
    DMARC_REPORT_TEXT,
)

NAMESPACE: Final = "urn:ietf:params:xml:ns:dmarc-2.0"
_UNSAFE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LAST_INSTANT: Final = 253_402_300_799  # the end of the year 9999


class ReportError(ValueError):
    """Not a report, or one that goes beyond a bound; the text says which."""


class DkimAuth(NamedTuple):
    domain: str
    selector: str
    result: str


class SpfAuth(NamedTuple):
    domain: str
    scope: str  # helo, mfrom or ""
    result: str


class ReportRecord(NamedTuple):
    """What one address sent under one combination of identities."""

    source_ip: str
    messages: int
    disposition: str  # none, pass, quarantine, reject
    dkim: str  # whether an aligned identity passed: pass or fail
    spf: str
    header_from: str
    envelope_from: str = ""
    envelope_to: str = ""
    dkim_auth: tuple[DkimAuth, ...] = ()
    spf_auth: tuple[SpfAuth, ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()  # (type, comment) of what overrode the policy


class Report(NamedTuple):
    """A whole report. Instants are in seconds since 1970; "" is what was not said."""

    org_name: str
    email: str
    report_id: str
    begin: int
    end: int
    domain: str
    records: tuple[ReportRecord, ...]
    p: str = ""
    sp: str = ""
    np: str = ""
    adkim: str = ""
    aspf: str = ""
    testing: str = ""
    discovery_method: str = ""
    generator: str = ""
    extra_contact_info: str = ""
    errors: tuple[str, ...] = ()


class _Element:
    __slots__ = ("children", "name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.children: list[_Element] = []

    def all(self, name: str) -> "Iterator[_Element]":
        return (child for child in self.children if child.name == name)

    def get(self, *path: str) -> "_Element | None":
        at: _Element | None = self
        for name in path:
            at = next(at.all(name), None) if at is not None else None
        return at

    def word(self, *path: str) -> str:
        found = self.get(*path)
        return " ".join(found.text.split()) if found is not None else ""

    def number(self, *path: str) -> int:
        text = self.word(*path)
        if not text.isascii() or not text.isdigit():
            return 0
        return min(int(text[:20]), _LAST_INSTANT)


def parse_report(raw: bytes) -> Report:
    """One report. Raises ReportError."""
    if len(raw) > DMARC_REPORT_BYTES:
        raise ReportError(f"the report has over {DMARC_REPORT_BYTES} octets")
    root = _tree(raw)
    if root.name != "feedback" or root.get("report_metadata") is None or root.get("policy_published") is None:
        raise ReportError("it is no aggregate report")
    metadata, policy = "report_metadata", "policy_published"
    report_metadata = root.get(metadata)
    assert report_metadata is not None
    return Report(
        root.word(metadata, "org_name"),
        root.word(metadata, "email"),
        root.word(metadata, "report_id"),
        root.number(metadata, "date_range", "begin"),
        root.number(metadata, "date_range", "end"),
        root.word(policy, "domain").lower(),
        tuple(_record(element) for element in root.all("record")),
        root.word(policy, "p"),
        root.word(policy, "sp"),
        root.word(policy, "np"),
        root.word(policy, "adkim"),
        root.word(policy, "aspf"),
        root.word(policy, "testing"),
        root.word(policy, "discovery_method"),
        root.word(metadata, "generator"),
        root.word(metadata, "extra_contact_info"),
        tuple(" ".join(error.text.split()) for error in report_metadata.all("error")),
    )


def _tree(raw: bytes) -> _Element:
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    top = _Element("")
    stack = [top]
    counts = {"elements": 0, "record": 0}

    def forbidden(*_: object) -> None:
        raise ReportError("it has a document type, which no report needs")

    def start(name: str, _: dict[str, str]) -> None:
        element = _Element(name.rpartition(" ")[2].lower())
        counts["elements"] += 1
        counts["record"] += element.name == "record"
        if len(stack) > DMARC_REPORT_DEPTH:
            raise ReportError(f"its elements are nested deeper than {DMARC_REPORT_DEPTH}")
        if counts["elements"] > DMARC_REPORT_ELEMENTS or counts["record"] > DMARC_REPORT_RECORDS:
            raise ReportError("it has too many elements")
        stack[-1].children.append(element)
        stack.append(element)

    def end(_: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        element = stack[-1]
        if len(element.text) < DMARC_REPORT_TEXT:
            element.text += data[:DMARC_REPORT_TEXT]

    parser.StartDoctypeDeclHandler = forbidden
    parser.EntityDeclHandler = forbidden
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    try:
        parser.Parse(raw, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(f"it is no XML: {error}") from error
    return top.children[0]


def _record(element: _Element) -> ReportRecord:
    evaluated = ("row", "policy_evaluated")
    result = element.get(*evaluated) or _Element("")
    identities = "identifiers" if element.get("identifiers") is not None else "identities"  # some write it so
    auth = element.get("auth_results") or _Element("")
    return ReportRecord(
        element.word("row", "source_ip"),
        element.number("row", "count"),
        result.word("disposition").lower(),
        result.word("dkim").lower(),
        result.word("spf").lower(),
        element.word(identities, "header_from").lower(),
        element.word(identities, "envelope_from").lower(),
        element.word(identities, "envelope_to").lower(),
        tuple(DkimAuth(one.word("domain"), one.word("selector"), one.word("result")) for one in auth.all("dkim")),
        tuple(SpfAuth(one.word("domain"), one.word("scope"), one.word("result")) for one in auth.all("spf")),
        tuple((one.word("type"), one.word("comment")) for one in result.all("reason")),
    )


def encode_report(report: Report) -> bytes:
    """The report as RFC 9990 writes it (appendix A)."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<feedback xmlns="{NAMESPACE}">', "<version>1.0</version>"]
    lines.append("<report_metadata>")
    lines += _tags(org_name=report.org_name, email=report.email, extra_contact_info=report.extra_contact_info)
    lines += _tags(report_id=report.report_id)
    lines.append(f"<date_range><begin>{report.begin}</begin><end>{report.end}</end></date_range>")
    lines += [line for error in report.errors for line in _tags(error=error)]
    lines += _tags(generator=report.generator)
    lines += ["</report_metadata>", "<policy_published>"]
    lines += _tags(domain=report.domain, discovery_method=report.discovery_method or "treewalk")
    lines += _tags(p=report.p, sp=report.sp, np=report.np, adkim=report.adkim, aspf=report.aspf, testing=report.testing)
    lines.append("</policy_published>")
    for record in report.records:
        lines += _encoded(record)
    lines.append("</feedback>")
    return ("\n".join(lines) + "\n").encode()


def _encoded(record: ReportRecord) -> list[str]:
    lines = ["<record>", "<row>", *_tags(source_ip=record.source_ip), f"<count>{record.messages}</count>"]
    lines += ["<policy_evaluated>", *_tags(disposition=record.disposition, dkim=record.dkim, spf=record.spf)]
    for kind, comment in record.reasons:
        lines += ["<reason>", *_tags(type=kind, comment=comment), "</reason>"]
    lines += ["</policy_evaluated>", "</row>", "<identifiers>", *_tags(header_from=record.header_from)]
    lines += [*_tags(envelope_from=record.envelope_from, envelope_to=record.envelope_to), "</identifiers>"]
    lines.append("<auth_results>")
    for dkim in record.dkim_auth:
        lines += ["<dkim>", *_tags(domain=dkim.domain, selector=dkim.selector, result=dkim.result), "</dkim>"]
    for spf in record.spf_auth:
        lines += ["<spf>", *_tags(domain=spf.domain, scope=spf.scope, result=spf.result), "</spf>"]
    return [*lines, "</auth_results>", "</record>"]


def _tags(**values: str) -> list[str]:
    """An element for each value that is not empty, without what XML cannot hold."""
    texts = {name: escape(_UNSAFE.sub("?", value), quote=False) for name, value in values.items() if value}
    return [f"<{name}>{text}</{name}>" for name, text in texts.items()]


def compressed(xml: bytes) -> bytes:
    """As it is attached; equal reports give equal octets."""
    return gzip.compress(xml, 9, mtime=0)


def file_name(receiver: str, report: Report) -> str:
    """The attachment's name (RFC 9990 §3.5.2)."""
    return f"{receiver}!{report.domain}!{report.begin}!{report.end}!{report.report_id}.xml.gz"
