"""Where a report of DMARC or TLS is in what arrived: plain, gzip or zip, alone or attached to a mail; bounded."""

import email
import email.message
import io
import zipfile
import zlib
from typing import Final

from fastmta.authentication.dmarc_report import ReportError
from fastmta.model.limits import DMARC_REPORT_BYTES, DMARC_REPORT_MEMBERS

_GZIP: Final = b"\x1f\x8b"
_ZIP: Final = b"PK\x03\x04"
_BLANK: Final = b" \t\r\n\xef\xbb\xbf"


def reports_in(raw: bytes, opening: bytes = b"<") -> list[bytes]:
    """The texts in a file's octets that begin with `opening`: "<" of XML, "{" of JSON.

    Raises ReportError where there is none, or one is too large.
    """
    found = _opened(raw, opening)
    if not found:
        found = _attached(raw, opening)
    if not found:
        raise ReportError("there is no report in it")
    return found


def _opened(raw: bytes, opening: bytes) -> list[bytes]:
    """Of a file or an attachment; empty where it is of another kind."""
    if raw.startswith(_GZIP):
        return [text for text in [_unzipped(raw)] if text[:1000].lstrip(_BLANK).startswith(opening)]
    if raw.startswith(_ZIP):
        return _members(raw, opening)
    return [raw.lstrip(_BLANK)] if raw[:1000].lstrip(_BLANK).startswith(opening) else []


def _unzipped(raw: bytes) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        text = inflate.decompress(raw, DMARC_REPORT_BYTES + 1)
    except zlib.error as error:
        raise ReportError(f"the gzip is damaged: {error}") from error
    if len(text) > DMARC_REPORT_BYTES:
        raise ReportError(f"it unpacks to over {DMARC_REPORT_BYTES} octets")
    if not inflate.eof:
        raise ReportError("the gzip ends too early")
    return text


def _members(raw: bytes, opening: bytes) -> list[bytes]:
    left = DMARC_REPORT_BYTES
    texts = []
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for member in archive.infolist()[:DMARC_REPORT_MEMBERS]:
                if member.is_dir() or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    continue
                with archive.open(member) as file:
                    text = file.read(left + 1)
                if len(text) > left:
                    raise ReportError(f"it unpacks to over {DMARC_REPORT_BYTES} octets")
                left -= len(text)
                if text.lstrip(_BLANK).startswith(opening):
                    texts.append(text.lstrip(_BLANK))
    except ReportError:
        raise
    except Exception as error:  # the library raises many kinds for hostile archives
        raise ReportError(f"the zip is damaged: {error}") from error
    return texts


def _attached(raw: bytes, opening: bytes) -> list[bytes]:
    """Of a mail: the parts that are named or typed as a report, or begin like a packed one."""
    found: list[bytes] = []
    try:
        parts = list(email.message_from_bytes(raw).walk())
        for part in parts[:DMARC_REPORT_MEMBERS]:
            if part.is_multipart() or part.get_content_type() in ("text/plain", "text/html"):
                continue
            content = part.get_payload(decode=True)
            if isinstance(content, bytes):
                found += _opened(content, opening)
    except ReportError:
        raise
    except Exception as error:  # and for hostile headers
        raise ReportError(f"the mail cannot be read: {type(error).__name__}") from error
    return found
