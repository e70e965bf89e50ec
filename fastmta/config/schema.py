"""Every key of `fastmta.toml`: its name, kind, default and meaning. The one place where a key is declared.

A key bears Postfix's name, meaning and default where Postfix has the concept, Dovecot's where Dovecot has it; `flat`
is the one name by which postconf and the importers know a key that stands in a table here. Values in these structs
are ready for use: times in seconds, sizes in bytes, lists as tuples, `$name` expanded, paths absolute.

To add a key: one line here, or in the file of its table, with the code that obeys it. A key that
nothing obeys must not be here (it would be ignored silently; `listen.managesieve` is refused); names of other servers'
features that we lack are in config/not_built.py.
"""

from functools import cache
from typing import Annotated, Final, NamedTuple

import msgspec

from fastmta.config.delivery_keys import DeliveryConfig
from fastmta.config.kinds import (
    ADDRESS_CLASSES,
    MILTER_ACTIONS,
    RELAY_RESTRICTIONS,
    SCANNER_ACTIONS,
    Key,
)
from fastmta.config.reading_keys import ReadingKeys
from fastmta.config.shaping import ShapingConfig
from fastmta.config.tables import LISTEN, AuthConfig, DnsConfig, Listen, PipeConfig, TlsConfig
from fastmta.model.services import screened

_Texts = tuple[str, ...]


class Config(ReadingKeys, msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration. `config_file` is where it was read from, "" where from a text."""

    config_file: str = ""

    myhostname: Annotated[str, Key("host", about="default: this machine's name")] = "localhost"
    mydomain: Annotated[str, Key("host", about="default: myhostname without its first label")] = "localdomain"
    myorigin: Annotated[str, Key("host", default="$myhostname")] = "localhost"
    mydestination: Annotated[_Texts, Key("domains", default="$myhostname, localhost.$mydomain, localhost")] = (
        "localhost",
    )
    virtual_mailbox_domains: Annotated[_Texts, Key("domains")] = ()
    virtual_alias_domains: Annotated[_Texts, Key("domains")] = ()
    relay_domains: Annotated[_Texts, Key("domains")] = ()
    mynetworks: Annotated[_Texts, Key("networks")] = ("127.0.0.0/8", "::1/128")
    proxy_interfaces: Annotated[_Texts, Key("list", about="addresses of proxies or NAT that mail for us comes to")] = ()
    resolve_numeric_domain: Annotated[bool, Key("bool", about="user@192.0.2.1 is user@[192.0.2.1]")] = False
    relayhost: Annotated[str, Key("text")] = ""

    transport_maps: Annotated[
        _Texts,
        Key("maps", about='routes by address, domain, ".parent" or "*"; [transport] comes first'),
    ] = ()
    default_transport: Annotated[
        str, Key("text", default="smtp", about='a transport, perhaps with a next hop: "smtp:[host]:port"')
    ] = "smtp"
    relay_transport: Annotated[str, Key("text", default="relay", about="the same for relay_domains")] = "relay"
    content_filter: Annotated[
        str,
        Key("text", about='where new mail goes first, as in "smtp:[127.0.0.1]:10025"; it comes back at reinjection'),
    ] = ""
    sender_dependent_relayhost_maps: Annotated[_Texts, Key("maps", about="relayhost by sender or @domain")] = ()
    sender_dependent_default_transport_maps: Annotated[_Texts, Key("maps", about="default_transport by sender")] = ()
    relay_recipient_maps: Annotated[
        _Texts, Key("maps", about="who there is in relay_domains; others are refused; empty: anybody")
    ] = ()
    canonical_maps: Annotated[
        _Texts, Key("maps", about="addresses written anew, in envelopes and headers, as mail comes in")
    ] = ()
    canonical_classes: Annotated[
        _Texts, Key("options", default=", ".join(ADDRESS_CLASSES), choices=ADDRESS_CLASSES)
    ] = ADDRESS_CLASSES
    sender_canonical_maps: Annotated[_Texts, Key("maps", about="of senders, before canonical_maps")] = ()
    sender_canonical_classes: Annotated[
        _Texts, Key("options", default="envelope_sender, header_sender", choices=ADDRESS_CLASSES)
    ] = ("envelope_sender", "header_sender")
    recipient_canonical_maps: Annotated[_Texts, Key("maps", about="of recipients, before canonical_maps")] = ()
    recipient_canonical_classes: Annotated[
        _Texts, Key("options", default="envelope_recipient, header_recipient", choices=ADDRESS_CLASSES)
    ] = ("envelope_recipient", "header_recipient")
    masquerade_domains: Annotated[
        _Texts,
        Key("list", about='hosts below these domains become the domain, after canonical_maps; "!domain": do not'),
    ] = ()
    masquerade_exceptions: Annotated[_Texts, Key("list", about="users whose address stays")] = ()
    masquerade_classes: Annotated[
        _Texts,
        Key("options", default="envelope_sender, header_sender, header_recipient", choices=ADDRESS_CLASSES),
    ] = ("envelope_sender", "header_sender", "header_recipient")
    local_header_rewrite_clients: Annotated[
        _Texts,
        Key("list", default="permit_inet_interfaces", about="whose headers are rewritten; permit_*, or tables"),
    ] = ("permit_inet_interfaces",)
    remote_header_rewrite_domain: Annotated[
        str,
        Key("domain", about="those of all others too, whose addresses without a domain get this one; empty: they stay"),
    ] = ""
    always_bcc: Annotated[str, Key("text", about="gets a blind copy of all mail that comes in")] = ""
    sender_bcc_maps: Annotated[_Texts, Key("maps", about="who gets a blind copy, by sender or @domain")] = ()
    recipient_bcc_maps: Annotated[_Texts, Key("maps", about="the same by recipient")] = ()

    tenant_maps: Annotated[
        _Texts,
        Key("maps", about="whose mail it is, by login or address or @domain; else each domain of ours is its own"),
    ] = ()

    virtual_alias_maps: Annotated[_Texts, Key("maps")] = ()
    virtual_alias_recursion_limit: Annotated[int, Key("int", low=1, high=1000)] = 1000
    virtual_alias_expansion_limit: Annotated[int, Key("int", low=1, high=10_000)] = 1000
    alias_maps: Annotated[_Texts, Key("maps")] = ()
    alias_database: Annotated[_Texts, Key("maps", default="$alias_maps", about="what newaliases compiles")] = ()
    relay_clientcerts: Annotated[
        _Texts, Key("maps", about="fingerprints of client certificates, or of their keys, for permit_tls_clientcerts")
    ] = ()
    smtpd_sender_login_maps: Annotated[_Texts, Key("maps", about="beside each login's own addresses")] = ()
    recipient_delimiter: Annotated[str, Key("text")] = ""
    srs_domain: Annotated[
        str,
        Key("domain", about="SRS: senders of mail that aliases pass on off-site become addresses of this domain"),
    ] = ""
    srs_secrets: Annotated[
        str,
        Key("path", about="a file, one secret a line, the newest first; empty: one in data_directory, made at start"),
    ] = ""
    srs_max_age: Annotated[float, Key("time", unit="d", default="21d", low=86_400, about="of a rewritten sender")] = (
        1_814_400.0
    )
    srs_exclude_domains: Annotated[
        _Texts, Key("list", about='senders that keep their address: "domain", or ".domain" for those below')
    ] = ()
    arc_sealing: Annotated[
        bool,
        Key("bool", about="seal mail that aliases pass on off-site, by the key of srs_domain, else of mydomain"),
    ] = False
    arc_trusted_sealers: Annotated[
        _Texts,
        Key("domains", about="whose ARC seals are believed: DMARC failures that they saw pass are let in"),
    ] = ()
    soft_bounce: Annotated[
        bool,
        Key("bool", about="nothing is refused or bounced for good: each 5xx of ours or of a next hop becomes a 4xx"),
    ] = False
    hopcount_limit: Annotated[int, Key("int", low=1, high=1000)] = 50

    message_size_limit: Annotated[int, Key("size")] = 10_240_000
    queue_minfree: Annotated[int, Key("size", about="0: chosen by size of disk and message limit")] = 0
    smtpd_forbid_bare_newline: Annotated[str, Key("choice", choices=("reject", "normalize", "no"))] = "reject"
    smtpd_forbid_bare_newline_exclusions: Annotated[_Texts, Key("networks")] = ()
    smtpd_banner: Annotated[str, Key("text", default="$myhostname ESMTP FastMTA")] = "localhost ESMTP FastMTA"
    smtpd_timeout: Annotated[float, Key("time", default="300s", low=1)] = 300.0
    smtpd_soft_error_limit: Annotated[int, Key("int", about="errors of a session before its replies are delayed")] = 10
    smtpd_error_sleep_time: Annotated[
        float, Key("time", default="1s", high=600, about="by so much, in whole seconds; 0: none")
    ] = 1.0
    smtpd_hard_error_limit: Annotated[int, Key("int", low=1)] = 20
    smtpd_junk_command_limit: Annotated[int, Key("int", low=1)] = 100
    strict_rfc821_envelopes: Annotated[bool, Key("bool", about="true: addresses by the letter of RFC 5321")] = False
    smtpd_discard_ehlo_keywords: Annotated[
        _Texts, Key("list", about="extensions that our servers do not offer, such as deliverby, requiretls")
    ] = ()
    smtpd_future_release_limit: Annotated[
        float,
        Key(
            "time",
            unit="d",
            default="30d",
            high=999_999_999,
            about="how long submitted mail may wait (RFC 4865); 0: not",
        ),
    ] = 2_592_000.0
    smtpd_helo_required: Annotated[bool, Key("bool")] = False
    smtpd_authentication: Annotated[
        bool, Key("bool", about="verify SPF, DKIM, ARC and DMARC of strangers' mail at the smtp service")
    ] = True
    dkim_signing: Annotated[bool, Key("bool", about="sign mail of our own people whose domain has a key")] = True
    authserv_id: Annotated[str, Key("host", default="$myhostname", about="of our Authentication-Results")] = "localhost"
    dmarc_reject_action: Annotated[
        str, Key("choice", choices=("reject", "quarantine", "none"), about="where an author's domain asks for it")
    ] = "reject"
    dmarc_quarantine_action: Annotated[
        str, Key("choice", choices=("reject", "quarantine", "none"), about="quarantine: into Junk")
    ] = "quarantine"
    login_messages_per_hour: Annotated[int, Key("int", about="of one login; 0: no limit")] = 0
    login_messages_per_day: Annotated[int, Key("int", about="of one login; 0: no limit")] = 0
    login_recipients_per_hour: Annotated[int, Key("int", about="of one login; 0: no limit")] = 0
    login_recipients_per_day: Annotated[int, Key("int", about="of one login; 0: no limit")] = 0
    login_domain_messages_per_hour: Annotated[int, Key("int", about="of all logins of a domain; 0: no limit")] = 0
    login_domain_messages_per_day: Annotated[int, Key("int", about="of all logins of a domain; 0: no limit")] = 0
    login_domain_recipients_per_hour: Annotated[int, Key("int", about="of all logins of a domain; 0: no limit")] = 0
    login_domain_recipients_per_day: Annotated[int, Key("int", about="of all logins of a domain; 0: no limit")] = 0
    smtpd_reject_from_login_mismatch: Annotated[
        bool, Key("bool", about="each address in From has to be one that the login may send as")
    ] = False
    dmarc_reports: Annotated[
        bool, Key("bool", about="count what strangers' mail came to, and tell the domains that ask for it once a day")
    ] = False
    dmarc_report_email: Annotated[
        str, Key("text", default="postmaster@$mydomain", about="whom reports are from; sign its domain's mail")
    ] = "postmaster@localdomain"
    dmarc_report_org_name: Annotated[str, Key("text", default="$mydomain")] = "localdomain"
    policy_module: Annotated[
        str, Key("path", about="a Python file with functions of your own, one a stage (docs/policy.md)")
    ] = ""
    policy_timeout: Annotated[float, Key("time", default="2s", low=1, high=20, about="for one answer of it")] = 2.0
    fts: Annotated[
        str, Key("choice", choices=("", "trigram"), about="the full-text index for IMAP's SEARCH; empty: none")
    ] = "trigram"
    fts_autoindex: Annotated[
        bool, Key("bool", about="index mail when it has come, and not when somebody first searches")
    ] = False
    fts_autoindex_exclude: Annotated[
        _Texts, Key("list", about='mailboxes that are not: names with * and ?, or "\\Junk" and its like')
    ] = ()
    fts_autoindex_max_recent_msgs: Annotated[
        int, Key("int", about="nor those with more messages that nobody has seen; 0: no limit")
    ] = 0
    fts_message_max_size: Annotated[
        int, Key("size", about="a larger message is not indexed, and looked through by each search; 0: no limit")
    ] = 0
    quarantine_mailbox: Annotated[
        str, Key("text", about="of each user, where checks put aside what they suspect; made when needed; empty: Junk")
    ] = ""
    quarantine_digest: Annotated[bool, Key("bool", about="tell each user once a day what came into quarantine")] = False
    quarantine_digest_hour: Annotated[int, Key("int", high=23, about="of the day, in local time")] = 6
    ban_maxretry: Annotated[
        int, Key("int", about="failures after which an address is banned, as in fail2ban; 0: none is")
    ] = 0
    ban_findtime: Annotated[float, Key("time", default="10m", low=1, about="within this time")] = 600.0
    ban_bantime: Annotated[float, Key("time", default="10m", low=1, about="for so long")] = 600.0
    ban_ignoreip: Annotated[_Texts, Key("networks", default="$mynetworks", about="never banned for failures")] = (
        "127.0.0.0/8",
        "::1/128",
    )
    greylisting: Annotated[
        bool, Key("bool", about="put off what strangers bring for the first time; names and defaults of postgrey's")
    ] = False
    greylist_delay: Annotated[float, Key("time", default="300s", low=1, about="before that a try is too early")] = 300.0
    greylist_retry_window: Annotated[
        float, Key("time", unit="d", default="2d", low=1, about="after that it is a first one again")
    ] = 172_800.0
    greylist_max_age: Annotated[
        float, Key("time", unit="d", default="35d", low=1, about="who is not seen for so long is forgotten")
    ] = 3_024_000.0
    greylist_auto_whitelist_clients: Annotated[
        int, Key("int", about="networks that have passed so often are not asked again; 0: all are")
    ] = 5
    greylist_whitelist_clients: Annotated[_Texts, Key("list", about="addresses, networks, names, domains")] = ()
    greylist_whitelist_recipients: Annotated[_Texts, Key("list", about='addresses, domains, "localpart@"')] = ()
    greylist_ipv4cidr: Annotated[int, Key("int", low=1, high=32, about="bits of an address that count")] = 24
    greylist_ipv6cidr: Annotated[int, Key("int", low=1, high=128)] = 64
    greylist_text: Annotated[str, Key("text")] = "Greylisted"
    postscreen_greet_action: Annotated[
        str,
        Key(
            "choice",
            choices=("ignore", "enforce", "drop"),
            about="strangers wait for the greeting, and who speaks before it has his recipients refused, or is dropped",
        ),
    ] = "ignore"
    postscreen_greet_wait: Annotated[float, Key("time", default="6s", high=60, about="before the greeting")] = 6.0
    postscreen_greet_banner: Annotated[
        str, Key("text", default="$smtpd_banner", about="a first line, said at once; empty: none")
    ] = "localhost ESMTP FastMTA"
    postscreen_greet_ttl: Annotated[
        float, Key("time", unit="d", default="1d", low=1, about="who has waited does not wait again")
    ] = 86_400.0
    smtpd_peername_lookup: Annotated[bool, Key("bool", about="look up the client's name before the greeting")] = True
    notify_classes: Annotated[
        _Texts,
        Key(
            "options",
            choices=("bounce", "2bounce", "delay", "resource", "software"),
            about="what postmaster gets mail of; resource and software are lines in the log and alerts",
        ),
    ] = ("resource", "software")
    bounce_notice_recipient: Annotated[str, Key("text", about="of class bounce")] = "postmaster"
    _2bounce_notice_recipient: Annotated[str, Key("text", about="of class 2bounce: what nobody else can get")] = (
        "postmaster"
    )
    delay_notice_recipient: Annotated[str, Key("text", about="of class delay")] = "postmaster"
    double_bounce_sender: Annotated[
        str, Key("text", about="whom mail to postmaster is from; what comes back to it is dropped with a warning")
    ] = "double-bounce"
    smtpd_delay_reject: Annotated[bool, Key("bool", about="refuse at RCPT what is known earlier")] = True
    smtpd_client_restrictions: Annotated[_Texts, Key("restrictions")] = ()
    smtpd_helo_restrictions: Annotated[_Texts, Key("restrictions")] = ()
    smtpd_sender_restrictions: Annotated[_Texts, Key("restrictions")] = ()
    smtpd_relay_restrictions: Annotated[
        _Texts,
        Key("restrictions", about="who may relay; Postfix's default defers (454) where this one rejects"),
    ] = RELAY_RESTRICTIONS
    smtpd_recipient_restrictions: Annotated[_Texts, Key("restrictions")] = ()
    smtpd_data_restrictions: Annotated[_Texts, Key("restrictions")] = ()
    smtpd_end_of_data_restrictions: Annotated[_Texts, Key("restrictions")] = ()
    header_checks: Annotated[_Texts, Key("maps", about="header_checks(5): fields of a message's header")] = ()
    mime_header_checks: Annotated[_Texts, Key("maps", default="$header_checks", about="Content-Type and its like")] = ()
    nested_header_checks: Annotated[
        _Texts, Key("maps", default="$header_checks", about="fields of attached messages")
    ] = ()
    body_checks: Annotated[_Texts, Key("maps", about="lines of bodies")] = ()
    body_checks_size_limit: Annotated[int, Key("size", about="of each body that body_checks look at")] = 51_200
    rspamd: Annotated[str, Key("peer", about='"inet:127.0.0.1:11333" or "unix:/path": its worker')] = ""
    rspamd_timeout: Annotated[float, Key("time", low=1, high=200)] = 30.0
    rspamd_default_action: Annotated[
        str, Key("choice", choices=SCANNER_ACTIONS, about="where rspamd does not answer")
    ] = "accept"
    spamd: Annotated[str, Key("peer", about='"inet:127.0.0.1:783": SpamAssassin\'s spamd, for mail of strangers')] = ""
    spamd_clients: Annotated[
        str, Key("choice", choices=("strangers", "all"), about="all: mynetworks, logins and local programs too")
    ] = "strangers"
    spamd_timeout: Annotated[float, Key("time", low=1, high=200)] = 60.0
    spamd_default_action: Annotated[
        str, Key("choice", choices=SCANNER_ACTIONS, about="where spamd does not answer")
    ] = "accept"
    spamd_reject_score: Annotated[int, Key("int", high=10_000, about="refuse from here on; 0: file into Junk only")] = 0
    clamd: Annotated[str, Key("peer", about='"unix:/run/clamav/clamd.ctl": ClamAV\'s clamd, for all mail')] = ""
    clamd_timeout: Annotated[float, Key("time", low=1, high=200)] = 60.0
    clamd_default_action: Annotated[
        str, Key("choice", choices=SCANNER_ACTIONS, about="where clamd does not answer; quarantine: held in the queue")
    ] = "tempfail"
    clamd_infected_action: Annotated[
        str, Key("choice", choices=("reject", "quarantine"), about="quarantine: held in the queue")
    ] = "reject"
    smtpd_milters: Annotated[
        _Texts, Key("milters", about='"inet:host:port", "unix:/path", or in braces with settings of its own')
    ] = ()
    non_smtpd_milters: Annotated[_Texts, Key("milters", about="the same, for mail of local programs")] = ()
    milter_header_checks: Annotated[_Texts, Key("maps", about="header_checks(5) of the fields that milters add")] = ()
    milter_default_action: Annotated[
        str, Key("choice", choices=MILTER_ACTIONS, about="where a milter does not answer as it should")
    ] = "tempfail"
    milter_connect_timeout: Annotated[float, Key("time", low=1)] = 30.0
    milter_command_timeout: Annotated[float, Key("time", low=1)] = 30.0
    milter_content_timeout: Annotated[float, Key("time", low=1, about="each answer from the header on")] = 300.0
    smtpd_policy_service_timeout: Annotated[float, Key("time", low=1, about="of one question")] = 100.0
    smtpd_policy_service_default_action: Annotated[
        str, Key("text", about="where a policy service does not answer: any result of access(5)")
    ] = "451 4.3.5 Server configuration problem"
    smtpd_policy_service_max_idle: Annotated[float, Key("time", about="a connection is kept unused")] = 300.0
    smtpd_policy_service_max_ttl: Annotated[float, Key("time", about="a connection is kept at all")] = 1000.0
    smtpd_restriction_classes: Annotated[
        dict[str, tuple[str, ...]],
        Key("classes", default="", about="lists under names that may stand in all lists and in access tables"),
    ] = {}
    smtpd_reject_unlisted_recipient: Annotated[
        bool,
        Key("bool", about="false: who is nobody's of ours is taken at RCPT, and his mail comes back to its sender"),
    ] = True
    smtpd_reject_unlisted_sender: Annotated[
        bool, Key("bool", about="refuse senders of our own domains that do not exist")
    ] = False
    access_map_defer_code: Annotated[int, Key("int", low=400, high=499)] = 450
    access_map_reject_code: Annotated[int, Key("int", low=400, high=599)] = 554
    defer_code: Annotated[int, Key("int", low=400, high=499)] = 450
    invalid_hostname_reject_code: Annotated[int, Key("int", low=400, high=599)] = 501
    maps_rbl_reject_code: Annotated[int, Key("int", low=400, high=599)] = 554
    multi_recipient_bounce_reject_code: Annotated[int, Key("int", low=400, high=599)] = 550
    non_fqdn_reject_code: Annotated[int, Key("int", low=400, high=599)] = 504
    permit_mx_backup_networks: Annotated[
        _Texts, Key("networks", about="where the best MX hosts have to be for permit_mx_backup; empty: anywhere")
    ] = ()
    plaintext_reject_code: Annotated[int, Key("int", low=400, high=599, about="of reject_plaintext_session")] = 450
    reject_code: Annotated[int, Key("int", low=400, high=599)] = 554
    relay_domains_reject_code: Annotated[
        int, Key("int", low=400, high=599, about="of reject_unauth_destination in a list that is set")
    ] = 554
    reject_tempfail_action: Annotated[
        str, Key("choice", choices=("defer", "defer_if_permit"), about="of reject_unverified_* without an answer")
    ] = "defer_if_permit"
    unverified_recipient_defer_code: Annotated[int, Key("int", low=400, high=499)] = 450
    unverified_recipient_reject_code: Annotated[int, Key("int", low=400, high=599)] = 450
    unverified_recipient_reject_reason: Annotated[str, Key("text", about="said in the place of the server's")] = ""
    unverified_sender_defer_code: Annotated[int, Key("int", low=400, high=499)] = 450
    unverified_sender_reject_code: Annotated[int, Key("int", low=400, high=599)] = 450
    unverified_sender_reject_reason: Annotated[str, Key("text", about="said in the place of the server's")] = ""
    address_verify_transport_maps: Annotated[
        _Texts, Key("maps", about="routes of the questions, in place of [transport] and transport_maps; empty: theirs")
    ] = ()
    address_verify_sender: Annotated[
        str, Key("text", about="of the questions; Postfix's default is a double-bounce address of its own")
    ] = "<>"
    address_verify_poll_count: Annotated[int, Key("int", low=1, high=10, about="how often a client waits")] = 3
    address_verify_poll_delay: Annotated[float, Key("time", default="3s", about="each time")] = 3.0
    address_verify_pending_request_limit: Annotated[int, Key("int", low=1, high=100_000, about="of one worker")] = 5000
    address_verify_positive_expire_time: Annotated[float, Key("time", unit="d", default="31d", low=1)] = 2_678_400.0
    address_verify_positive_refresh_time: Annotated[float, Key("time", unit="d", default="7d", low=1)] = 604_800.0
    address_verify_negative_cache: Annotated[bool, Key("bool", about="keep refusals too")] = True
    address_verify_negative_expire_time: Annotated[float, Key("time", unit="d", default="3d", low=1)] = 259_200.0
    address_verify_negative_refresh_time: Annotated[float, Key("time", unit="h", default="3h", low=1)] = 10_800.0
    unknown_address_reject_code: Annotated[int, Key("int", low=400, high=599)] = 450
    unknown_client_reject_code: Annotated[int, Key("int", low=400, high=599)] = 450
    unknown_hostname_reject_code: Annotated[int, Key("int", low=400, high=599)] = 450
    smtpd_recipient_limit: Annotated[int, Key("int", low=1, high=50_000)] = 1000
    smtpd_recipient_overshoot_limit: Annotated[
        int, Key("int", high=1_000_000, about="recipients over the limit that get 452 before they count as errors")
    ] = 1000
    smtpd_client_connection_count_limit: Annotated[int, Key("int", about="0: no limit")] = 50
    smtpd_client_connection_rate_limit: Annotated[int, Key("int", about="in anvil_rate_time_unit; 0: no limit")] = 0
    smtpd_client_message_rate_limit: Annotated[int, Key("int")] = 0
    smtpd_client_recipient_rate_limit: Annotated[int, Key("int")] = 0
    smtpd_client_auth_rate_limit: Annotated[int, Key("int")] = 0
    smtpd_client_new_tls_session_rate_limit: Annotated[int, Key("int")] = 0
    smtpd_client_event_limit_exceptions: Annotated[_Texts, Key("networks", default="$mynetworks")] = (
        "127.0.0.0/8",
        "::1/128",
    )
    anvil_rate_time_unit: Annotated[float, Key("time", default="60s", low=1)] = 60.0
    smtpd_authorized_xclient_hosts: Annotated[_Texts, Key("networks", about="who may say XCLIENT")] = ()
    smtpd_authorized_xforward_hosts: Annotated[_Texts, Key("networks", about="who may say XFORWARD")] = ()
    haproxy_trusted_networks: Annotated[
        _Texts, Key("networks", about="proxies; they begin every connection with a PROXY header")
    ] = ()
    haproxy_timeout: Annotated[float, Key("time", default="3s", low=1)] = 3.0
    http_allowed_hosts: Annotated[
        _Texts, Key("names", about='beside myhostname, addresses and names without a dot: "name" or ".domain"')
    ] = ()
    mta_sts_policy_mode: Annotated[
        str,
        Key(
            "choice",
            choices=("", "none", "testing", "enforce"),
            about="of our own MTA-STS policy at /.well-known/mta-sts.txt of the http listener; empty: none",
        ),
    ] = ""
    mta_sts_policy_mx: Annotated[
        _Texts, Key("list", about='"mx.example.org" or "*.example.org"; empty: myhostname')
    ] = ()
    mta_sts_policy_max_age: Annotated[
        float, Key("time", default="7d", low=86_400, high=31_557_600, about="for which others keep it")
    ] = 604_800.0
    http_client_connection_count_limit: Annotated[int, Key("int", about="of one address; 0: no limit")] = 50

    data_directory: Annotated[str, Key("path")] = "/var/lib/fastmta"
    workers: Annotated[int, Key("int", high=1024, about="processes; 0: one a core")] = 0
    default_user: Annotated[str, Key("user", about="whom workers become where the server is started as root")] = (
        "fastmta"
    )
    workers_may_be_root: Annotated[bool, Key("bool", about="as root: workers stay root, default_user is not asked")] = (
        False
    )
    worker_watchdog: Annotated[float, Key("time", default="30s", about="a stuck worker is replaced then; 0: never")] = (
        30.0
    )
    reload_drain_time: Annotated[float, Key("time", default="10m")] = 600.0
    trace_retention: Annotated[
        float, Key("time", unit="d", default="7d", about="how long `fastmta trace` knows a message; 0: it knows none")
    ] = 604_800.0
    trace_size_limit: Annotated[
        int, Key("size", default="2G", about="of the trace on the disk; the oldest makes room; 0: no limit")
    ] = 2_147_483_648
    log_level: Annotated[str, Key("choice", choices=("debug", "info", "warning", "error"))] = "info"

    listen: Listen = msgspec.field(default_factory=LISTEN)
    tls: TlsConfig = msgspec.field(default_factory=TlsConfig)
    auth: AuthConfig = msgspec.field(default_factory=AuthConfig)
    dns: DnsConfig = msgspec.field(default_factory=DnsConfig)
    delivery: DeliveryConfig = msgspec.field(default_factory=DeliveryConfig)
    transport: dict[str, str] = {}
    pipe: dict[str, PipeConfig] = {}
    shaping: tuple[ShapingConfig, ...] = ()

    @property
    def mailbox_domains(self) -> tuple[str, ...]:
        """Every domain whose mail comes to this server's mailboxes."""
        return (*self.mydestination, *self.virtual_mailbox_domains)

    def filter_for(self, service: str) -> str:
        """Where mail that comes by a service, or from local programs ("pickup"), goes first; "": nowhere."""
        return self.content_filter if service in (*screened("smtp"), "pickup") else ""


TABLES: Final[dict[str, type[msgspec.Struct]]] = {
    "listen": LISTEN,
    "tls": TlsConfig,
    "auth": AuthConfig,
    "dns": DnsConfig,
    "delivery": DeliveryConfig,
}


class Leaf(NamedTuple):
    """One key: the table it stands in ("" for the top), its name there, what it is, and its default value."""

    table: str
    name: str
    key: Key
    value: object

    @property
    def attribute(self) -> str:
        """Its name in the struct: a name of the file that begins with a digit has an underscore before it there."""
        return f"_{self.name}" if self.name[0].isdigit() else self.name

    @property
    def dotted(self) -> str:
        return f"{self.table}.{self.name}" if self.table else self.name

    @property
    def flat(self) -> str:
        return self.key.flat or self.name


@cache
def leaves() -> tuple[Leaf, ...]:
    """Every key but those of [transport], [pipe.NAME] and [[shaping]], in the order of declaration."""
    structs: list[tuple[str, type[msgspec.Struct]]] = [("", Config), *TABLES.items()]
    return tuple(leaf for table, struct in structs for leaf in leaves_of(table, struct))


@cache
def leaves_of(table: str, struct: type[msgspec.Struct]) -> tuple[Leaf, ...]:
    """The keys of one table. A key that must be given has msgspec.NODEFAULT as its default."""
    out = []
    for field in msgspec.structs.fields(struct):
        for extra in getattr(field.type, "__metadata__", ()):
            if isinstance(extra, Key):
                out.append(Leaf(table, field.name.removeprefix("_"), extra, field.default))
    return tuple(out)
