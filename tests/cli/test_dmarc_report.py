"""Aggregate reports: both forms read, ours written and read again, and bombs of every kind refused."""

import gzip
import io
import random
import zipfile
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from fastmta.authentication.dmarc_report import (
    NAMESPACE,
    DkimAuth,
    Report,
    ReportError,
    ReportRecord,
    SpfAuth,
    compressed,
    encode_report,
    file_name,
    parse_report,
)
from fastmta.authentication.report_files import reports_in
from fastmta.model.limits import DMARC_REPORT_BYTES, DMARC_REPORT_DEPTH, DMARC_REPORT_RECORDS

OLD = b"""<?xml version="1.0"?>
<feedback>
  <report_metadata><org_name>Big &amp; Co</org_name><email>noreply@big.example</email><report_id>42</report_id>
    <date_range><begin>1700000000</begin><end>1700086399</end></date_range></report_metadata>
  <policy_published><domain>Example.ORG</domain><adkim>r</adkim><aspf>s</aspf><p>reject</p><sp>none</sp><pct>100</pct>
  </policy_published>
  <record>
    <row><source_ip>192.0.2.1</source_ip><count>7</count>
      <policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf>
        <reason><type>forwarded</type><comment>a list</comment></reason></policy_evaluated></row>
    <identifiers><header_from>example.org</header_from></identifiers>
    <auth_results><dkim><domain>example.org</domain><selector>s1</selector><result>pass</result></dkim>
      <spf><domain>example.net</domain><result>pass</result></spf></auth_results>
  </record>
</feedback>
"""
RECORD = ReportRecord(
    "2001:db8::1",
    3,
    "reject",
    "fail",
    "fail",
    "example.org",
    "bounce.example.org",
    "example.net",
    (DkimAuth("example.org", "s1", "fail"), DkimAuth("example.com", "s2", "pass")),
    (SpfAuth("bounce.example.org", "mfrom", "softfail"),),
    (("local_policy", "arc=pass <&> \x01"),),
)
OURS = Report(
    "Example Mail",
    "postmaster@example.net",
    "2026-11-27.1@example.net",
    1_795_000_000,
    1_795_086_400,
    "example.org",
    (RECORD, RECORD._replace(messages=1, disposition="pass", dkim="pass")),
    p="reject",
    sp="quarantine",
    np="reject",
    adkim="r",
    aspf="s",
    testing="n",
    discovery_method="treewalk",
    generator="FastMTA",
    errors=("a name server was silent",),
)


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return out.getvalue()


def mailed(content: bytes, subtype: str = "gzip") -> bytes:
    message = EmailMessage()
    message["From"] = "noreply@big.example"
    message["Subject"] = "Report domain: example.org"
    message.set_content("This is a report.")
    message.add_attachment(content, maintype="application", subtype=subtype, filename="report")
    return message.as_bytes()


def test_a_report_of_rfc_7489() -> None:
    report = parse_report(OLD)
    assert (report.org_name, report.domain, report.p, report.sp, report.aspf) == (
        "Big & Co",
        "example.org",
        "reject",
        "none",
        "s",
    )
    assert (report.begin, report.end) == (1_700_000_000, 1_700_086_399)
    (record,) = report.records
    assert record.source_ip == "192.0.2.1"
    assert (record.messages, record.dkim, record.spf, record.disposition) == (7, "pass", "fail", "none")
    assert record.dkim_auth == (DkimAuth("example.org", "s1", "pass"),)
    assert record.spf_auth == (SpfAuth("example.net", "", "pass"),)
    assert record.reasons == (("forwarded", "a list"),)


def test_what_we_write_is_read_as_it_was() -> None:
    written = encode_report(OURS)
    assert NAMESPACE.encode() in written
    safe = RECORD._replace(reasons=(("local_policy", "arc=pass <&> ?"),))
    assert parse_report(written) == OURS._replace(
        records=(safe, safe._replace(messages=1, disposition="pass", dkim="pass"))
    )
    assert compressed(written) == compressed(written)
    assert reports_in(compressed(written)) == [written]
    assert file_name("mx.example.net", OURS).startswith("mx.example.net!example.org!1795000000!1795086400!")


def test_octets_that_xml_cannot_hold_do_not_break_what_we_write() -> None:
    hostile = OURS._replace(org_name="\x00\ud800\uffff</feedback>", records=(RECORD._replace(header_from="]]>\x0b"),))
    report = parse_report(encode_report(hostile))
    assert report.org_name == "???</feedback>"
    assert report.records[0].header_from == "]]>?"


@pytest.mark.parametrize(
    "raw",
    [
        OLD,
        b"\xef\xbb\xbf  \r\n" + OLD,
        gzip.compress(OLD),
        zipped(("r.xml", OLD)),
        zipped(("readme.txt", b"x"), ("r.xml", OLD), method=zipfile.ZIP_STORED),
        mailed(gzip.compress(OLD)),
        mailed(zipped(("r.xml", OLD)), "zip"),
        mailed(OLD, "xml"),
        mailed(gzip.compress(OLD), "octet-stream"),
    ],
)
def test_every_way_in_which_a_report_comes(raw: bytes) -> None:
    (text,) = reports_in(raw)
    assert parse_report(text).report_id == "42"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (gzip.compress(b" " * (DMARC_REPORT_BYTES + 1)), "unpacks"),
        (zipped(("r.xml", b"<" + b" " * DMARC_REPORT_BYTES)), "unpacks"),
        (zipped(*[(f"{n}.xml", b"<" + b" " * (DMARC_REPORT_BYTES // 3)) for n in range(4)]), "unpacks"),
        (gzip.compress(OLD)[:-20], "too early"),
        (b"\x1f\x8bnonsense", "damaged"),
        (b"PK\x03\x04nonsense", "damaged"),
        (b"", "no report"),
        (b"hello", "no report"),
        (mailed(b"nothing"), "no report"),
    ],
)
def test_what_is_packed_wrong_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(ReportError, match=words):
        reports_in(raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'<!DOCTYPE f [<!ENTITY a "x">]><feedback>&a;</feedback>', "document type"),
        (b'<!DOCTYPE f SYSTEM "file:///etc/passwd"><feedback/>', "document type"),
        (b"<a>" * (DMARC_REPORT_DEPTH + 2), "nested deeper"),
        (b"<feedback>" + b"<record/>" * (DMARC_REPORT_RECORDS + 1) + b"</feedback>", "too many"),
        (b"<feedback>", "no XML"),
        (b"<html></html>", "no aggregate report"),
        (b"<?xml version='1.0' encoding='nonsense'?><feedback/>", "no XML"),
        (b"<" * (DMARC_REPORT_BYTES + 1), "octets"),
    ],
)
def test_xml_that_is_no_report_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(ReportError, match=words):
        parse_report(raw)


def test_numbers_that_are_none_count_as_zero() -> None:
    for text, number in (
        (b"7", 7),
        (b"-1", 0),
        (b"x", 0),
        (b"9" * 5000, 253_402_300_799),
        (b"", 0),
        ("\u0667".encode(), 0),
    ):
        assert parse_report(OLD.replace(b"<count>7<", b"<count>" + text + b"<")).records[0].messages == number


def test_any_octets_are_a_report_or_an_error_of_ours() -> None:
    chance = random.Random(1)
    for seed in (OLD, gzip.compress(OLD), zipped(("r.xml", OLD)), mailed(gzip.compress(OLD))):
        for _ in range(400):
            raw = bytearray(seed)
            for _ in range(chance.randrange(1, 5)):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
            try:
                for text in reports_in(bytes(raw)):
                    parse_report(text)
            except ReportError:
                continue


def test_the_command_shows_a_table_and_goes_on_after_a_bad_file(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "good.eml").write_bytes(mailed(gzip.compress(OLD)))
    (tmp_path / "bad.xml").write_bytes(b"<html/>")
    done = cli("dmarc", "report", str(tmp_path / "bad.xml"), str(tmp_path / "none"), str(tmp_path / "good.eml"))
    assert done.code == 65
    assert "bad.xml: it is no aggregate report" in done.err
    assert "none: No such file" in done.err
    assert "Big & Co on example.org (p=reject sp=none), 2023-11-14T22:13:20Z" in done.out
    assert "192.0.2.1" in done.out
    (shown,) = cli.ok("dmarc", "report", "--json", "-", stdin=gzip.compress(OLD)).json
    assert shown["records"][0]["dkim_auth"] == [{"domain": "example.org", "selector": "s1", "result": "pass"}]
    assert shown["begin"] == "2023-11-14T22:13:20Z"
