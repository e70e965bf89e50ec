"""Client certificates as Postfix takes them: any is taken, and whether an authority vouches for it is known afterwards.

Python's `ssl` either asks no client for a certificate or ends the handshake of every one whose certificate no authority
vouches for. A fingerprint identifies a self-signed one as well, so OpenSSL is told here what `ssl` has no word for: to
go on after a verdict against the certificate, and to say that verdict later. Both are functions of the very library
that `ssl` is linked with; their argument is the first field of `ssl`'s own objects, and is looked at from two sides
before it is used, so that a Python that is built otherwise gets an error instead of a crash (docs/adr/0187).
"""

import _ssl
import ctypes
import ssl
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from fastmta.model.certificate import PeerCertificate
from fastmta.model.errors import ConfigError
from fastmta.tls.tlsa import fingerprints

if TYPE_CHECKING:
    from cryptography import x509

_ASKS: Final = 1  # SSL_VERIFY_PEER
_CACHE: Final = 44  # SSL_CTRL_SET_SESS_CACHE_MODE, whose 0 keeps no session
_POINTER: Final = ctypes.sizeof(ctypes.c_void_p)
_VERDICT: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_NAME: Final = 256  # characters of a name, Postfix's CCERT_BUFSIZ


@cache
def _library() -> ctypes.CDLL:
    """The OpenSSL that `ssl` uses: looked up through the extension, or in the program where that is built in."""
    library = ctypes.CDLL(getattr(_ssl, "__file__", None))
    library.SSL_CTX_get_verify_mode.argtypes = [ctypes.c_void_p]
    library.SSL_CTX_set_verify.argtypes = [ctypes.c_void_p, ctypes.c_int, _VERDICT]
    library.SSL_CTX_set_verify.restype = None
    library.SSL_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    library.SSL_CTX_ctrl.restype = ctypes.c_long
    library.SSL_get_SSL_CTX.argtypes = [ctypes.c_void_p]
    library.SSL_get_SSL_CTX.restype = ctypes.c_void_p
    library.SSL_get_verify_result.argtypes = [ctypes.c_void_p]
    library.SSL_get_verify_result.restype = ctypes.c_long
    library.ERR_clear_error.argtypes = []
    library.ERR_clear_error.restype = None
    return library


def _go_on(_is_good: int, _chain: int | None) -> int:
    # What spoke against the certificate stands in the thread's list of errors, where the next read of any connection
    # of this thread would take it for its own.
    _library().ERR_clear_error()
    return 1


_GO_ON: Final = _VERDICT(_go_on)  # kept: OpenSSL holds its address


class _Asked(ssl.SSLObject):
    """Asyncio asks for the certificate as a dictionary after each handshake. Making that fails for a name that is not
    UTF-8, and leaves an error behind for other extensions, which the next read of this thread takes for its own.
    """

    def getpeercert(self, binary_form: bool = False) -> Any:
        return super().getpeercert(True) if binary_form else {}


def _field(owner: object, number: int) -> int | None:
    """One of the pointers that stand at the beginning of an object of `ssl`'s."""
    return ctypes.c_void_p.from_address(id(owner) + object.__basicsize__ + number * _POINTER).value


def ask_clients(context: ssl.SSLContext, ca_file: str, ca_path: str) -> None:
    """Has a server's context ask each client for a certificate, and take whatever comes, none too.

    Every handshake shows it anew: sessions are not resumed. OSError (ssl.SSLError) for authorities that cannot be read,
    ConfigError where this Python's `ssl` is not known.
    """
    if ca_file or ca_path:
        context.load_verify_locations(cafile=ca_file or None, capath=ca_path or None)
    context.sslobject_class = _Asked
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    try:
        library = _library()
        pointer = _field(context, 0)
        for mode in (ssl.CERT_REQUIRED, ssl.CERT_NONE, ssl.CERT_OPTIONAL):
            context.verify_mode = mode
            expected = {ssl.CERT_NONE: 0, ssl.CERT_OPTIONAL: _ASKS, ssl.CERT_REQUIRED: _ASKS | 2}[mode]
            if not pointer or library.SSL_CTX_get_verify_mode(pointer) != expected:
                raise AttributeError("its contexts are not laid out as expected")
        library.SSL_CTX_set_verify(pointer, _ASKS, _GO_ON)
        library.SSL_CTX_ctrl(pointer, _CACHE, 0, None)  # TLS 1.2 resumes without tickets too
    except (AttributeError, OSError) as error:
        raise ConfigError(f"tls: this Python's ssl cannot ask for certificates: {error}") from None


def certificate_of(tls: Any, digest: str, login: str = "") -> PeerCertificate | None:
    """What the client of a finished handshake has shown, an `ssl.SSLObject` or `ssl.SSLSocket`; None: nothing. `login`:
    what `login_name` has found.
    """
    der = tls.getpeercert(binary_form=True)
    if not der:
        return None
    prints = fingerprints(der, digest)
    subject, issuer = _names(der)
    return PeerCertificate(
        subject=subject,
        issuer=issuer,
        fingerprint=prints[0],
        key_fingerprint=prints[1] if len(prints) > 1 else "",
        is_trusted=_is_trusted(tls),
        login=login,
    )


def login_name(tls: Any, field: str) -> str:
    """The login name in a trusted certificate: its one commonName, emailAddress or rfc822Name (a subjectAltName).

    "" where there is none, or none that is trusted, or several: nobody may be one of two accounts by choice. A name is
    taken whole or not at all; one with control characters, NUL among them, is none.
    """
    der = tls.getpeercert(binary_form=True)
    if not der or not _is_trusted(tls):
        return ""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        certificate = x509.load_der_x509_certificate(der)
        if field == "rfc822Name":
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            found: list[Any] = names.get_values_for_type(x509.RFC822Name)
        else:
            oid = NameOID.EMAIL_ADDRESS if field == "emailAddress" else NameOID.COMMON_NAME
            found = [each.value for each in certificate.subject.get_attributes_for_oid(oid)]
    except (ValueError, x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension):
        return ""
    except x509.UnsupportedGeneralNameType:  # an old kind of subjectAltName
        return ""
    name = found[0] if len(found) == 1 else ""
    return name if isinstance(name, str) and 0 < len(name) <= _NAME and name.isprintable() else ""


def _is_trusted(tls: Any) -> bool:
    # PySSLSocket: a weak reference, SSL*, the context's object. A connection whose context is not the one that is found
    # at SSL* is one of a Python that we do not know.
    library, inner = _library(), tls._sslobj
    pointer = _field(inner, 1)
    if not pointer or _field(inner, 2) != id(tls.context):
        return False
    if library.SSL_get_SSL_CTX(pointer) != _field(tls.context, 0):
        return False
    return bool(library.SSL_get_verify_result(pointer) == 0)


def _names(der: bytes) -> tuple[str, str]:
    """The common names of the subject and the issuer."""
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(der)
        return _common_name(certificate.subject), _common_name(certificate.issuer)
    except (ValueError, x509.InvalidVersion):
        return "", ""


def _common_name(name: "x509.Name") -> str:
    """The last common name. "" where there is none, and, as in Postfix, for one with control characters."""
    from cryptography.x509.oid import NameOID

    found = [each.value for each in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    last = found[-1] if found else ""
    return last[:_NAME] if isinstance(last, str) and last.isprintable() else ""
