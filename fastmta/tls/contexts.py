"""The TLS contexts of a process: one for our listeners, one for those that ask clients for certificates, one for those
where a certificate may log in, one for each security level towards other servers.

Invariants: a context that has been given out stays valid for ever; after a reload it hands each handshake on to the
newest one, so listeners that hold it present the new certificate, and that alone, to the next client; a bad key or
certificate leaves the old one in use.

Left to others: which security level a destination gets (delivery), and the handshake itself (tls/upgrade.py).
"""

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastmta.model.errors import ConfigError
from fastmta.tls.grades import restrict
from fastmta.tls.problems import KEYS, Keys, authorities_problem, file_problem

if TYPE_CHECKING:
    from fastmta.config.tables import TlsConfig

CERTIFICATE_BYTES: Final = 1_048_576  # read of its file
# Two kinds of trust: may and encrypt take any certificate (so do fingerprint and dane, which look at it themselves),
# verify and secure ask the authorities.
LEVELS: Final = ("none", "may", "encrypt", "verify", "secure")
MODERN: Final = frozenset({"TLSv1.2", "TLSv1.3"})
_OWN_KEYS: Final = Keys("smtp_tls_cert_file", "smtp_tls_key_file")
CONTEXTS_KEPT: Final = 100  # by level, versions and ciphers: the administrator's maps name a handful
# Why a listener asks its clients for certificates: not at all, for SMTP's restrictions, or to log in by them.
_QUIET, _SMTPD, _LOGIN = "quiet", "smtpd", "login"
_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


class Contexts:
    """Makes contexts on first use and keeps them. Not thread-safe; may block for a few small file reads."""

    __slots__ = ("_certificate", "_clients", "_expires_at", "_held", "_https", "_newest", "_own", "_settings")

    def __init__(self, settings: "TlsConfig") -> None:
        self._settings = settings
        self._own = own_certificate(settings)
        self._held: dict[str, ssl.SSLContext] = {}  # given to listeners, by whether and for what clients are asked
        self._certificate = b""  # PEM, read with the context: the file may be a descriptor that is closed then
        self._expires_at: float | None = None
        self._newest: dict[str, ssl.SSLContext] = {}
        self._clients: dict[tuple[str, frozenset[str], str], ssl.SSLContext] = {}
        self._https: ssl.SSLContext | None = None

    def server_context(self) -> ssl.SSLContext | None:
        """The context of listeners that give mail out, or None where no certificate is configured: then STARTTLS is not
        offered. It asks for client certificates to log in with where ssl_verify_client_cert is set.
        """
        return self._given(_LOGIN if self._settings.ssl_verify_client_cert else _QUIET)

    def smtpd_context(self, *, logs_in: bool = False) -> ssl.SSLContext | None:
        """The same for listeners that take mail: they ask for client certificates where that is configured. `logs_in`:
        of submission, where such a certificate may be a login as well.
        """
        if logs_in and self._settings.ssl_verify_client_cert:
            return self._given(_LOGIN)
        return self._given(_SMTPD if self._settings.asks_clients else _QUIET)

    def login_name(self, tls: ssl.SSLObject | ssl.SSLSocket) -> str:
        """The login name of the certificate that this client has shown (SASL EXTERNAL); "": it opens no account.

        Only a handshake that was verified for logins counts, never one by the authorities of SMTP.
        """
        settings = self._settings
        if not (settings.ssl_verify_client_cert and settings.auth_ssl_username_from_cert):
            return ""
        if tls.context is not self._newest.get(_LOGIN, self._held.get(_LOGIN)):
            return ""
        from fastmta.tls.client_certificates import login_name  # with what it imports, where it is needed

        return login_name(tls, settings.ssl_cert_username_field)

    def _given(self, kind: str) -> ssl.SSLContext | None:
        if kind not in self._held and self._settings.cert_file:
            self._held[kind] = server_context(self._settings, asks=kind != _QUIET, for_logins=kind == _LOGIN)
            self._certificate = _certificate(self._settings)
        return self._held.get(kind)

    def expires_at(self) -> float | None:
        """When the certificate that is served now ends to be valid, in seconds of the epoch; None: there is none.

        The first call parses it, and imports what that needs.
        """
        if self._expires_at is None and self._certificate:
            from cryptography import x509

            try:
                self._expires_at = x509.load_pem_x509_certificate(self._certificate).not_valid_after_utc.timestamp()
            except ValueError:
                self._certificate = b""
        return self._expires_at

    def client_context(
        self, level: str, protocols: frozenset[str] = MODERN, grade: str = "medium"
    ) -> ssl.SSLContext | None:
        """The context for a destination's security level; None for "none". ValueError for an unknown level."""
        if level == "none":
            return None
        key = (level, protocols, grade)
        context = self._clients.get(key)
        if context is None:
            while len(self._clients) >= CONTEXTS_KEPT:
                del self._clients[next(iter(self._clients))]
            context = self._clients[key] = _matched_later(key, self._settings, self._own)
        return context

    def https_context(self) -> ssl.SSLContext:
        """For HTTPS, whose names are checked in the handshake; trusts smtp_tls_CAfile beside the system's authorities.

        ConfigError: the file cannot be used.
        """
        if self._https is None:
            self._https = https_context(self._settings.smtp_tls_CAfile)
        return self._https

    def reload(self, settings: "TlsConfig | None" = None) -> None:
        """Rereads certificate, key and CA file. Raises ConfigError, with everything as it was, if they are not good."""
        wanted = settings or self._settings
        kinds = [_QUIET, _SMTPD, _LOGIN] if wanted.cert_file else []
        wants = {_QUIET: True, _SMTPD: wanted.asks_clients, _LOGIN: wanted.ssl_verify_client_cert}
        fresh = {
            kind: server_context(wanted, asks=kind != _QUIET, for_logins=kind == _LOGIN)
            for kind in kinds
            if kind in self._held or wants[kind]
        }
        own = own_certificate(wanted)
        clients = {key: _matched_later(key, wanted, own) for key in self._clients}
        for kind, context in fresh.items():
            held = self._held.setdefault(kind, context)
            if held is not context:
                # Not loaded into the old context: it keeps a certificate for each type of key, and a client chooses.
                held.sni_callback = self._hand_on
                held.minimum_version = context.minimum_version
                held.verify_flags = context.verify_flags  # a handshake keeps those of the context that it began with
        if not fresh:
            self._held.clear()
        self._newest = fresh
        self._clients = clients
        self._own = own
        self._https = None
        self._settings = wanted
        self._certificate = _certificate(wanted) if fresh else b""
        self._expires_at = None

    def _hand_on(self, handshake: ssl.SSLObject | ssl.SSLSocket, _name: str | None, held: ssl.SSLContext) -> None:
        """Called in every handshake of a context given out, with or without a name of the client's."""
        kind = next((kind for kind, context in self._held.items() if context is held), _QUIET)
        newest = self._newest.get(kind)
        if newest is not None:
            handshake.context = newest


def server_context(settings: "TlsConfig", *, asks: bool = False, for_logins: bool = False) -> ssl.SSLContext:
    """A fresh server context, which `asks` clients for certificates, and `for_logins` trusts ssl_ca's authorities and
    revocation lists instead of SMTP's; raises ConfigError that names the file which cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS.get(settings.ssl_min_protocol, ssl.TLSVersion.TLSv1_2)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1  # the library's two cost a second write for a client that comes back once
    _load_certificate(context, settings)
    if asks:
        from fastmta.tls.client_certificates import ask_clients

        key = "tls.smtpd_tls_CAfile" if settings.smtpd_tls_CAfile else "tls.smtpd_tls_CApath"
        file, path = settings.smtpd_tls_CAfile, settings.smtpd_tls_CApath
        if for_logins:
            key, file, path = "tls.ssl_ca", settings.ssl_ca, ""
            if settings.ssl_require_crl:
                context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
        try:
            ask_clients(context, file, path)
        except OSError as error:
            file = file or path
            raise ConfigError(authorities_problem(file, error, key)) from error
    return context


def own_certificate(settings: "TlsConfig") -> bytes:
    """PEM of what we show to servers that ask for it, chain and key, read now for all contexts to come: a file may be a
    descriptor that is closed then. b"": nothing. Raises ConfigError.
    """
    cert_file, key_file = settings.smtp_tls_cert_file, settings.smtp_tls_key_file
    if not cert_file:
        return b""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert_file, key_file or None, _no_password)
        paths = [cert_file] if not key_file or key_file == cert_file else [cert_file, key_file]
        return b"\n".join(Path(path).read_bytes()[:CERTIFICATE_BYTES] for path in paths)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(file_problem(cert_file, key_file, error, _OWN_KEYS)) from error


def _matched_later(key: tuple[str, frozenset[str], str], settings: "TlsConfig", own: bytes) -> ssl.SSLContext:
    """Names are matched after the handshake, by Postfix's strategies (tls/names.py). `own`: of own_certificate."""
    level, protocols, grade = key
    context = client_context(level, settings.smtp_tls_CAfile, settings.smtp_tls_CApath)
    context.check_hostname = False
    if own:
        with open(os.memfd_create("fastmta-certificate", os.MFD_CLOEXEC), "wb", buffering=0) as file:
            file.write(own)
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    restrict(context, protocols, grade, weak=level in {"may", "encrypt"})
    return context


def client_context(level: str, ca_file: str = "", ca_path: str = "") -> ssl.SSLContext:
    """A context for sending at `level` (RFC 7672's terms are Postfix's): may and encrypt take any certificate."""
    if level not in LEVELS or level == "none":
        raise ValueError(f"not a TLS security level that makes a connection: {level!r}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if level in {"may", "encrypt"}:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # Nothing is verified, so a weak certificate is no worse than a strong one, and both beat plain text (RFC 7435).
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        return context
    try:
        if ca_file or ca_path:
            context.load_verify_locations(cafile=ca_file or None, capath=ca_path or None)
        else:
            context.load_default_certs()
    except (OSError, ssl.SSLError) as error:
        if not ca_file:
            raise ConfigError(f"the system's certificate authorities cannot be read: {error}") from error
        raise ConfigError(authorities_problem(ca_file, error)) from error
    return context


def https_context(ca_file: str = "") -> ssl.SSLContext:
    """A context that verifies as a browser does; raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_default_certs()
        if ca_file:
            context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(authorities_problem(ca_file, error)) from error
    return context


def _load_certificate(context: ssl.SSLContext, settings: "TlsConfig") -> None:
    """Of two certificates a client gets the one that it can use, ECDSA first; each has its chain and its key."""
    pairs = [(settings.cert_file, settings.key_file, KEYS)]
    if settings.smtpd_tls_eccert_file:
        keys = Keys("smtpd_tls_eccert_file", "smtpd_tls_eckey_file")
        pairs.append((settings.smtpd_tls_eccert_file, settings.smtpd_tls_eckey_file, keys))
    for cert_file, key_file, keys in pairs:
        try:
            if pairs[0][0] != cert_file:  # beside another pair, its key would do for a wrong one
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file or None, _no_password)
            context.load_cert_chain(cert_file, key_file or None, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(file_problem(cert_file, key_file, error, keys)) from error


def _certificate(settings: "TlsConfig") -> bytes:
    """The first certificate of the file, which is the server's own."""
    try:
        with open(settings.cert_file, "rb") as file:
            return file.read(CERTIFICATE_BYTES)
    except OSError:
        return b""


def _no_password() -> bytes:
    """An encrypted key would otherwise ask at the terminal, in the middle of a start."""
    return b""
