"""Generated SMTP dialogs, and what one left behind, so that two ways of answering it can be compared."""

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import strategies as st

from fastmta.runtime.metrics import METRICS
from tests.support.smtp_rig import SmtpRig

QUEUE_ID = re.compile(rb"(queued as | id |Message-ID: <)[0-9B-Zb-z]{12,}")
MAILBOXES = (b"bill@example.test", b"ann@example.test")
LOGIN = b"AUTH PLAIN AGJpbGxAZXhhbXBsZS50ZXN0AHNlY3JldA=="

LOCALS = st.sampled_from(
    [
        b"x",
        b"bill",
        b"full",
        b"both",
        b"a.b+c",
        b"a..b",
        b".a",
        b'"q q"',
        b'"plain"',
        b"postmaster",
        b"",
        b"l" * 65,
        b"u%relay.test",
        "gr\u00fcn".encode(),
        b"x y",
    ]
)
DOMAINS = st.sampled_from(
    [
        b"@relay.test",
        b"@relay.test",
        b"@example.test",
        b"@EXAMPLE.test",
        b"@elsewhere.test",
        b"@held.test",
        b"",
        b"@[192.0.2.1]",
        b"@relay.test.",
        b"@-x",
        b"@a_b.test",
    ]
)
ADDRESSES = st.builds(lambda local, domain: local + domain, LOCALS, DOMAINS) | st.just(b"bill@example.test")
PATHS = st.builds(
    lambda address, form: form % address,
    ADDRESSES,
    st.sampled_from(
        [b"<%b>", b"<%b>", b"<%b>", b"<%b>", b" <%b>", b"%b", b"<<%b>>", b"<@a.test,@b.test:%b>", b"< %b >", b"<%b"]
    ),
) | st.sampled_from([b"<>", b"", b'<"">', b"<>x", b"<a@b"])
PARAMETERS = st.lists(
    st.sampled_from(
        [
            b" SIZE=10",
            b" SIZE=5001",
            b" size=0",
            b" SIZE=",
            b" SIZE=99999999999999999999",
            b" SIZE=-1",
            b" BODY=8BITMIME",
            b" BODY=7bit",
            b" BODY=BINARYMIME",
            b" BODY",
            b" SMTPUTF8",
            b" RET=HDRS",
            b" ENVID=x+41",
            b" AUTH=<>",
            b"  ",
            b" NOTIFY=NEVER",
            b" NOTIFY=SUCCESS,DELAY",
            b" ORCPT=rfc822;a@b",
            b" ORCPT=x",
            b" X=1",
            b" X",
            b"x",
            b" =1",
        ]
    ),
    max_size=2,
)
MESSAGES = st.sampled_from(
    [
        b"Subject: s\r\n\r\nbody\r\n",
        b"",
        b"no header\r\n",
        b"..\r\n..x\r\n",
        b"a: b\r\n" * 3,
        b"Bcc: x@y\r\nTo: t\r\n\r\nx\r\n",
        b"x: " + b"y" * 1200 + b"\r\n",
        b"8: \xe9\r\n\r\n",
        b"bare\nline\r\n",
        b"bare\rline\r\n",
        b"\0\r\n",
        b"big\r\n" * 1001,
        b"Received: x\r\n" * 4 + b"\r\n",
        b"Delivered-To: bill@example.test\r\n\r\nx\r\n",
    ]
)


def _command(verb: bytes, path: bytes, parameters: list[bytes]) -> bytes:
    return verb + path + b"".join(parameters) + b"\r\n"


def _chunk(octets: bytes, last: bool, lie: int) -> bytes:
    return b"BDAT %d%b\r\n" % (len(octets) + lie, b" LAST" if last else b"") + octets


HELLO = st.sampled_from(
    [b"EHLO c.test\r\n", b"EHLO c.test\r\n", b"LHLO c.test\r\n", b"HELO c.test\r\n", b"EHLO\r\n", b"ehlo (odd]\r\n"]
)
MAIL = st.builds(
    _command, st.sampled_from([b"MAIL FROM:", b"MAIL FROM:", b"mail from:", b"MAIL FROM", b"MAIL"]), PATHS, PARAMETERS
)
RCPT = st.builds(
    _command,
    st.sampled_from([b"RCPT TO:", b"RCPT TO:", b"RCPT TO:", b"rcpt  to:", b"RCPT", b"RCPT TO"]),
    PATHS,
    PARAMETERS,
)
PLAIN_MAIL = st.sampled_from(
    [b"MAIL FROM:<bill@example.test>\r\n", b"MAIL FROM:<> SIZE=3 BODY=8BITMIME\r\n", b"mail FROM: <a@b> \r\n"]
)
PLAIN_RCPT = st.sampled_from(
    [
        b"RCPT TO:<x@relay.test>\r\n",
        b"RCPT TO:<bill@example.test>\r\n",
        b"RCPT TO:<ann@example.test>\r\n",
        b"RCPT TO:<z@elsewhere.test>\r\n",
        b"rcpt to: <y@relay.test>  \r\n",
    ]
)
DATA = MESSAGES.map(lambda octets: b"DATA\r\n" + octets + b".\r\n")
BDAT = st.builds(_chunk, MESSAGES, st.booleans(), st.sampled_from([0, 0, 0, 0, 1]))
OTHER = st.sampled_from(
    [
        b"RSET\r\n",
        b"NOOP\r\n",
        b"noop x\r\n",
        b"RSET x\r\n",
        b"VRFY bill\r\n",
        b"VRFY\r\n",
        b"EXPN x\r\n",
        b"HELP\r\n",
        b"QUIT\r\n",
        b"WHAT\r\n",
        b"\r\n",
        b"DATA x\r\n",
        b"DATA \r\n",
        b"BDAT\r\n",
        b"BDAT x LAST\r\n",
        b"STARTTLS x\r\n",
        b"AUTH\r\n",
        b"AUTH PLAIN AAAA\r\n",
        LOGIN + b"\r\n",
        b"NOOP \t\r\n",
        b"NOOP \xff\r\n",
        b"NOOP\n",
        b"x" * 5000 + b"\r\n",
        b"GET / HTTP/1.1\r\n",
    ]
)
STEPS = st.one_of(MAIL, RCPT, PLAIN_MAIL, PLAIN_RCPT, PLAIN_RCPT, DATA, DATA, BDAT, OTHER, HELLO)
TRANSACTIONS = st.builds(
    lambda mail, recipients, rest: [mail, *recipients, rest],
    PLAIN_MAIL | MAIL,
    st.lists(PLAIN_RCPT | PLAIN_RCPT | RCPT, min_size=1, max_size=4),
    DATA | BDAT,
)


@dataclass
class Dialog:
    """What a client does, and who it is."""

    service: str
    ip: str
    login: bool
    commands: list[bytes]
    segment_bytes: int  # 0: a segment for each command

    def segments(self) -> list[bytes]:
        if not self.segment_bytes:
            return self.commands
        whole = b"".join(self.commands)
        return [whole[at : at + self.segment_bytes] for at in range(0, len(whole), self.segment_bytes)]


@st.composite
def dialogs(draw: Any) -> Dialog:
    """Mostly sensible dialogs, so that they get as far as a message, with nonsense between the steps."""
    service = draw(st.sampled_from(["smtp", "smtp", "smtp", "lmtp", "submission"]))
    hello = b"LHLO c.test\r\n" if service == "lmtp" else b"EHLO c.test\r\n"
    commands = [draw(st.just(hello) | st.just(hello) | HELLO)]
    login = service == "submission" and draw(st.booleans())
    if login:
        commands.append(LOGIN + b"\r\n")
    for part in draw(st.lists(TRANSACTIONS | TRANSACTIONS | STEPS.map(lambda step: [step]), min_size=1, max_size=5)):
        commands += part
    ip = draw(st.sampled_from(["127.0.0.1", "198.51.100.1"]))
    return Dialog(service, ip, login, commands, draw(st.sampled_from([0, 0, 1, 7, 60, 100_000])))


@dataclass
class Outcome:
    """All that a dialog may change. Queue ids and session numbers, which always differ, are left out."""

    replies: list[bytes] = field(default_factory=list)
    state: int = 0
    ended: bool = False
    queued: list[Any] = field(default_factory=list)
    delivered: dict[bytes, list[bytes]] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)


class Recorder:
    """One rig on which dialogs are held one after the other."""

    def __init__(self, rig: SmtpRig) -> None:
        self.rig = rig
        for address in MAILBOXES:
            rig.add_mailbox(address, quota_bytes=0)
        self._seen: set[int] = set()
        self._rows = dict.fromkeys(MAILBOXES, 0)

    def hold(self, dialog: Dialog) -> Outcome:
        rig = self.rig
        before = list(rig.cells)
        client = rig.connect(dialog.service, dialog.ip, tls=dialog.service == "submission")
        out = Outcome()
        for segment in dialog.segments():
            if client.ended:
                break
            out.replies.append(QUEUE_ID.sub(rb"\1ID", client.say(segment)))
        out.state = client.session.state
        out.ended = client.ended
        client.lose()
        for work in rig.tasks.spawned:
            work.close()
        rig.tasks.spawned.clear()
        out.queued = self._queued()
        out.delivered = {address: self._arrived(address) for address in MAILBOXES}
        out.counted = {
            f"rejected {reason[0]}": int(rig.cells[cell]) - int(before[cell])
            for reason, cell in METRICS.messages_rejected_total.places.items()
        }
        for name in ("messages_received_total", "received_bytes_total"):
            cell = getattr(METRICS, name)
            out.counted[name] = int(rig.cells[cell]) - int(before[cell])
        return out

    def _queued(self) -> list[Any]:
        found = []
        for message, recipients in self.rig.queue():
            if message.queue_id in self._seen:
                continue
            self._seen.add(message.queue_id)
            envelope = msgspec.structs.asdict(message.envelope)
            tails = [(r.hop, int(r.state), int(r.lane), r.tail) for r in recipients]
            found.append((envelope, tails, self._blob(message.blob_id)))
        return found

    def _arrived(self, address: bytes) -> list[bytes]:
        rows = self.rig.store.mailboxes.rows(self.rig.directory.accounts[address].mailbox_id)
        new, self._rows[address] = rows[self._rows[address] :], len(rows)
        return [self._blob(row.blob_id) for row in new]

    def _blob(self, blob_id: int) -> bytes:
        return QUEUE_ID.sub(rb"\1ID", self.rig._blob(blob_id))
