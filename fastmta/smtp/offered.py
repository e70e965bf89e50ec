"""What a server's EHLO or LHLO offers, and how a transaction's envelope is said to such a server (RFC 5321 §4.1.1.1).

An `Offered` is a value, made of one reply; the lines that it writes are what the server can be told, and `refuse`
decides what it cannot. Left to the client: when a line is sent, and what the answer means.
"""

import re
from functools import lru_cache
from typing import Final

from fastmta.model.envelope import (
    HAS_8BIT,
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    Terms,
)
from fastmta.model.limits import OFFER_KEPT_BYTES, OFFERS_KEPT
from fastmta.model.reply import Reply
from fastmta.smtp.transaction import Transaction, ascii_path, xtext

_NOTIFY: Final = ((NOTIFY_SUCCESS, b"SUCCESS"), (NOTIFY_FAILURE, b"FAILURE"), (NOTIFY_DELAY, b"DELAY"))
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


class Offered:
    """The extensions of one server. `words`: keyword in upper case -> its parameters.

    `chunking`: BDAT may be used, which is done where commands may be pipelined too, so that no chunk waits for the
    answer to another. BINARYMIME is never made use of: nothing comes in as such, so all that leaves is lines, 8-bit
    where BODY=8BITMIME says so, and a chunk is no other text than DATA would be (RFC 3030 §3).
    """

    __slots__ = ("chunking", "dsn", "eight_bit", "pipelining", "size", "size_limit", "smtputf8", "words")

    def __init__(self, words: dict[str, str]) -> None:
        self.words = words
        self.pipelining = "PIPELINING" in words
        self.chunking = self.pipelining and "CHUNKING" in words
        self.eight_bit = "8BITMIME" in words
        self.smtputf8 = "SMTPUTF8" in words
        self.dsn = "DSN" in words
        self.size = "SIZE" in words
        limit = words.get("SIZE", "")[:20]
        self.size_limit = int(limit) if limit.isdecimal() else 0  # 0: none (RFC 1870 §4)

    @classmethod
    def by(cls, reply: Reply, ignores: frozenset[str] = frozenset()) -> "Offered":
        """What the lines of a positive reply offer, but for its first, and for keywords in `ignores`."""
        lines = reply.text.partition("\n")[2]
        return (_offered if len(lines) <= OFFER_KEPT_BYTES else cls._of)(lines, ignores)

    @classmethod
    def _of(cls, lines: str, ignores: frozenset[str]) -> "Offered":
        words: dict[str, str] = {}
        for line in lines.split("\n") if lines else ():
            word, _, rest = line.strip().partition(" ")
            word = word.upper()
            if word.startswith("AUTH="):  # an old way to say it, often beside the new one
                word, rest = "AUTH", f"{word[5:]} {rest}"
            if word not in ignores:
                words[word] = f"{words[word]} {rest}" if word == "AUTH" and word in words else rest
        return cls(words)

    @property
    def mechanisms(self) -> list[str]:
        """Of SASL, as the server spells them."""
        return self.words.get("AUTH", "").split()

    def xforward(self, transaction: Transaction) -> bytes:
        """The line that says who handed the message in, in the words that the server wants; b"": in none."""
        wanted = self.words.get("XFORWARD", "").upper().split()
        envelope = transaction.envelope
        name, _, address = envelope.client.rpartition("[")
        is_remote = address.endswith("]")
        ip = address[:-1] if is_remote else "127.0.0.1"
        known = {
            "NAME": (name if name != "unknown" else "") if is_remote else "localhost",
            "ADDR": f"IPV6:{ip}" if ":" in ip else ip,
            "PROTO": envelope.protocol if envelope.protocol in ("SMTP", "ESMTP") else "",
            "IDENT": transaction.ident,
            "SOURCE": "REMOTE" if is_remote else "LOCAL",
            "PORT": "",  # neither is kept with a message
            "HELO": "",
        }
        said = [
            b"%b=%b" % (word.encode(), xtext(known[word].encode("utf-8", "replace")[:255]) or b"[UNAVAILABLE]")
            for word in known
            if word in wanted
        ]
        return b"XFORWARD " + b" ".join(said) + b"\r\n" if said else b""

    def needs_conversion(self, transaction: Transaction) -> bool:
        """Whether the server must not get this message as it is, since it does not take 8-bit bytes (RFC 6152)."""
        return bool(transaction.bits & HAS_8BIT) and not self.eight_bit and not transaction.unconverted

    def refuse(self, transaction: Transaction, peer: str) -> None:
        """Decides what needs no server: sizes, and addresses that it cannot be told (RFC 1870, RFC 6531)."""
        if 0 < self.size_limit < transaction.size_bytes:
            text = f"message size {transaction.size_bytes} exceeds size limit {self.size_limit} of server {peer}"
            transaction.decide(Reply(552, "5.3.4", text))
        if not self.smtputf8 and (transaction.utf8_header or ascii_path(transaction.sender) is None):
            text = f"SMTPUTF8 is required, but was not offered by server {peer}"
            transaction.decide(Reply(550, "5.6.7", text))
        if self.needs_conversion(transaction) and transaction.conversion is None:
            transaction.decide(Reply(554, "5.6.3", f"8BITMIME is required, but was not offered by server {peer}"))
        for n, recipient in enumerate(transaction.recipients):
            path = recipient.forward_path if transaction.paths is None else transaction.paths[n]
            if not path.isascii() and not self.smtputf8 and ascii_path(path) is None:
                text = f"SMTPUTF8 is required for this address, but was not offered by server {peer}"
                transaction.results[n] = Reply(553, "5.6.7", text)
            # Never true for what came through our parsers; a bare CR here would be a command injection.
            if _CONTROL.search(path) is not None:
                transaction.results[n] = Reply(553, "5.1.3", "The address has control characters")

    def refuse_terms(self, transaction: Transaction, terms: Terms, peer: str, *, proved: bool) -> None:
        """Decides about mail whose terms the server does not promise to keep. `proved`: who it is, over TLS."""
        if terms.requiretls and not (proved and "REQUIRETLS" in self.words):  # RFC 8689 §4.2.1
            lacks = "was not offered by" if proved else "needs a verified TLS session with"
            transaction.decide(Reply(550, "5.7.30", f"REQUIRETLS {lacks} server {peer}"))
        if terms.returns and "DELIVERBY" not in self.words:  # RFC 2852 §4.1.4
            transaction.decide(Reply(550, "5.3.3", f"DELIVERBY is required, but was not offered by server {peer}"))
        least = self.words.get("DELIVERBY", "")[:9]
        left = transaction.by.partition(b"=")[2].partition(b";")[0]
        if terms.returns and least.isdecimal() and int(left or b"0") < int(least):
            transaction.decide(Reply(550, "5.4.7", f"Server {peer} takes no mail for less than {least} seconds"))

    def mail(self, transaction: Transaction) -> bytes:
        """MAIL with all the parameters that the server knows, and CRLF."""
        envelope = transaction.envelope
        path = transaction.sender
        parameters = b""
        if self.size:
            parameters = b" SIZE=%d" % transaction.size_bytes
        if transaction.bits & HAS_8BIT and self.eight_bit:
            parameters += b" BODY=8BITMIME"
        if self.smtputf8:
            if envelope.smtputf8:
                parameters += b" SMTPUTF8"
        elif not path.isascii():
            path = ascii_path(path) or path
        if self.dsn and (envelope.ret or envelope.envid):
            if envelope.ret:
                parameters += b" RET=" + envelope.ret.encode()
            if envelope.envid:
                parameters += b" ENVID=" + xtext(envelope.envid)
        if envelope.terms is not None:
            if envelope.terms.requiretls and "REQUIRETLS" in self.words:
                parameters += b" REQUIRETLS"
            if transaction.by and "DELIVERBY" in self.words:
                parameters += b" " + transaction.by
        return b"MAIL FROM:<%b>%b\r\n" % (path, parameters)

    def rcpt(self, transaction: Transaction, n: int) -> bytes:
        """RCPT for recipient `n`, and CRLF."""
        recipient = transaction.recipients[n]
        path = recipient.forward_path if transaction.paths is None else transaction.paths[n]
        if not self.smtputf8 and not path.isascii():
            path = ascii_path(path) or path
        if not self.dsn or not (recipient.notify or recipient.orcpt):
            return b"RCPT TO:<%b>\r\n" % path
        parameters = b""
        if recipient.notify & NOTIFY_NEVER:
            parameters = b" NOTIFY=NEVER"
        elif recipient.notify:
            parameters = b" NOTIFY=" + b",".join(word for bit, word in _NOTIFY if recipient.notify & bit)
        if recipient.orcpt:
            kind, _, address = recipient.orcpt.partition(b";")
            parameters += b" ORCPT=%b;%b" % (kind, xtext(address))
        return b"RCPT TO:<%b>%b\r\n" % (path, parameters)


# Servers that say the same offer the same: of most there are few kinds, and a value may be shared.
_offered: Final = lru_cache(OFFERS_KEPT)(Offered._of)
NOTHING_OFFERED: Final = Offered({})
