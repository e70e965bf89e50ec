"""What a site's own policy module sees and says: version 1 of its interface.

    from fastmta.policy.api import Context, Verdict, accept, reject

    API = 1

    async def rcpt(context: Context) -> Verdict:
        if context.helo == "evil.example":
            return reject("5.7.1", "not from there")
        return accept()

A module may have one function a stage: connect, helo, mail, rcpt, data, message. Each is asked with what is known by
then, beside the server's own checks and after them, and has `policy_timeout` to answer. What it raises, and what takes
longer, defers the command; it never harms the server, whose workers run the module in a process of its own. The module
may import what it likes, keep state in its globals (each worker has its own), and await. Fields are only added within
a version.
"""

from typing import Final

import msgspec

VERSION: Final = 1
STAGES: Final = ("connect", "helo", "mail", "rcpt", "data", "message")


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when a function is asked; what is not known yet is empty."""

    stage: str
    service: str  # smtp, submission, submissions, lmtp
    session: int
    client_ip: str
    client_name: str  # "unknown" where the DNS does not confirm one
    trusted: bool  # the client is in mynetworks
    tls: bool
    helo: str = ""
    login: str = ""
    sender: str = ""  # "" is the null sender, too
    recipient: str = ""  # at rcpt
    recipients: tuple[str, ...] = ()  # those accepted, from data on
    queue_id: str = ""
    size: int = 0  # octets of the message, at message
    header: bytes = b""  # at message: the header section as it came, at most 64 KB
    body: bytes = b""  # at message: the beginning of the body, at most 64 KB

    def field(self, name: str) -> str:
        """The first header field of that name, unfolded; "" where there is none."""
        wanted = name.lower().encode() + b":"
        lines = self.header.split(b"\r\n")
        for at, line in enumerate(lines):
            if line.lower().startswith(wanted):
                found = [line[len(wanted) :]]
                for more in lines[at + 1 :]:
                    if more[:1] not in (b" ", b"\t"):
                        break
                    found.append(more)
                return b"".join(found).decode("utf-8", "replace").strip()
        return ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a function says. Made by the functions below."""

    action: str = "none"  # none, reject, defer, discard, hold, quarantine, redirect
    code: int = 0
    enhanced: str = ""
    text: str = ""
    target: str = ""  # of redirect
    fields: tuple[tuple[str, str], ...] = ()  # for the top of the message, at message
    reason: str = ""  # for the log

    def adding(self, name: str, value: str) -> "Verdict":
        """The same, with one more header field for the message."""
        return msgspec.structs.replace(self, fields=(*self.fields, (name, value)))


def accept(reason: str = "") -> Verdict:
    """No objection: the other checks decide."""
    return Verdict(reason=reason)


def reject(enhanced: str = "5.7.1", text: str = "Rejected by policy", *, code: int = 550, reason: str = "") -> Verdict:
    """Refused for good, with this reply."""
    return Verdict(action="reject", code=code, enhanced=enhanced, text=text, reason=reason)


def defer(enhanced: str = "4.7.1", text: str = "Try again later", *, code: int = 450, reason: str = "") -> Verdict:
    """Refused for now."""
    return Verdict(action="defer", code=code, enhanced=enhanced, text=text, reason=reason)


def discard(reason: str = "") -> Verdict:
    """Accepted, and gone."""
    return Verdict(action="discard", reason=reason)


def hold(reason: str = "") -> Verdict:
    """Accepted, and kept in the queue until an administrator has looked."""
    return Verdict(action="hold", reason=reason)


def quarantine(reason: str = "") -> Verdict:
    """Into the quarantine of each recipient here."""
    return Verdict(action="quarantine", reason=reason)


def redirect(target: str, reason: str = "") -> Verdict:
    """To `target` instead of its recipients."""
    return Verdict(action="redirect", target=target, reason=reason)
