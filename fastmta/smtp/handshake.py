"""What is known of a client after its TLS handshake: its certificate, and what Received says of it."""

from typing import Any, Protocol

from fastmta.config.tables import TlsConfig
from fastmta.model.certificate import PeerCertificate
from fastmta.runtime.log import Log


class Session(Protocol):
    certificate: PeerCertificate | None

    @property
    def number(self) -> int: ...
    @property
    def client(self) -> str: ...


def begun(session: Session, tls: Any, settings: TlsConfig, log: Log, *, asks: bool, login: str) -> bytes:
    """Keeps and logs the certificate of a client that was asked for one; `login`: the name that it may log in by.

    Gives Received's lines about it, each with the line break before it; none where smtpd_tls_received_header is off.
    """
    if asks:
        from fastmta.tls.client_certificates import certificate_of  # with what it imports, where it is needed

        shown = session.certificate = certificate_of(tls, settings.smtpd_tls_fingerprint_digest, login)
        if shown is not None:
            log.info(
                "smtp.client_certificate",
                session=session.number,
                client=session.client,
                subject=shown.subject,
                issuer=shown.issuer,
                fingerprint=shown.fingerprint,
                key_fingerprint=shown.key_fingerprint,
                trusted=shown.is_trusted,
            )
    if not settings.smtpd_tls_received_header:
        return b""
    cipher = tls.cipher()
    name = f" with cipher {cipher[0]} ({cipher[2]}/{cipher[2]} bits)" if cipher else ""
    lines = f"\r\n\t(using {tls.version() or 'TLS'}{name})"
    if asks:
        lines += f"\r\n\t({_told(session.certificate)})"
    return lines.encode("ascii")


def _told(certificate: PeerCertificate | None) -> str:
    if certificate is None:
        return "Client did not present a certificate"
    verdict = "verified OK" if certificate.is_trusted else "not verified"
    return f'Client CN "{_clean(certificate.subject)}", Issuer "{_clean(certificate.issuer)}" ({verdict})'


def _clean(name: str) -> str:
    """A name as a comment may carry it (RFC 5322 §3.2.2): a certificate says what its maker likes."""
    return "".join(c if " " <= c <= "~" and c not in '()\\"' else "?" for c in name[:64])


def problem_of(certificate: PeerCertificate | None) -> str:
    """Why a client may not go on where a trusted certificate is required; "": it may."""
    if certificate is None:
        return "No client certificate presented"
    return "" if certificate.is_trusted else "Client certificate not trusted"
