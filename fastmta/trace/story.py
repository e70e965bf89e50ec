"""What the lines of one message come to: who sent it to whom, every attempt, and where each recipient stands.

A story without a queue id is a refusal: what a client wanted, and what it was told.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

# What a line says of the recipient it names. A move that a command has made is told under the command's name.
_STATES: Final[Mapping[str, str]] = {
    "delivery.delivered": "delivered",
    "delivery.recovered": "delivered",
    "delivery.deferred": "deferred",
    "delivery.bounced": "bounced",
    "delivery.held": "held",
    "delivery.deleted": "deleted",
    "delivery.expanded": "expanded",
    "admin.queue.hold": "held",
    "admin.queue.release": "released",
    "admin.queue.requeue": "requeued",
    "admin.queue.flush": "flushed",
    "admin.queue.delete": "deleted",
}
_ENDS: Final = frozenset({"delivered", "bounced", "deleted", "expanded"})
STATUSES: Final = ("delivered", "deferred", "bounced", "held", "deleted", "expanded", "accepted", "rejected")
_ATTEMPTS: Final = frozenset({"delivered", "deferred", "bounced", "expanded"})
_SENDERS: Final = ("from", "sender")


class Recipient(msgspec.Struct):
    """One recipient; `attempts` and what commands did are lines of the trace, in order."""

    recipient: str
    status: str = "accepted"
    original_recipient: str = ""
    mailbox: str = ""
    events: list[dict[str, Any]] = []


class Story:
    """The lines of one message (`add` in any order, then `finish`)."""

    def __init__(self, queue_id: str) -> None:
        self.queue_id = queue_id
        self.lines: list[dict[str, Any]] = []
        self.recipients: dict[str, Recipient] = {}
        self.at = ""
        self.sender = ""
        self.client = ""
        self.message_id = ""
        self.accepted: dict[str, Any] = {}

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if not self.queue_id:
            self.finish()

    def finish(self) -> None:
        """Puts the lines in order and works out what they come to."""
        self.lines.sort(key=lambda line: _text(line, "at"))
        self.recipients = {}
        for line in self.lines:
            event = _text(line, "event")
            self.at = self.at or _text(line, "at")
            if event.endswith(".received"):
                self.accepted = line
                self.message_id = _text(line, "message_id")
                for address in line.get("to") or ():
                    self._of(str(address))
            elif event == "smtp.rejected":
                for address in line.get("to") or ():
                    self._of(str(address)).status = "rejected"
            state = _STATES.get(event)
            if state is not None and _text(line, "recipient"):
                self._happened(line, state)
        first = self.accepted or (self.lines[0] if self.lines else {})
        self.sender = next((_text(first, name) for name in _SENDERS if name in first), "")
        self.client = _text(first, "client")

    def _happened(self, line: dict[str, Any], state: str) -> None:
        address = _text(line, "recipient")
        original = _text(line, "original_recipient")
        known = self._of(address)
        if original and original != address:
            known.original_recipient = original
            if original in self.recipients and not self.recipients[original].events:
                self.recipients[original].status = "expanded"
        known.mailbox = _text(line, "mailbox") or known.mailbox
        known.events.append(line)
        if known.status not in _ENDS or state in _ENDS:
            known.status = {"released": "accepted", "requeued": "accepted", "flushed": known.status}.get(state, state)

    def _of(self, address: str) -> Recipient:
        known = self.recipients.get(address)
        if known is None:
            known = self.recipients[address] = Recipient(address, events=[])
        return known

    @property
    def is_refusal(self) -> bool:
        return not self.queue_id

    def as_json(self) -> dict[str, Any]:
        """For programs: the message, its recipients with what happened to each, and all other lines."""
        told = {id(event) for each in self.recipients.values() for event in each.events}
        return {
            "queue_id": self.queue_id or None,
            "at": self.at,
            "client": self.client or None,
            "login": self.accepted.get("login"),
            "tenant": self.accepted.get("tenant"),
            "sender": self.sender,
            "message_id": self.message_id or None,
            "size": self.accepted.get("size"),
            "recipients": [
                {
                    "recipient": each.recipient,
                    "original_recipient": each.original_recipient or None,
                    "mailbox": each.mailbox or None,
                    "status": each.status,
                    "attempts": sum(_STATES.get(_text(event, "event")) in _ATTEMPTS for event in each.events),
                    "events": each.events,
                }
                for each in self.recipients.values()
            ],
            "events": [line for line in self.lines if id(line) not in told],
        }


class Wanted(msgspec.Struct, frozen=True):
    """What is searched for; "" and 0 do not select. Addresses and the Message-ID match in any case."""

    queue_id: str = ""
    message_id: str = ""
    sender: str | None = None  # "": the null sender
    recipient: str = ""
    client: str = ""
    status: str = ""
    since_at: float = 0.0
    since: str = ""  # the same instants, as lines have them
    until: str = ""

    @property
    def needle(self) -> bytes:
        """What the text of some line of every wanted message has, in lower case; b"": nothing in particular."""
        text = self.queue_id or bare(self.message_id) or self.recipient or self.sender or ""
        if not text and self.client and "/" not in self.client:
            text = self.client
        if text:
            return escaped(text.lower())
        if self.status == "rejected":
            return b'"event":"smtp.rejected"'
        if self.status in _ATTEMPTS - {"expanded"}:  # which the name before an alias is, without a line of its own
            return f'"event":"delivery.{self.status}"'.encode()
        return b""

    def may_take(self, line: Mapping[str, Any]) -> bool:
        """Whether a line lies in the time asked for; the rest is for `takes`, which knows all lines."""
        at = _text(line, "at")
        event = _text(line, "event")
        if event.startswith("destination.") or (not line.get("queue_id") and event != "smtp.rejected"):
            return False
        return bool(at) and at >= self.since and (not self.until or at <= self.until)

    def takes(self, story: Story) -> bool:
        return (
            bool(story.lines)
            and (not self.queue_id or story.queue_id == self.queue_id)
            and (not self.message_id or bare(story.message_id) == bare(self.message_id))
            and (self.sender is None or address_is(story.sender, self.sender))
            and (not self.client or client_is(story.client, self.client))
            and self._takes_recipient(story)
        )

    def _takes_recipient(self, story: Story) -> bool:
        if not self.recipient and not self.status:
            return True
        if not story.recipients:
            return not self.recipient and self.status == ("rejected" if story.is_refusal else "accepted")
        return any(
            (not self.status or each.status == self.status)
            and (
                not self.recipient
                or address_is(each.recipient, self.recipient)
                or address_is(each.original_recipient, self.recipient)
            )
            for each in story.recipients.values()
        )


def escaped(text: str) -> bytes:
    """A text as it stands in the trace's lines: printable ASCII, the rest as _intake's text.pxi writes it."""
    out = bytearray()
    for octet in text.encode("utf-8", "surrogateescape"):
        if octet in b'"\\':
            out += b"\\" + bytes([octet])
        elif 32 <= octet < 127:
            out.append(octet)
        else:
            out += b"\\\\x%02x" % octet
    return bytes(out)


def address_is(address: str, wanted: str) -> bool:
    """Whether it is this address, or, where `wanted` has no local part, one of this domain."""
    address, wanted = _folded(address), _folded(wanted)
    return address == wanted or (
        wanted != "" and "@" not in wanted.lstrip("@") and address.rpartition("@")[2] == wanted.lstrip("@")
    )


def client_is(client: str, wanted: str) -> bool:
    """Whether "name[address]" has this name, address, or an address of this network; a local program: by its text."""
    name, _, address = client.rpartition("[")
    address = address.rstrip("]")
    wanted = wanted.lower()
    if wanted in (client.lower(), name.lower(), address.lower()):
        return True
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return False


def bare(message_id: str) -> str:
    return re.sub(r"^<|>$", "", message_id.strip()).lower()


def _folded(text: str) -> str:
    return text.strip().removeprefix("<").removesuffix(">").lower()


def _text(line: Mapping[str, Any], name: str) -> str:
    value = line.get(name)
    return value if isinstance(value, str) else ""
