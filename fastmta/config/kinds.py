"""What a key of the configuration can be, and the words that several of them take."""

from typing import Final, Literal, NamedTuple

RELAY_RESTRICTIONS: Final = ("permit_mynetworks", "permit_sasl_authenticated", "reject_unauth_destination")
SCANNER_ACTIONS: Final = ("accept", "tempfail", "quarantine")
MILTER_ACTIONS: Final = ("accept", "reject", "tempfail", "quarantine", "shutdown")
ADDRESS_CLASSES: Final = ("envelope_sender", "envelope_recipient", "header_sender", "header_recipient")
REWRITE_CLIENTS: Final = ("permit_inet_interfaces", "permit_mynetworks", "permit_sasl_authenticated")
TLS_LEVELS: Final = ("none", "may", "encrypt", "verify", "secure", "fingerprint", "dane", "dane-only")
SASL_OPTIONS: Final = ("noplaintext", "noactive", "nodictionary", "noanonymous", "mutual_auth", "forward_secrecy")

Kind = Literal[
    "text",  # one line
    "choice",  # one of `choices`
    "bool",  # true, false; also Postfix's "yes" and "no"
    "int",
    "time",  # seconds; a bare number counts in `unit`, as in Postfix
    "size",  # bytes
    "path",  # made absolute; "" stays
    "host",  # a domain name
    "domain",  # the same, or empty
    "peer",  # a service that is asked: "inet:host:port", "unix:/path"
    "user",  # a login name of the system
    "domains",
    "networks",
    "maps",  # "type:/path", paths made absolute
    "endpoints",  # "host:port" or "unix:/path"
    "servers",  # "address" or "address:port"
    "words",  # upper-case words out of `choices`
    "options",  # lower-case words out of `choices`
    "list",  # any words
    "names",  # how a certificate is matched: hostname, nexthop, dot-nexthop, a domain or ".domain"
    "times",
    "milters",  # filters, perhaps in braces
    "restrictions",  # Postfix's words with their arguments
    "argv",  # a program and its arguments, with macros
    "classes",  # a table: name = restrictions
]


class Key(NamedTuple):
    """What a key is, beside its type. `default` is in the file's notation, where that says more than the value."""

    kind: Kind
    flat: str = ""
    default: str | None = None
    choices: tuple[str, ...] = ()
    unit: str = "s"
    low: int = 0
    high: int = 2**62
    about: str = ""
