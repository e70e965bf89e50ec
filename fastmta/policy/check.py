"""What a check is, and what it may know of the session, the transaction or the message that it is asked about.

A check is one file in policy/checks/ whose `build(config, parts)` gives the checks that a configuration wants, and one
name in policy/plan.py. It holds no state of a session: the same object is asked for all of them.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from fastmta._canonical import Field
from fastmta._unit import Blob
from fastmta.config.schema import Config
from fastmta.dns.resolver import Resolver
from fastmta.model.certificate import PeerCertificate
from fastmta.model.envelope import Resolution
from fastmta.model.limits import CHECK_MESSAGE_S, CHECK_S
from fastmta.model.reply import Reply
from fastmta.model.services import screened
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action, Verdict
from fastmta.policy.site import SitePolicy
from fastmta.runtime.clock import Clock
from fastmta.runtime.log import Log
from fastmta.runtime.turns import Turns
from fastmta.store.dmarc_rows import Published, Row

T = TypeVar("T")


class Message(Protocol):
    """The message that has come, as it came: without our own Received field."""

    fields: tuple[Field, ...] | None  # of its header, once somebody has read them: checks/authentication.read_header

    @property
    def size(self) -> int: ...
    def read(self, offset: int, octets: int) -> Awaitable[bytes]: ...


class Context(msgspec.Struct, frozen=True):
    """What is known when a check is asked; what is not known yet is empty."""

    stage: Stage
    service: str
    session: int
    client_ip: str
    client_name: str  # "unknown" where it was not looked up
    trusted: bool  # the client is in mynetworks
    tls: bool
    reverse_name: str = "unknown"  # what the client's address points to, whether it points back or not
    client_port: int = 0  # 0 where there is none
    cipher: tuple[str, str, int] = ("", "", 0)  # its name, the version of TLS, bits of the key
    certificate: PeerCertificate | None = None  # that the client itself has shown
    esmtp: bool = True  # EHLO or LHLO, not HELO
    pipelined: bool = False  # the client has sent on where it had to wait for a reply (RFC 2920 §3.1)
    transaction: int = 0  # counts those of the session
    helo: str = ""
    bare: int = 0  # BARE_SENDER, BARE_RECIPIENT (model/stages.py)
    login: str = ""
    sender: bytes | None = None  # without angle brackets; b"": the null sender
    size_bytes: int = 0
    recipient: bytes = b""  # at RCPT
    recipients: tuple[bytes, ...] = ()  # those accepted, from DATA on
    queue_id: int = 0
    message: Message | None = None  # at the end
    added: bytes = b""  # at the end: fields of ours that will stand on top of what came, below Received
    head: bytes = b""  # at the end: fields that checks of earlier stages have put on top of all
    verdicts: tuple[Verdict, ...] = ()  # for one that `reads_verdicts`: what those before it have said, but PASS

    @property
    def is_known(self) -> bool:
        """Whether the client is one of ours: in mynetworks, or logged in."""
        return self.trusted or bool(self.login)


class Senders(Protocol):
    """Whose addresses are whose (directory/senders.py)."""

    def owned(self, reverse_path: bytes) -> bool: ...
    def listed(self, reverse_path: bytes) -> frozenset[str] | None: ...


class Directory(Protocol):
    """What checks ask of the recipients' directory."""

    def resolve(self, forward_path: bytes, *, may_relay: bool) -> Resolution: ...
    def sender_allowed(self, login: str, reverse_path: bytes) -> bool: ...
    @property
    def senders(self) -> Senders: ...


class SigningKey(Protocol):
    """A private key of a domain, as store.dkim_keys has it."""

    @property
    def domain(self) -> str: ...
    @property
    def selector(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def pem(self) -> bytes: ...


class SigningKeys(Protocol):
    def exist(self) -> bool: ...
    def list(self, domain: str = "") -> Sequence[SigningKey]: ...


class Known(Protocol):
    """What is known of an address: "ok", "deferred", "bounced" or "asked", and what the next hop has said."""

    @property
    def status(self) -> str: ...
    @property
    def enhanced(self) -> str: ...
    @property
    def text(self) -> str: ...


class Verifier(Protocol):
    """Whether addresses can be delivered to (policy/verification.py)."""

    async def status(self, address: bytes) -> Known: ...


class DmarcCounts(Protocol):
    """Where messages are counted for reports."""

    def note(self, day: str, domain: str, published: Published, row: Row) -> None: ...


class Store(Protocol):
    """What checks read of the store."""

    @property
    def directory_version(self) -> int: ...
    @property
    def dkim_keys(self) -> SigningKeys: ...
    @property
    def dmarc_rows(self) -> DmarcCounts: ...
    def new_blob(self) -> Blob: ...


class Parts(Protocol):
    """What of a worker a check may be built from."""

    @property
    def resolver(self) -> Resolver: ...
    @property
    def directory(self) -> Directory: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def log(self) -> Log: ...
    @property
    def store(self) -> Store: ...
    @property
    def turns(self) -> Turns: ...
    @property
    def site_policy(self) -> SitePolicy: ...
    @property
    def verifier(self) -> Verifier: ...
    def offload(self, operation: Callable[..., T], *arguments: Any) -> Awaitable[T]: ...


LATE: Verdict = Verdict(Action.DEFER, Reply(451, "4.7.1", "Service unavailable - try again later"), is_late=True)


class Check:
    """One check. `stage` is whose list it stands in, `reads` where the last of what it reads is known."""

    name: str = "check"
    words: str = ""  # what the configuration wrote, for whoever asks what would be asked
    stage: Stage = Stage.END
    reads: Stage = Stage.CONNECT
    looks_ahead: bool = False  # it is told at MAIL what it will be asked about at its stage
    has_effects: bool = False  # outside of its verdict: it is asked only once all before it have let pass
    reads_verdicts: bool = False  # of those before it in the list: it is asked once these have spoken and let pass
    known_too: bool = True  # asked also about clients in mynetworks and logins
    strangers_too: bool = True  # asked also about all others
    services: tuple[str, ...] = screened("smtp", "lmtp")
    accepts_for_all: bool = True  # its ACCEPT spares the rest of the stage; else it is about this check alone
    grants_relay: bool = False  # at RCPT: nobody may relay to this recipient but whom it ACCEPTs
    late: Verdict = LATE  # its answer when the time is over, or when it fails

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        raise NotImplementedError

    def ahead(self, session: int, client_ip: str, helo: str, sender: bytes) -> None:
        """Where it `looks_ahead`: a transaction has begun. Nobody waits for what comes of it."""

    @property
    def starts(self) -> Stage:
        return max(self.stage, self.reads)


Build = Callable[[Config, Parts], Sequence[Check]]


def deadline_s(stage: Stage) -> float:
    """How long the checks of a stage may take."""
    return CHECK_MESSAGE_S if stage is Stage.END else CHECK_S
