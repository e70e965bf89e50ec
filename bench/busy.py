"""What the busy user does: rows of bench/two_users.py, one or more for each command of each protocol.

Each act runs until it is killed, in a process of its own. Which row stands for which command says bench/commands.py.
"""

import base64
import contextlib
import socket
import ssl
import time
import zlib
from collections.abc import Callable

from fastmta.admin.control import request
from tests.support.server import Server

PASSWORD = "secret"
BUSY, QUIET = "busy@example.test", "quiet@example.test"
READ_BYTES = 1 << 18
MANY = 100_000  # messages of one command, where it does not say all; not more than there are


# --- clients ---


class Peer:
    """A blocking client; `ask` sends and reads up to the line that begins with `end`."""

    def __init__(self, server: Server, service: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.port(service)), timeout=120)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.last = b""

    def ask(self, data: bytes, end: bytes) -> None:
        if data:
            self.sock.sendall(data)
        tail = b""
        while True:
            got = self.sock.recv(READ_BYTES)
            if not got:
                raise ConnectionError(f"closed while waiting for {end!r}: {tail[-200:]!r}")
            tail = (tail + got)[-READ_BYTES:]
            if tail.endswith(b"\r\n"):
                line = tail[tail.rfind(b"\r\n", 0, -2) + 2 :] if tail.count(b"\r\n") > 1 else tail
                if line.startswith(end):
                    self.last = line
                    return

    def close(self) -> None:
        self.sock.close()


def imap(server: Server, user: str = BUSY, mailbox: str = "INBOX") -> Peer:
    peer = Peer(server, "imap")
    peer.ask(b"", b"* OK")
    peer.ask(b"l LOGIN %s %s\r\n" % (user.encode(), PASSWORD.encode()), b"l OK")
    if mailbox:
        peer.ask(b"s SELECT %s\r\n" % mailbox.encode(), b"s ")
    return peer


def pop3(server: Server, user: str = BUSY) -> Peer:
    peer = Peer(server, "pop3")
    peer.ask(b"", b"+OK")
    peer.ask(b"USER %s\r\n" % user.encode(), b"+OK")
    peer.ask(b"PASS %s\r\n" % PASSWORD.encode(), b"+OK")
    return peer


def smtp(server: Server, service: str = "smtp") -> Peer:
    peer = Peer(server, service)
    peer.ask(b"", b"220")
    peer.ask(b"LHLO me\r\n" if service == "lmtp" else b"EHLO me\r\n", b"250 ")
    return peer


# --- what the busy user does: each runs until it is killed ---

Act = Callable[[Server], None]
ROWS: dict[str, Act] = {}


def registry(rows: dict[str, Act]) -> Callable[[str], Callable[[Act], Act]]:
    """A decorator that puts an act into `rows` by its name."""

    def row(name: str) -> Callable[[Act], Act]:
        def add(act: Act) -> Act:
            rows[name] = act
            return act

        return add

    return row


row = registry(ROWS)


def _for_ever(name: str, commands: bytes, mailbox: str = "INBOX") -> None:
    """A row of IMAP that gives one command over and over, or some in one go; MANY stands for the number."""

    def act(server: Server) -> None:
        peer = imap(server, mailbox=mailbox)
        many = commands.replace(b"MANY", b"%d" % MANY)
        while True:
            if b"\r\nn " in many:
                peer.ask(b"n %b\r\nc NOOP\r\n" % many, b"c OK")
            else:
                peer.ask(b"c %b\r\n" % many, b"c ")
                if not peer.last.startswith(b"c OK"):
                    raise ConnectionError(f"refused: {peer.last!r}")

    ROWS[name] = act


def _flood(name: str, service: str, greeting: bytes, line: bytes, count: int, *, reads: bool = True) -> None:
    """`count` connections that send one line without a pause, and read what comes or do not."""

    def act(server: Server) -> None:
        data = line * (65_536 // len(line))
        peers = [Peer(server, service) for _ in range(count)]
        for peer in peers:
            if greeting:
                peer.ask(b"", b"220")
                peer.ask(greeting, b"250 ")
            peer.sock.setblocking(False)
        left = dict.fromkeys(peers, b"")
        while True:
            for peer in peers:
                with contextlib.suppress(BlockingIOError, ConnectionError, OSError):
                    sent = peer.sock.send(left[peer] or data)
                    left[peer] = (left[peer] or data)[sent:]
                if reads:
                    with contextlib.suppress(BlockingIOError, ConnectionError, OSError):
                        while peer.sock.recv(READ_BYTES):
                            pass
            time.sleep(0.0005)

    ROWS[name] = act


_flood("imap NOOP x200 before login", "imap", b"", b"a NOOP\r\n", 200)
_flood("imap BAD x200 before login", "imap", b"", b"a ID NIL\r\n", 200)
_flood("imap NOOP, never reads", "imap", b"", b"a CAPABILITY\r\n", 200, reads=False)
_flood("pop3 CAPA, LANG, UTF8 x200 before login", "pop3", b"", b"CAPA\r\nLANG\r\nUTF8\r\n", 200)
_flood("smtp NOOP x200", "smtp", b"EHLO me\r\n", b"NOOP\r\n", 200)
_flood("smtp RSET x200", "smtp", b"EHLO me\r\n", b"RSET\r\n", 200)
_flood(
    "smtp MAIL RCPT RSET x200",
    "smtp",
    b"EHLO me\r\n",
    b"MAIL FROM:<a@x.org>\r\nRCPT TO:<quiet@example.test>\r\nRSET\r\n",
    200,
)
_flood(
    "smtp RCPT unknown x200", "smtp", b"EHLO me\r\n", b"MAIL FROM:<a@x.org>\r\nRCPT TO:<nosuch@example.test>\r\n", 200
)
_flood("smtp never reads", "smtp", b"EHLO me\r\n", b"EHLO x\r\n", 200, reads=False)
_flood("lmtp LHLO x200", "lmtp", b"LHLO me\r\n", b"LHLO me\r\n", 200)
_flood("http /metrics x20", "http", b"", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 20)
_flood("http, never reads", "http", b"", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 20, reads=False)
_flood("imap line without end", "imap", b"", b"x" * 65_536, 4)
_flood("pop3 line without end", "pop3", b"", b"x" * 65_536, 4)
_flood("smtp line without end", "smtp", b"EHLO me\r\n", b"x" * 65_536, 4)
_flood("http line without end", "http", b"", b"x" * 65_536, 4)
_for_ever("imap SELECT", b"SELECT INBOX", "")
_for_ever("imap STATUS", b"STATUS INBOX (MESSAGES RECENT UNSEEN)", "")
_for_ever("imap FETCH FLAGS", b"FETCH 1:* (FLAGS)")
_for_ever("imap FETCH ALL", b"FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)")
_for_ever("imap FETCH HEADER.FIELDS", b"FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
_for_ever("imap FETCH BODY[]", b"FETCH 1:* (BODY.PEEK[])")
_for_ever(
    "imap FETCH BODY[] x10 of 20 MB",
    b"FETCH 2 (%b)" % b" ".join([b"BODY.PEEK[]<%d.20000000>" % n for n in range(10)]),
    "Large",
)
_for_ever(
    "imap FETCH 64 header subsets",
    b"FETCH 1 (%b)" % b" ".join([b"BODY.PEEK[HEADER.FIELDS.NOT (A)]<0.%d>" % n for n in range(4000000, 4000064)]),
    "Large",
)
_for_ever("imap FETCH sparse set", b"FETCH %b (FLAGS)" % b",".join(b"%d" % n for n in range(1, 19_000, 3)))
_for_ever("imap LIST *%*%", b'LIST "" "%b"' % (b"*%" * 30_000), "")
_for_ever("imap LIST *a*b", b'LIST "" "%b"' % (b"*x" * 150), "")
_for_ever("imap SEARCH flags", b"SEARCH UNSEEN NOT DELETED")
_for_ever("imap SEARCH body", b"SEARCH BODY nowhere")
_for_ever("imap STORE silent", b"STORE 1:* +FLAGS.SILENT (\\Flagged)")
_for_ever("imap STORE told", b"STORE 1:* +FLAGS (\\Flagged)")
_for_ever("imap NOOP pipelined", b"\r\nn ".join([b"NOOP"] * 8000))


@row("imap STORE on, off")
def _store(server: Server) -> None:
    peer = imap(server)
    while True:
        peer.ask(b"c STORE 1:%d +FLAGS.SILENT (\\Flagged)\r\n" % MANY, b"c ")
        peer.ask(b"c STORE 1:%d -FLAGS.SILENT (\\Flagged)\r\n" % MANY, b"c ")


@row("imap FETCH, never reads")
def _no_reader(server: Server) -> None:
    peers = [imap(server) for _ in range(10)]
    for peer in peers:
        peer.sock.sendall(b"c FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE)\r\n")
    time.sleep(3600)


@row("imap FETCH BODY[], never reads")
def _no_reader_body(server: Server) -> None:
    peers = [imap(server, mailbox="Large") for _ in range(10)]
    for peer in peers:
        peer.sock.sendall(b"c FETCH 2 (BODY.PEEK[] BODY.PEEK[TEXT])\r\n")
    time.sleep(3600)


@row("imap COPY, STORE, EXPUNGE of 100,000")
def _copy(server: Server) -> None:
    peer, work = imap(server), imap(server, mailbox="Work")
    while True:
        peer.ask(b"c COPY 1:%d Work\r\n" % MANY, b"c ")
        work.ask(b"c NOOP\r\n", b"c ")
        work.ask(b"c STORE 1:* +FLAGS.SILENT (\\Deleted)\r\n", b"c ")
        work.ask(b"c EXPUNGE\r\n", b"c ")


@row("imap MOVE of 100,000")
def _move(server: Server) -> None:
    peer = imap(server)
    peer.ask(b"c COPY 1:%d Work\r\n" % MANY, b"c ")
    peer.ask(b"c SELECT Work\r\n", b"c ")
    while True:
        peer.ask(b"c MOVE 1:* Target\r\n", b"c ")
        peer.ask(b"c SELECT Target\r\n", b"c ")
        peer.ask(b"c MOVE 1:* Work\r\n", b"c ")
        peer.ask(b"c SELECT Work\r\n", b"c ")


@row("imap another session told of 100,000")
def _told(server: Server) -> None:
    idle, peer = imap(server), imap(server)
    idle.ask(b"i IDLE\r\n", b"+")
    idle.sock.setblocking(False)
    while True:
        for sign in (b"+", b"-"):
            peer.ask(b"c STORE 1:%d %bFLAGS.SILENT (\\Flagged)\r\n" % (MANY, sign), b"c ")
            with contextlib.suppress(BlockingIOError):
                while idle.sock.recv(READ_BYTES):
                    pass


@row("pop3 login")
def _pop3_login(server: Server) -> None:
    while True:
        peer = pop3(server)
        peer.ask(b"QUIT\r\n", b"+OK")
        peer.close()


@row("pop3 LIST, UIDL")
def _pop3_list(server: Server) -> None:
    peer = pop3(server)
    while True:
        peer.ask(b"LIST\r\n", b".\r\n")
        peer.ask(b"UIDL\r\n", b".\r\n")


@row("pop3 RETR, RSET pipelined")
def _pop3_retr(server: Server) -> None:
    peer = pop3(server)
    while True:
        peer.ask(
            b"".join(b"RETR %d\r\nRSET\r\nSTAT\r\n" % n for n in range(1, 2000))
            + b"TOP 1 0\r\nCAPA\r\nNOOP\r\nDELE x\r\n",
            b"-ERR",
        )
        peer.close()
        peer = pop3(server)


@row("pop3 QUIT that deletes 20,000")
def _pop3_quit(server: Server) -> None:
    while True:
        peer = pop3(server)
        peer.ask(b"".join(b"DELE %d\r\n" % n for n in range(1, 20_001)) + b"CAPA\r\n", b".\r\n")
        peer.ask(b"QUIT\r\n", b"+OK")
        peer.close()


def _in_one_go(name: str, commands: list[bytes], times: int, mailbox: str = "INBOX") -> None:
    _for_ever(name, b"\r\nn ".join(commands * times), mailbox)


_flood("smtp VRFY, EXPN, HELP x200", "smtp", b"EHLO me\r\n", b"VRFY quiet\r\nEXPN list\r\nHELP\r\n", 200)
_flood("smtp XFORWARD x100", "smtp", b"EHLO me\r\n", b"XFORWARD NAME=a ADDR=192.0.2.1 HELO=b\r\n", 100)
_flood("smtp XCLIENT x50", "smtp", b"EHLO me\r\n", b"XCLIENT NAME=a ADDR=192.0.2.1\r\nEHLO me\r\n", 50)
_flood("smtp AUTH refused x50", "smtp", b"EHLO me\r\n", b"AUTH PLAIN =\r\nAUTH NONE\r\n", 50)
_GETS = b"".join(b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in (b"readyz", b"healthz", b"none"))
_flood("http /healthz, /readyz, nothing x20", "http", b"", _GETS, 20)
_for_ever("imap SORT", b"SORT (SUBJECT REVERSE DATE) UTF-8 1:MANY")
_for_ever("imap THREAD", b"THREAD REFERENCES UTF-8 1:MANY")
_for_ever("imap ESEARCH in all", b"ESEARCH IN (personal) RETURN (COUNT) SUBJECT nowhere")
_in_one_go("imap SELECT, CLOSE, EXAMINE, UNSELECT", [b"EXAMINE INBOX", b"CLOSE", b"SELECT INBOX", b"UNSELECT"], 20, "")
_SMALL = [
    b"CHECK",
    b"CAPABILITY",
    b"ID NIL",
    b"NAMESPACE",
    b'GETQUOTA ""',
    b"GETQUOTAROOT INBOX",
    b'SETQUOTA "" ()',
]
_in_one_go("imap small commands pipelined", [*_SMALL, b"LANGUAGE DE EN", b"ENABLE CONDSTORE", b"BAD"], 500)
_in_one_go("imap LSUB, XLIST", [b'LSUB "" "*"', b'XLIST "" "*"'], 1, "")
_SET = [b'SETMETADATA "" (/private/comment/%d "%b")' % (n, b"v" * 8000) for n in range(40)]
_in_one_go("imap SETMETADATA, GETMETADATA", [*_SET, b'GETMETADATA (DEPTH infinity) "" /private'], 1)
_ACL = [b"SETACL INBOX spare@example.test lrs", b"GETACL INBOX", b"DELETEACL INBOX spare@example.test"]
_in_one_go("imap SETACL, GETACL, DELETEACL", [*_ACL, b"MYRIGHTS INBOX", b"LISTRIGHTS INBOX anyone"], 20)
_MADE = [b"CREATE Some", b"SUBSCRIBE Some", b"RENAME Some Other", b"UNSUBSCRIBE Some", b"DELETE Other"]
_in_one_go("imap CREATE, SUBSCRIBE, RENAME, DELETE", _MADE, 20, "")
_in_one_go("imap IDLE, DONE", [b"IDLE\r\nDONE"], 1000)
_WATCH = (
    b"NOTIFY SET STATUS (selected (MessageNew (UID) MessageExpunge)) (personal (MessageNew MessageExpunge MailboxName))"
)
_MARKED = [b"STORE 1:500 +FLAGS.SILENT (x)", b"STORE 1:500 -FLAGS.SILENT (x)"]
_KEPT = [b"UID SEARCH RETURN (UPDATE COUNT) SUBJECT a", *_MARKED]
_in_one_go("imap SEARCH UPDATE, CANCELUPDATE", [*_KEPT, b'CANCELUPDATE "n"'], 5)
_RUMP = b'"imap://busy%40example.test@localhost/INBOX/;UID=1;URLAUTH=anonymous'
_WORTHLESS = b'URLFETCH %b:internal:%b"' % (_RUMP, b"0" * 64)
_URLS = [b'GENURLAUTH %b" INTERNAL' % _RUMP, _WORTHLESS, b"RESETKEY INBOX", b"RESETKEY"]
_in_one_go("imap GENURLAUTH, URLFETCH, RESETKEY", _URLS, 20)
_in_one_go("imap NOTIFY", [_WATCH, b"CREATE Some", b"DELETE Some", b"NOTIFY NONE"], 20)


def _letter(octets: int) -> bytes:
    return b"Subject: x\r\n\r\n" + b"some text of a letter, a line of it.\r\n" * (octets // 38)


_LETTER = b" {%d+}\r\n%b" % (len(_letter(4096)), _letter(4096))
_in_one_go("imap APPEND of 4 KB x50", [b"APPEND Work" + _LETTER], 50)
_for_ever("imap APPEND of 200 in one", b"APPEND Work" + _LETTER * 200)
_PARTS = [b'URL "/Large/;UID=2/;PARTIAL=0.200000"'] * 10 + [b"TEXT {5+}\r\nhello"] * 90
_for_ever("imap CATENATE of 100 parts", b"APPEND Work CATENATE (%b)" % b" ".join(_PARTS))


@row("imap REPLACE")
def _replace(server: Server) -> None:
    peer = imap(server)
    letter = _letter(4096)
    while True:
        peer.ask(b"c REPLACE 1 INBOX {%d+}\r\n%b\r\n" % (len(letter), letter), b"c OK")


@row("imap COMPRESS, FETCH ALL")
def _compressed(server: Server) -> None:
    peer = imap(server)
    peer.ask(b"c COMPRESS DEFLATE\r\n", b"c OK")
    packer, unpacker = zlib.compressobj(wbits=-15), zlib.decompressobj(wbits=-15)
    while True:
        command = b"c FETCH 1:* (UID FLAGS ENVELOPE)\r\n"
        peer.sock.sendall(packer.compress(command) + packer.flush(zlib.Z_SYNC_FLUSH))
        tail = b""
        while b"\r\nc OK" not in tail:
            tail = (tail + unpacker.decompress(peer.sock.recv(READ_BYTES)))[-READ_BYTES:]


@row("imap UNAUTHENTICATE, LOGIN")
def _logins(server: Server) -> None:
    peer = imap(server, mailbox="")
    while True:
        peer.ask(b"c UNAUTHENTICATE\r\n", b"c OK")
        peer.ask(b"c LOGIN %b %b\r\n" % (BUSY.encode(), PASSWORD.encode()), b"c OK")


def _wrong(name: str, service: str, greeting: bytes, command: bytes, connections: int = 20) -> None:
    """Logins that fail, over and over: connections are made anew where they are ended."""

    def act(server: Server) -> None:
        while True:
            peers = [Peer(server, service) for _ in range(connections)]
            with contextlib.suppress(OSError):
                for peer in peers:
                    peer.ask(b"", greeting)
                    peer.sock.sendall(command)
                for peer in peers:
                    peer.sock.settimeout(1.0)
                    peer.sock.recv(READ_BYTES)
            for peer in peers:
                peer.close()

    ROWS[name] = act


_PLAIN = base64.b64encode(b"\0busy@example.test\0wrong")
_wrong("imap LOGIN wrong", "imap", b"* OK", b"a LOGIN busy@example.test wrong\r\n")
_wrong("imap AUTHENTICATE wrong", "imap", b"* OK", b"a AUTHENTICATE PLAIN %b\r\n" % _PLAIN)
_wrong("pop3 PASS wrong", "pop3", b"+OK", b"USER busy@example.test\r\nPASS wrong\r\n")
_wrong("pop3 AUTH wrong", "pop3", b"+OK", b"AUTH PLAIN %b\r\n" % _PLAIN)
_wrong("smtp AUTH wrong", "smtp", b"220", b"EHLO me\r\nAUTH PLAIN %b\r\n" % _PLAIN)
_wrong("smtp connect, QUIT", "smtp", b"220", b"QUIT\r\n", 50)
_wrong("imap connect, LOGOUT", "imap", b"* OK", b"a LOGOUT\r\n", 50)


def _handshakes(name: str, service: str, greeting: bytes, before: bytes, command: bytes) -> None:
    def act(server: Server) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        while True:
            peer = Peer(server, service)
            peer.ask(b"", greeting)
            if before:
                peer.ask(before, b"250 ")
            peer.ask(command, b"")
            with contextlib.suppress(OSError):
                context.wrap_socket(peer.sock).close()

    ROWS[name] = act


_handshakes("imap STARTTLS", "imap", b"* OK", b"", b"a STARTTLS\r\n")
_handshakes("pop3 STLS", "pop3", b"+OK", b"", b"STLS\r\n")
_handshakes("smtp STARTTLS", "smtp", b"220", b"EHLO me\r\n", b"STARTTLS\r\n")


@row("smtp DATA of 4 KB, 50 recipients")
def _data(server: Server) -> None:
    peer = smtp(server)
    letter = _letter(4096)
    while True:
        recipients = b"RCPT TO:<busy@example.test>\r\n" * 50
        peer.ask(b"MAIL FROM:<a@x.org>\r\n%bDATA\r\n" % recipients, b"354")
        peer.ask(letter + b".\r\n", b"250")


@row("smtp DATA of 20 MB x4")
def _large(server: Server) -> None:
    peers = [smtp(server) for _ in range(4)]
    letter = _letter(20_000_000)
    while True:
        for peer in peers:
            peer.ask(b"MAIL FROM:<a@x.org>\r\nRCPT TO:<busy@example.test>\r\nDATA\r\n", b"354")
        for peer in peers:
            peer.ask(letter + b".\r\n", b"250")


@row("smtp BDAT of an octet")
def _octets(server: Server) -> None:
    peer = smtp(server)
    while True:
        peer.ask(b"MAIL FROM:<a@x.org>\r\n", b"250")
        peer.ask(b"RCPT TO:<busy@example.test>\r\n", b"250")
        peer.sock.sendall(b"BDAT 1\r\nx" * 5000)
        peer.ask(b"BDAT 0 LAST\r\nNOOP\r\nRSET\r\nHELP\r\n", b"214 ")


@row("pop3 TOP of all")
def _top(server: Server) -> None:
    peer = pop3(server)
    while True:
        peer.ask(b"".join(b"TOP %d 1\r\n" % n for n in range(1, 1000)) + b"NOOP x y\r\n", b"-ERR")
        peer.close()
        peer = pop3(server)


@row("control: status, hops, ping, an act")
def _control(server: Server) -> None:
    class Where:
        data_directory = str(server.data_directory)

    while True:
        for command in ({"do": "status"}, {"do": "hops", "hops": []}, {"do": "ping"}):
            request(Where(), command)
        request(Where(), {"do": "act", "act": "user.list", "request": {}})
