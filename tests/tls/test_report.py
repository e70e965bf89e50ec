"""TLS reports as JSON (RFC 8460 §4.4), and the record that asks for them (§3)."""

import json

import pytest

from fastmta.tls.report import Failure, PolicyResult, TlsReport, TlsReportError, encode_report, file_name, parse_report
from fastmta.tls.report_record import report_uris

FAILURE = Failure("certificate-expired", 3, "192.0.2.1", "mx.b.test", "", "192.0.2.2", "it has expired")
REPORT = TlsReport(
    "Example",
    "postmaster@a.test",
    "20261127.1.b.test@a.test",
    1_795_737_600,
    1_795_823_999,
    (
        PolicyResult(
            "sts", "b.test", ("version: STSv1", "mode: enforce", "mx: mx.b.test"), ("mx.b.test",), 5, 3, (FAILURE,)
        ),
        PolicyResult("no-policy-found", "b.test", (), (), 1, 0),
    ),
)
# RFC 8460, appendix B.
OF_THE_RFC = """{
 "organization-name": "Company-X",
 "date-range": {"start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z"},
 "contact-info": "sts-reporting@company-x.example",
 "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
 "policies": [{
   "policy": {
     "policy-type": "sts",
     "policy-string": ["version: STSv1","mode: testing", "mx: *.mail.company-y.example","max_age: 86400"],
     "policy-domain": "company-y.example",
     "mx-host": ["*.mail.company-y.example"]
   },
   "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
   "failure-details": [
     {"result-type": "certificate-expired", "sending-mta-ip": "2001:db8:abcd:0012::1",
      "receiving-mx-hostname": "mx1.mail.company-y.example", "failed-session-count": 100},
     {"result-type": "starttls-not-supported", "sending-mta-ip": "2001:db8:abcd:0013::1",
      "receiving-mx-hostname": "mx2.mail.company-y.example", "receiving-ip": "203.0.113.56",
      "failed-session-count": 200,
      "additional-information": "https://reports.company-x.example/report_info?id=5065427"},
     {"result-type": "validation-failure", "sending-mta-ip": "198.51.100.62", "receiving-ip": "203.0.113.58",
      "receiving-mx-hostname": "mx-backup.mail.company-y.example",
      "failed-session-count": 3, "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"}]
 }]
}"""


def test_what_is_written_is_read():
    assert parse_report(encode_report(REPORT)) == REPORT


def test_the_example_of_the_rfc_is_read():
    report = parse_report(OF_THE_RFC.encode())
    (policy,) = report.policies
    assert (policy.successful, policy.failed) == (5326, 303)
    assert sum(each.sessions for each in policy.failures) == 303
    assert report.end - report.begin == 86_399 and policy.mx_host == ("*.mail.company-y.example",)


def test_the_names_are_the_rfcs():
    written = json.loads(encode_report(REPORT))
    assert written["date-range"] == {
        "start-datetime": "2026-11-27T00:00:00Z",
        "end-datetime": "2026-11-27T23:59:59Z",
    }
    first, second = written["policies"]
    assert set(first) == {"policy", "summary", "failure-details"} and set(second) == {"policy", "summary"}
    assert second["policy"] == {"policy-type": "no-policy-found", "policy-domain": "b.test"}
    assert first["failure-details"][0] == {
        "result-type": "certificate-expired",
        "sending-mta-ip": "192.0.2.1",
        "receiving-mx-hostname": "mx.b.test",
        "receiving-ip": "192.0.2.2",
        "failure-reason-code": "it has expired",
        "failed-session-count": 3,
    }


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no TLS report"),
        (b'{"policies": 3, "report-id": ""}', "no TLS report"),
        (b'{"policies": []}', "no TLS report"),
        (b'{"report-id": "\xff", "policies": []}', "no JSON"),
    ],
)
def test_what_is_none_is_refused(raw, says):
    with pytest.raises(TlsReportError, match=says):
        parse_report(raw)


def test_values_of_other_types_count_as_not_said():
    text = '{"report-id": 7, "organization-name": ["x"], "date-range": "today", "policies": [3, {"policy": [], '
    text += '"summary": {"total-failure-session-count": -1, "total-successful-session-count": true}, '
    text += '"failure-details": [{"failed-session-count": 1.5}, 4]}, {"policy": {"mx-host": "a.test"}}]}'
    report = parse_report(text.encode())
    assert report.report_id == "" and report.begin == 0 and len(report.policies) == 3
    assert report.policies[1].failed == 0 and len(report.policies[1].failures) == 2
    assert report.policies[2].mx_host == ("a.test",)


def test_the_file_is_named_as_the_rfc_has_it():
    assert file_name("a.test", "b.test", REPORT) == "a.test!b.test!1795737600!1795823999!20261127.1.b.test.json.gz"


@pytest.mark.parametrize(
    ("texts", "uris"),
    [
        ([b"v=TLSRPTv1; rua=mailto:a@b.test"], ("mailto:a@b.test",)),
        ([b"v=TLSRPTv1;rua=https://b.test/x , mailto:a@b.test;x=y"], ("https://b.test/x", "mailto:a@b.test")),
        ([b"v=TLSRPTv1; x=1; rua = mailto:a@b.test"], ("mailto:a@b.test",)),
        ([b"v=spf1 -all", b"v=TLSRPTv1; rua=mailto:a@b.test"], ("mailto:a@b.test",)),
        ([b"v=TLSRPTv1; rua=mailto:a@b.test", b"v=TLSRPTv1; rua=mailto:c@b.test"], ()),
        ([b"v=TLSRPTv10; rua=mailto:a@b.test"], ()),
        ([b"v=TLSRPTv1; rua=ftp://b.test"], ()),
        ([b"v=TLSRPTv1"], ()),
        ([b"v=TLSRPTv1; rua=" + b",".join(b"mailto:u%d@b.test" % n for n in range(50))], 5),
        ([], ()),
    ],
)
def test_the_record(texts, uris):
    found = report_uris(texts)
    assert len(found) == uris if isinstance(uris, int) else found == uris
