"""The keys of [delivery], as config/schema.py says it of all: names, kinds, defaults and meanings."""

from typing import Annotated, Final

import msgspec

from fastmta.config.kinds import SASL_OPTIONS, TLS_LEVELS, Key
from fastmta.config.tls_words import DIGESTS, GRADES
from fastmta.model.routes import ALIASES
from fastmta.model.routes import BY_NAME as ROUTES

_Texts = tuple[str, ...]
_DEFERRABLE: Final = tuple(sorted((*ROUTES, *ALIASES)))


class DeliveryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """[delivery]: what Postfix's smtp(8) and qmgr(8) are told."""

    smtp_tcp_port: Annotated[int, Key("int", low=1, high=65535)] = 25
    smtp_tls_security_level: Annotated[str, Key("choice", choices=TLS_LEVELS)] = "may"
    smtp_bind_address: Annotated[str, Key("text", about="the IPv4 address that connections come from")] = ""
    smtp_bind_address6: Annotated[str, Key("text", about="the IPv6 address that connections come from")] = ""
    smtp_tls_policy_maps: Annotated[_Texts, Key("maps", about='"level attribute=value" by next hop')] = ()
    smtp_tls_wrappermode: Annotated[
        bool, Key("bool", about="servers speak TLS from the first octet on, as a relay host's port 465 does")
    ] = False
    smtp_tls_protocols: Annotated[str, Key("text", about="where TLS is opportunistic")] = ">=TLSv1"
    smtp_tls_mandatory_protocols: Annotated[str, Key("text", about="where it is required")] = ">=TLSv1"
    smtp_tls_ciphers: Annotated[str, Key("choice", choices=GRADES)] = "medium"
    smtp_tls_mandatory_ciphers: Annotated[str, Key("choice", choices=GRADES)] = "medium"
    smtp_tls_fingerprint_digest: Annotated[str, Key("choice", choices=DIGESTS)] = "sha256"
    smtp_tls_session_cache_timeout: Annotated[
        float, Key("time", default="3600s", about="sessions are kept in memory and resumed for so long; 0: never")
    ] = 3600.0
    smtp_tls_fingerprint_cert_match: Annotated[_Texts, Key("list", about="for level fingerprint")] = ()
    smtp_tls_dane_insecure_mx_policy: Annotated[
        str,
        Key("choice", choices=("", "may", "encrypt", "dane"), about="empty: as the level: dane, else may"),
    ] = ""
    smtp_tlsrpt_enable: Annotated[
        bool, Key("bool", about="count sessions, and tell the domains that ask for it about their TLS once a day")
    ] = False
    smtp_tlsrpt_skip_reused_handshakes: Annotated[bool, Key("bool", about="resumed sessions are not counted")] = True
    tlsrpt_report_email: Annotated[
        str, Key("text", default="postmaster@$mydomain", about="whom reports are from; sign its domain's mail")
    ] = "postmaster@localdomain"
    tlsrpt_report_org_name: Annotated[str, Key("text", default="$mydomain")] = "localdomain"
    mta_sts_allow_private_hosts: Annotated[
        bool, Key("bool", about="policies may come from hosts on loopback and in private networks")
    ] = False
    mta_sts: Annotated[bool, Key("bool", about="obey the policies of RFC 8461")] = False
    smtp_tls_secure_cert_match: Annotated[_Texts, Key("names", default="nexthop, dot-nexthop")] = (
        "nexthop",
        "dot-nexthop",
    )
    smtp_tls_verify_cert_match: Annotated[_Texts, Key("names", default="hostname")] = ("hostname",)
    smtp_helo_name: Annotated[str, Key("host", default="$myhostname")] = "localhost"
    allow_loopback_mx: Annotated[bool, Key("bool")] = False
    maximal_queue_lifetime: Annotated[float, Key("time", unit="d", default="5d")] = 432_000.0
    bounce_queue_lifetime: Annotated[float, Key("time", unit="d", default="5d")] = 432_000.0
    minimal_backoff_time: Annotated[float, Key("time", default="300s", low=1)] = 300.0
    maximal_backoff_time: Annotated[float, Key("time", default="4000s", low=1)] = 4000.0
    delay_warning_time: Annotated[float, Key("time", unit="h", default="0h")] = 0.0
    initial_destination_concurrency: Annotated[int, Key("int", low=1, high=1000)] = 5
    default_destination_concurrency_limit: Annotated[int, Key("int", low=1, high=1000)] = 20
    default_destination_concurrency_failed_cohort_limit: Annotated[int, Key("int", high=1000)] = 1
    default_destination_recipient_limit: Annotated[int, Key("int", low=1, high=1000)] = 50
    destination_rate_tuning: Annotated[
        bool, Key("bool", about='a destination that says "too much" is sent less for a while, then slowly more')
    ] = True
    reply_class_file: Annotated[
        str, Key("path", about="what replies mean, looked at before the lines of queue/replies.txt, in its form")
    ] = ""
    default_destination_rate_delay: Annotated[
        float,
        Key("time", default="0s", about="between two deliveries to one destination, which are one at a time then"),
    ] = 0.0
    smtp_destination_concurrency_limit: Annotated[
        int, Key("int", default="$default_destination_concurrency_limit", low=1, high=1000)
    ] = 20
    smtp_initial_destination_concurrency: Annotated[
        int, Key("int", default="$initial_destination_concurrency", low=1, high=1000)
    ] = 5
    smtp_destination_concurrency_failed_cohort_limit: Annotated[
        int, Key("int", default="$default_destination_concurrency_failed_cohort_limit", high=1000)
    ] = 1
    smtp_destination_recipient_limit: Annotated[
        int, Key("int", default="$default_destination_recipient_limit", low=1, high=1000)
    ] = 50
    smtp_destination_rate_delay: Annotated[float, Key("time", default="$default_destination_rate_delay")] = 0.0
    lmtp_destination_concurrency_limit: Annotated[
        int, Key("int", default="$default_destination_concurrency_limit", low=1, high=1000)
    ] = 20
    lmtp_initial_destination_concurrency: Annotated[
        int, Key("int", default="$initial_destination_concurrency", low=1, high=1000)
    ] = 5
    lmtp_destination_concurrency_failed_cohort_limit: Annotated[
        int, Key("int", default="$default_destination_concurrency_failed_cohort_limit", high=1000)
    ] = 1
    lmtp_destination_recipient_limit: Annotated[
        int, Key("int", default="$default_destination_recipient_limit", low=1, high=1000)
    ] = 50
    lmtp_destination_rate_delay: Annotated[float, Key("time", default="$default_destination_rate_delay")] = 0.0
    bounce_size_limit: Annotated[int, Key("size", default="50000")] = 50_000
    smtp_connect_timeout: Annotated[float, Key("time", default="30s", low=1)] = 30.0
    smtp_helo_timeout: Annotated[float, Key("time", default="300s", low=1)] = 300.0
    smtp_starttls_timeout: Annotated[float, Key("time", default="300s", low=1)] = 300.0
    smtp_mail_timeout: Annotated[float, Key("time", default="300s", low=1)] = 300.0
    smtp_rcpt_timeout: Annotated[float, Key("time", default="300s", low=1)] = 300.0
    smtp_data_init_timeout: Annotated[float, Key("time", default="120s", low=1)] = 120.0
    smtp_rset_timeout: Annotated[float, Key("time", default="20s", low=1)] = 20.0
    smtp_data_xfer_timeout: Annotated[float, Key("time", default="180s", low=1)] = 180.0
    smtp_data_done_timeout: Annotated[float, Key("time", default="600s", low=1)] = 600.0
    smtp_mx_address_limit: Annotated[int, Key("int", low=1, high=100)] = 5
    smtp_address_preference: Annotated[
        str,
        Key("choice", choices=("any", "ipv4", "ipv6"), about="whose addresses of hosts of one preference come first"),
    ] = "any"
    smtp_mx_session_limit: Annotated[int, Key("int", low=1, high=100)] = 2
    smtp_line_length_limit: Annotated[
        int, Key("int", about="octets; a longer line goes on in a new one that begins with a space; 0: no limit")
    ] = 998
    smtp_generic_maps: Annotated[
        _Texts, Key("maps", about="addresses of envelope and header, written anew as mail leaves by SMTP")
    ] = ()
    lmtp_generic_maps: Annotated[_Texts, Key("maps", about="the same by LMTP")] = ()
    smtp_discard_ehlo_keywords: Annotated[
        _Texts, Key("list", about='what a server offers in vain: "chunking" has mail sent by DATA')
    ] = ()
    smtp_discard_ehlo_keyword_address_maps: Annotated[
        _Texts, Key("maps", about="the same by the server's address; what they say of one stands instead")
    ] = ()
    lmtp_discard_lhlo_keywords: Annotated[_Texts, Key("list", about="the same of LMTP servers")] = ()
    lmtp_discard_lhlo_keyword_address_maps: Annotated[_Texts, Key("maps")] = ()
    smtp_send_xforward_command: Annotated[
        bool, Key("bool", about="tell a filter that offers XFORWARD who handed a message in")
    ] = False
    lmtp_send_xforward_command: Annotated[bool, Key("bool", about="the same of LMTP servers")] = False
    smtp_fallback_relay: Annotated[
        _Texts,
        Key("list", about='"host", "[host]:port": where mail goes whose destination is not reached, or puts it off'),
    ] = ()
    smtp_host_lookup: Annotated[
        _Texts,
        Key("options", choices=("dns", "native"), about="where a host's addresses come from; native: /etc/hosts too"),
    ] = ("dns",)
    defer_transports: Annotated[
        _Texts, Key("options", choices=_DEFERRABLE, about="whose mail waits until somebody flushes it")
    ] = ()
    smtp_header_checks: Annotated[_Texts, Key("maps", about="header_checks(5) of mail that leaves: its header")] = ()
    smtp_mime_header_checks: Annotated[_Texts, Key("maps")] = ()
    smtp_nested_header_checks: Annotated[_Texts, Key("maps")] = ()
    smtp_body_checks: Annotated[_Texts, Key("maps")] = ()
    lmtp_header_checks: Annotated[_Texts, Key("maps", about="the same of mail that leaves by LMTP")] = ()
    lmtp_mime_header_checks: Annotated[_Texts, Key("maps")] = ()
    lmtp_nested_header_checks: Annotated[_Texts, Key("maps")] = ()
    lmtp_body_checks: Annotated[_Texts, Key("maps")] = ()
    disable_mime_output_conversion: Annotated[bool, Key("bool", about="8-bit mail leaves as it is")] = False
    smtp_sasl_auth_enable: Annotated[bool, Key("bool", about="log in where smtp_sasl_password_maps knows how")] = False
    smtp_sasl_password_maps: Annotated[
        _Texts, Key("maps", about='"user:password" by sender, host or next hop; "user:oauth:REFRESH-TOKEN"')
    ] = ()
    smtp_sender_dependent_authentication: Annotated[bool, Key("bool", about="the sender's login comes first")] = False
    smtp_sasl_security_options: Annotated[
        _Texts, Key("options", default="noplaintext, noanonymous", choices=SASL_OPTIONS)
    ] = ("noplaintext", "noanonymous")
    smtp_sasl_tls_security_options: Annotated[
        _Texts, Key("options", default="$smtp_sasl_security_options", choices=SASL_OPTIONS)
    ] = ("noplaintext", "noanonymous")
    smtp_sasl_mechanism_filter: Annotated[_Texts, Key("list", about='such as "!cram-md5, static:all"')] = ()
    smtp_sasl_oauth_token_url: Annotated[str, Key("text", about="https: gives access tokens for refresh tokens")] = ""
    smtp_sasl_oauth_client_id: Annotated[str, Key("text")] = ""
    smtp_sasl_oauth_client_secret_file: Annotated[str, Key("path")] = ""
    smtp_sasl_oauth_scope: Annotated[str, Key("text")] = ""
    smtp_sasl_oauth_token_command: Annotated[
        _Texts, Key("list", about="a program that prints a token; user and host are added")
    ] = ()

    @property
    def may_need_dnssec(self) -> bool:
        """Whether some server's keys may have to come from the DNS, signed."""
        return self.smtp_tls_security_level.startswith("dane") or bool(self.smtp_tls_policy_maps)
