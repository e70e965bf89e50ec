"""Where an SMTP client's session stands, in the words of the log, and what its owner has to do (smtp/client.py)."""

from enum import IntEnum
from typing import Final


class State(IntEnum):
    """Where the session stands; the texts of STAGES complete "while ...", as Postfix words it."""

    GREETING = 0
    EHLO = 1
    HELO = 2
    STARTTLS = 3
    HANDSHAKE = 4
    READY = 5
    RESET = 6
    ENVELOPE = 7
    BODY = 8
    FINAL = 9
    EMPTY_FINAL = 10
    QUIT = 11
    CLOSED = 12
    AUTH = 13
    XFORWARD = 15
    DISCARDED = 14  # a chunk was refused; the answers to those behind it are awaited


class Event(IntEnum):
    """What the owner has to do after a call."""

    NOTHING = 0
    READY = 1  # the handshake is over: `start` may be called
    BODY = 2  # send the message: where `chunked`, by `chunk`; else stuffed, with the final dot, and call body_sent
    DONE = 3  # the transaction is over: every result is set, but those of `again`; `is_usable` says whether to go on
    HANDSHAKE = 4  # start TLS, then call tls_started
    LOGIN = 6  # answer the server's challenge by `respond`, on a thread where `login.is_slow`
    CLOSED = 5  # the session is of no use: `failure` says why; recipients without a result are undecided


STAGES: Final = {
    State.GREETING: "receiving the initial server greeting",
    State.EHLO: "performing the EHLO handshake",
    State.HELO: "performing the HELO handshake",
    State.STARTTLS: "sending STARTTLS",
    State.HANDSHAKE: "performing the TLS handshake",
    State.AUTH: "performing SASL authentication",
    State.RESET: "sending RSET",
    State.XFORWARD: "sending XFORWARD",
    State.BODY: "sending message body",
    State.FINAL: "sending end of data -- message may be sent more than once",
    State.EMPTY_FINAL: "sending end of data",
    State.DISCARDED: "sending message body",
    State.QUIT: "sending QUIT",
}
