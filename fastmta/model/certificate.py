"""The certificate that a client has shown in its TLS handshake."""

import msgspec


class PeerCertificate(msgspec.Struct, frozen=True):
    """Whose it says it is; nothing of it is proved but the key, unless it is trusted."""

    subject: str  # the common name, "" where there is none
    issuer: str
    fingerprint: str  # "AB:CD:...", by smtpd_tls_fingerprint_digest
    key_fingerprint: str  # the same of its public key
    is_trusted: bool  # an authority of the listener's vouches for it
    login: str = ""  # the login name that SASL EXTERNAL takes of it; "": it opens no account

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """What tables are asked, in Postfix's order."""
        return tuple(each for each in (self.fingerprint, self.key_fingerprint) if each)
