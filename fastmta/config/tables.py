"""The tables of `fastmta.toml` but [delivery] (config/delivery_keys.py), declared by the rules of config/schema.py."""

from typing import Annotated, Final

import msgspec

from fastmta.config.kinds import Key
from fastmta.config.tls_words import DIGESTS
from fastmta.model.mechanisms import MECHANISMS
from fastmta.model.services import NAMES

_Texts = tuple[str, ...]


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """[listen]: each a list of endpoints; empty or absent: off."""

    def of(self, service: str) -> tuple[str, ...]:
        """The endpoints of a service of model/services.py."""
        endpoints: tuple[str, ...] = getattr(self, service)
        return endpoints


def _listen_key(service: str) -> tuple[str, object, _Texts]:
    about = "not built: refused" if service == "managesieve" else ""
    return service, Annotated[_Texts, Key("endpoints", flat=f"listen_{service}", about=about)], ()


# One key for each service.
LISTEN: Final[type[Listen]] = msgspec.defstruct(  # type: ignore[assignment]  # mypy sees the bases of none
    "Listen",
    [_listen_key(service) for service in NAMES],
    bases=(Listen,),
    namespace={"__doc__": Listen.__doc__},
    frozen=True,
    kw_only=True,
)


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """[tls]: without a certificate no listener offers STARTTLS, and imaps, pop3s and submissions can't be opened."""

    cert_file: Annotated[str, Key("path", flat="smtpd_tls_cert_file")] = ""
    key_file: Annotated[str, Key("path", flat="smtpd_tls_key_file")] = ""
    smtpd_tls_eccert_file: Annotated[
        str, Key("path", about="a second certificate, ECDSA, for clients that know it; it costs half of what RSA does")
    ] = ""
    smtpd_tls_eckey_file: Annotated[str, Key("path", default="$smtpd_tls_eccert_file")] = ""
    ssl_min_protocol: Annotated[str, Key("choice", choices=("TLSv1.2", "TLSv1.3"))] = "TLSv1.2"
    smtpd_tls_ask_ccert: Annotated[
        bool, Key("bool", about="ask clients that bring mail for a certificate; any is taken, and none is too")
    ] = False
    smtpd_tls_req_ccert: Annotated[
        bool,
        Key("bool", about="demand a trusted one at submission(s); at smtp, where TLS is optional, only ask"),
    ] = False
    smtpd_tls_CAfile: Annotated[str, Key("path", about="whose client certificates are trusted; empty: nobody's")] = ""
    smtpd_tls_CApath: Annotated[str, Key("path", about="a directory of such authorities, by hash")] = ""
    smtpd_tls_fingerprint_digest: Annotated[str, Key("choice", choices=DIGESTS)] = "sha256"
    smtpd_tls_received_header: Annotated[
        bool, Key("bool", about="TLS and the client's certificate in Received; Postfix's default is no")
    ] = True
    ssl_verify_client_cert: Annotated[
        bool,
        Key("bool", about="ask clients of IMAP, POP3 and submission for a certificate of ssl_ca's; none is taken too"),
    ] = False
    ssl_ca: Annotated[
        str, Key("path", about="the authorities whose certificates may log in, with their revocation lists")
    ] = ""
    ssl_require_crl: Annotated[
        bool, Key("bool", about="trust no certificate without a valid revocation list of each authority above it")
    ] = True
    auth_ssl_username_from_cert: Annotated[
        bool, Key("bool", about="such a certificate names the account that SASL EXTERNAL opens")
    ] = False
    ssl_cert_username_field: Annotated[
        str,
        Key("choice", choices=("commonName", "emailAddress", "rfc822Name"), about="where; rfc822Name: subjectAltName"),
    ] = "commonName"
    smtp_tls_cert_file: Annotated[
        str, Key("path", about="our own, for servers that ask us for one; leave it empty unless a relay host does")
    ] = ""
    smtp_tls_key_file: Annotated[str, Key("path", default="$smtp_tls_cert_file")] = ""
    smtp_tls_CAfile: Annotated[str, Key("path", about="for level verify and secure; empty: the system's")] = ""
    smtp_tls_CApath: Annotated[str, Key("path", about="a directory of such authorities, by hash")] = ""

    @property
    def asks_clients(self) -> bool:
        """Whether clients that bring mail are asked for a certificate."""
        return self.smtpd_tls_ask_ccert or self.smtpd_tls_req_ccert

    @property
    def asks_submitters(self) -> bool:
        """The same at submission, where a certificate may log in as well."""
        return self.asks_clients or self.ssl_verify_client_cert


class AuthConfig(msgspec.Struct, frozen=True, kw_only=True):
    """[auth]"""

    mechanisms: Annotated[_Texts, Key("words", flat="auth_mechanisms", choices=MECHANISMS)] = ("PLAIN",)
    disable_plaintext_auth: Annotated[bool, Key("bool")] = True
    cache_ttl: Annotated[float, Key("time", flat="auth_cache_ttl", default="1h")] = 3600.0
    failure_delay: Annotated[float, Key("time", flat="auth_failure_delay", default="2s")] = 2.0
    alias_logins: Annotated[
        bool, Key("bool", flat="auth_alias_logins", about="an alias of exactly one account is a login name of it too")
    ] = False
    auth_master_users: Annotated[_Texts, Key("list", about="accounts that may open any other one")] = ()
    auth_master_user_separator: Annotated[
        str, Key("text", about="between an account and a master user in a login name, as in user*admin")
    ] = ""
    oauth2_jwks_file: Annotated[str, Key("path", about="the issuer's keys, as RFC 7517 writes them")] = ""
    oauth2_jwks_url: Annotated[str, Key("text", about="the same by https:, fetched anew each hour")] = ""
    oauth2_introspection_url: Annotated[str, Key("text", about="asked at each login where no such keys are set")] = ""
    oauth2_introspection_mode: Annotated[str, Key("choice", choices=("auth", "get", "post"))] = "post"
    oauth2_issuers: Annotated[_Texts, Key("list", about="no others are believed; empty: any")] = ()
    oauth2_client_id: Annotated[str, Key("text", about="a token must be made for it; ours at introspection")] = ""
    oauth2_client_secret_file: Annotated[str, Key("path")] = ""
    oauth2_username_attribute: Annotated[str, Key("text", about="the claim with the login name")] = "email"
    oauth2_active_attribute: Annotated[str, Key("text", about="a claim that must be there, with the value below")] = ""
    oauth2_active_value: Annotated[str, Key("text", about='empty: "true"')] = ""
    oauth2_scope: Annotated[_Texts, Key("list", about="all of which a token must grant")] = ()


class DnsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """[dns]"""

    nameservers: Annotated[_Texts, Key("servers", flat="dns_nameservers", about="empty: the system's")] = ()
    trust_ad: Annotated[
        bool, Key("bool", flat="dns_trust_ad", about="believe DNSSEC's verdict of servers that are not on loopback")
    ] = False


class PipeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """[pipe.NAME]: a command that takes the mail of the route `pipe:NAME` on its standard input, as in pipe(8)."""

    argv: Annotated[_Texts, Key("argv", about="the program's path and its arguments with pipe(8)'s macros; no shell")]
    user: Annotated[str, Key("text", about='"name" or "name:group", neither root nor the workers\' user')]
    flags: Annotated[str, Key("text", about="of BDFORXhqu.>; with D or O each recipient is delivered alone")] = ""
    directory: Annotated[str, Key("path", about="where the command runs; empty: /")] = ""
    eol: Annotated[str, Key("text", default="\\n", about="what ends a line")] = "\\n"
    null_sender: Annotated[str, Key("text", about="what stands for the null sender")] = "MAILER-DAEMON"
    size: Annotated[int, Key("size", about="larger messages are returned; 0: no limit")] = 0
    time_limit: Annotated[float, Key("time", default="1000s", low=1, about="then it is killed, the mail returned")] = (
        1000.0
    )
    destination_concurrency_limit: Annotated[
        int, Key("int", low=1, high=50, about="commands at one time for one destination and worker")
    ] = 20
    destination_recipient_limit: Annotated[int, Key("int", low=1, high=100, about="of one command")] = 50
