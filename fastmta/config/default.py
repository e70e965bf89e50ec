"""The commented `fastmta.toml` that `fastmta init` and the demo write.

Every key that most installations touch stands in it; the rest keep their defaults (`fastmta check --all` lists them).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from fastmta.model.services import SERVICES, Service

_PORTS: Final = {service.name: service.port for service in SERVICES}


class Ports(NamedTuple):
    """Where the written configuration listens. `host` is "" for all addresses, IPv4 and IPv6."""

    of: Mapping[str, int] = _PORTS
    host: str = ""
    ipv6: bool = True  # whether "" means [::] too

    def endpoints(self, service: Service) -> str:
        """The TOML list for one service; port 0 is off. Health and metrics are this host's own affair."""
        port = self.of[service.name]
        host = self.host or ("127.0.0.1" if service.protocol == "http" else "")
        if not port:
            return "[]"
        if host:
            return f'["{host}:{port}"]'
        return f'["0.0.0.0:{port}", "[::]:{port}"]' if self.ipv6 else f'["0.0.0.0:{port}"]'


DEMO_PORTS: Final = Ports({service.name: service.demo_port for service in SERVICES}, "127.0.0.1")
DEMO_DOMAIN: Final = "example.test"


def default_text(
    *,
    hostname: str = "mx.example.test",
    domain: str = "example.test",
    ports: Ports | None = None,
    data: str = "data",
    workers_may_be_root: bool = False,
    userip_connections: int = 10,
) -> str:
    """The file's text; `data` is the data directory, relative to the file or absolute."""
    where = ports or Ports()
    return _TEMPLATE.format(
        hostname=hostname,
        domain=domain,
        data=data,
        userip=userip_connections,
        root=_ROOT if workers_may_be_root else "",
        listen="\n".join(
            f"{service.name} = {where.endpoints(service)}{_NOTES.get(service.protocol, '')}"
            for service in SERVICES
            if service.protocol != "managesieve"
        ),
    )


_NOTES: Final = {"http": "                # /metrics /healthz /readyz"}
_ROOT: Final = """\
workers_may_be_root = true                # as root: no other user; for a demo on loopback, never for the world
"""

_TEMPLATE: Final = """\
# FastMTA's configuration. A key bears Postfix's name and meaning where Postfix has it, Dovecot's where Dovecot has it.
# Lists may be written in Postfix's one-string form ("a, b c"), $name refers to another key, times are "5d" or "300s",
# sizes "50M" or bytes, and relative paths are relative to this file. `fastmta check` says what is wrong with it.

myhostname = "{hostname}"
mydomain = "{domain}"
myorigin = "$mydomain"                    # what a bare user name gets, in maps and at the sendmail command
mydestination = ["$mydomain", "$myhostname", "localhost"]   # domains whose mailboxes are here: fastmta user add
# virtual_mailbox_domains = []            # further domains with mailboxes here; alias_maps do not apply to them
# virtual_alias_domains = []              # domains that have aliases only
# relay_domains = []                      # domains that we take mail for and pass on
mynetworks = ["127.0.0.0/8", "[::1]/128"] # who may relay without logging in
relayhost = ""                            # "[host]:port": everything goes there; "domain": to its MX

virtual_alias_maps = []                   # ["hash:virtual"]: lines "address target, target", Postfix's virtual(5)
alias_maps = []                           # ["hash:/etc/aliases"]: for the local parts of mydestination, aliases(5)
recipient_delimiter = "+"                 # user+anything@ goes to user@

message_size_limit = "50M"
queue_minfree = "0"                       # below this much free disk new mail is put off; 0: chosen by size of disk
smtpd_forbid_bare_newline = "reject"      # reject, normalize or no
smtpd_client_connection_count_limit = 50  # of one address to one port, mynetworks excepted; 0: no limit
mail_max_userip_connections = {userip:<11} # IMAP connections of one account from one address, and POP3's; 0: no limit
# http_allowed_hosts = []                 # names by which a monitor asks for /metrics, beside myhostname and addresses
data_directory = "{data}"
workers = 0                               # processes; 0: one a core
# default_user = "fastmta"                # whom the workers run as, where the server is started as root
{root}# log_level = "info"                      # debug, info, warning or error

[listen]                                  # lists of "host:port" or "unix:/path"; empty: off
{listen}

[tls]
cert_file = "cert.pem"
key_file = "key.pem"

[auth]
mechanisms = ["PLAIN", "LOGIN"]
disable_plaintext_auth = true             # no login without TLS, except from loopback

[transport]                               # domain = "route": smtp: lmtp: local: discard: error: retry: hold: pipe:NAME
# "example.org" = "smtp:[192.0.2.25]:25"

[dns]
nameservers = []                          # ["127.0.0.1:5353"]; empty: the system's

[delivery]
smtp_tls_security_level = "may"           # none, may, encrypt, verify, secure, fingerprint, dane, dane-only
maximal_queue_lifetime = "5d"
bounce_queue_lifetime = "5d"
minimal_backoff_time = "300s"
maximal_backoff_time = "4000s"
delay_warning_time = "0h"                 # tell the sender once after this long; 0h: never
default_destination_concurrency_limit = 20
"""
