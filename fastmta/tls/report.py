"""TLS reports (RFC 8460 §4.4): JSON, written, and read in the forms that are about.

What is read is a stranger's: its size and depth are bounded, what has another type than it should counts as not said.
"""

import gzip
import time
from typing import Any, Final, NamedTuple

import msgspec

from fastmta.model.limits import TLS_REPORT_BYTES, TLS_REPORT_ROWS

RESULT_TYPES: Final = (
    "starttls-not-supported",
    "certificate-host-mismatch",
    "certificate-expired",
    "certificate-not-trusted",
    "validation-failure",
    "tlsa-invalid",
    "dnssec-invalid",
    "dane-required",
    "sts-policy-fetch-error",
    "sts-policy-invalid",
    "sts-webpki-invalid",
)
_TEXT: Final = 1024  # characters of a value that are kept


class TlsReportError(ValueError):
    """Not a report, or one that goes beyond a bound; the text says which."""


class Failure(NamedTuple):
    """Sessions that failed in one way. "" is what was not said."""

    result_type: str
    sessions: int
    sending_mta_ip: str = ""
    receiving_mx_hostname: str = ""
    receiving_mx_helo: str = ""
    receiving_ip: str = ""
    failure_reason_code: str = ""
    additional_information: str = ""


class PolicyResult(NamedTuple):
    """What came of one policy. `policy_type`: tlsa, sts, no-policy-found."""

    policy_type: str
    policy_domain: str
    policy_string: tuple[str, ...]
    mx_host: tuple[str, ...]
    successful: int
    failed: int
    failures: tuple[Failure, ...] = ()


class TlsReport(NamedTuple):
    """A whole report. Instants are in seconds since 1970."""

    organization_name: str
    contact_info: str
    report_id: str
    begin: int
    end: int
    policies: tuple[PolicyResult, ...]


def encode_report(report: TlsReport) -> bytes:
    """The report as JSON (RFC 8460 §4.4)."""
    return msgspec.json.encode(
        {
            "organization-name": report.organization_name,
            "date-range": {"start-datetime": _instant(report.begin), "end-datetime": _instant(report.end)},
            "contact-info": report.contact_info,
            "report-id": report.report_id,
            "policies": [_policy(each) for each in report.policies],
        }
    )


def _policy(each: PolicyResult) -> dict[str, Any]:
    policy: dict[str, Any] = {"policy-type": each.policy_type}
    if each.policy_string:
        policy["policy-string"] = list(each.policy_string)
    policy["policy-domain"] = each.policy_domain
    if each.mx_host:
        policy["mx-host"] = list(each.mx_host)
    out: dict[str, Any] = {
        "policy": policy,
        "summary": {"total-successful-session-count": each.successful, "total-failure-session-count": each.failed},
    }
    if each.failures:
        out["failure-details"] = [_failure(failure) for failure in each.failures]
    return out


def _failure(failure: Failure) -> dict[str, Any]:
    named = {
        "result-type": failure.result_type,
        "sending-mta-ip": failure.sending_mta_ip,
        "receiving-mx-hostname": failure.receiving_mx_hostname,
        "receiving-mx-helo": failure.receiving_mx_helo,
        "receiving-ip": failure.receiving_ip,
        "additional-information": failure.additional_information,
        "failure-reason-code": failure.failure_reason_code,
    }
    return {**{name: value for name, value in named.items() if value}, "failed-session-count": failure.sessions}


def parse_report(raw: bytes) -> TlsReport:
    """One report. Raises TlsReportError."""
    if len(raw) > TLS_REPORT_BYTES:
        raise TlsReportError(f"the report has over {TLS_REPORT_BYTES} octets")
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TlsReportError(f"it is no JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("policies"), list) or "report-id" not in found:
        raise TlsReportError("it is no TLS report")
    span = _dict(found.get("date-range"))
    return TlsReport(
        _text(found.get("organization-name")),
        _text(found.get("contact-info")),
        _text(found.get("report-id")),
        _seconds(span.get("start-datetime")),
        _seconds(span.get("end-datetime")),
        tuple(_read_policy(_dict(each)) for each in found["policies"][:TLS_REPORT_ROWS]),
    )


def _read_policy(each: dict[str, Any]) -> PolicyResult:
    policy, summary = _dict(each.get("policy")), _dict(each.get("summary"))
    details = each.get("failure-details")
    return PolicyResult(
        _text(policy.get("policy-type")),
        _text(policy.get("policy-domain")).lower(),
        _texts(policy.get("policy-string")),
        _texts(policy.get("mx-host", policy.get("mx-host-pattern"))),
        _number(summary.get("total-successful-session-count")),
        _number(summary.get("total-failure-session-count")),
        tuple(_read_failure(_dict(one)) for one in details[:TLS_REPORT_ROWS]) if isinstance(details, list) else (),
    )


def _read_failure(one: dict[str, Any]) -> Failure:
    return Failure(
        _text(one.get("result-type")),
        _number(one.get("failed-session-count")),
        _text(one.get("sending-mta-ip")),
        _text(one.get("receiving-mx-hostname")),
        _text(one.get("receiving-mx-helo")),
        _text(one.get("receiving-ip")),
        _text(one.get("failure-reason-code")),
        _text(one.get("additional-information", one.get("additional-info-uri"))),
    )


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return " ".join(value.split())[:_TEXT] if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    """A list; or one text, as the RFC's grammar has it for mx-host."""
    if isinstance(value, str):
        return (_text(value),)
    return tuple(_text(each) for each in value[:TLS_REPORT_ROWS]) if isinstance(value, list) else ()


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0


def _instant(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _seconds(value: object) -> int:
    """Of RFC 3339's instants; 0 for what is none."""
    import datetime

    try:
        return int(datetime.datetime.fromisoformat(_text(value)).timestamp())
    except (ValueError, OverflowError):
        return 0


def compressed(json: bytes) -> bytes:
    """As it is sent; equal reports give equal octets."""
    return gzip.compress(json, 9, mtime=0)


def file_name(submitter: str, domain: str, report: TlsReport) -> str:
    """The attachment's name (RFC 8460 §5.1)."""
    unique = "".join(c for c in report.report_id.partition("@")[0] if c.isalnum() or c in "._-")
    return f"{submitter}!{domain}!{report.begin}!{report.end}!{unique}.json.gz"
