"""The SMTP session's one table: which verb a state takes, and the state that a 2yz or 3yz reply leads to.

A pair that is not listed is 503 by construction. The fast path in `_session` works on `table_bytes()`, so there is no
second copy of these rules. In DATA the peer sends a message and in AUTH a SASL response, so neither takes any verb;
in BDAT a sequence of chunks is open.
"""

from enum import IntEnum
from typing import Final

from fastmta._parser import VERB_NUMBERS


class State(IntEnum):
    CONNECTED = 0  # greeted by us; also after STARTTLS, when everything learnt is forgotten (RFC 3207 §4.2)
    GREETED = 1  # after EHLO, HELO or LHLO: no transaction
    MAIL = 2  # MAIL was accepted
    RCPT = 3  # at least one recipient was accepted
    DATA = 4  # the message is being received
    BDAT = 5  # between the chunks of a message (RFC 3030)
    AUTH = 6  # the client's SASL response is awaited (RFC 4954)


class Verb(IntEnum):
    """The numbers are the parser's; tests hold the two together."""

    UNKNOWN = 0
    EHLO = 1
    HELO = 2
    LHLO = 3
    MAIL = 4
    RCPT = 5
    DATA = 6
    BDAT = 7
    RSET = 8
    NOOP = 9
    QUIT = 10
    VRFY = 11
    EXPN = 12
    HELP = 13
    STARTTLS = 14
    AUTH = 15
    XCLIENT = 16
    XFORWARD = 17
    BURL = 18
    HTTP = 19


_ANYWHERE: Final = (Verb.NOOP, Verb.HELP, Verb.VRFY, Verb.EXPN, Verb.QUIT)  # RFC 5321 §4.1.4
_COMMANDS: Final = (State.CONNECTED, State.GREETED, State.MAIL, State.RCPT, State.BDAT)


def _build() -> dict[tuple[State, Verb], State]:
    table = {(state, verb): state for state in _COMMANDS for verb in _ANYWHERE}
    for state in _COMMANDS:
        table[state, Verb.RSET] = State.CONNECTED if state is State.CONNECTED else State.GREETED
        for hello in (Verb.EHLO, Verb.HELO, Verb.LHLO):  # RFC 5321 §4.1.4: a new EHLO is a RSET too
            table[state, hello] = State.GREETED
    table[State.CONNECTED, Verb.MAIL] = State.MAIL  # smtpd_helo_required is the rules' to ask for
    table[State.GREETED, Verb.MAIL] = State.MAIL
    table[State.GREETED, Verb.STARTTLS] = State.CONNECTED
    table[State.GREETED, Verb.AUTH] = State.GREETED
    for state in (State.CONNECTED, State.GREETED):  # Postfix's, of hosts that speak for others
        table[state, Verb.XCLIENT] = State.CONNECTED
        table[state, Verb.XFORWARD] = state
    table[State.MAIL, Verb.RCPT] = State.RCPT
    table[State.RCPT, Verb.RCPT] = State.RCPT
    table[State.RCPT, Verb.DATA] = State.DATA
    table[State.RCPT, Verb.BDAT] = State.BDAT
    table[State.BDAT, Verb.BDAT] = State.BDAT
    table[State.RCPT, Verb.BURL] = State.BDAT  # RFC 4468 §3.3: a chunk that we fetch
    table[State.BDAT, Verb.BURL] = State.BDAT
    return table


TRANSITIONS: Final[dict[tuple[State, Verb], State]] = _build()
NO_TRANSITION: Final = 255


def table_bytes() -> bytes:
    """The table as `_session` indexes it: state * number of verbs + verb -> next state, or NO_TRANSITION."""
    return bytes(TRANSITIONS.get((state, verb), NO_TRANSITION) for state in State for verb in Verb)


def expected_before(state: State, verb: Verb) -> str:
    """Why `verb` is out of sequence in `state`, for the text of the 503."""
    if verb is Verb.MAIL:
        return "nested MAIL command"
    if verb is Verb.RCPT:
        return "need MAIL command"
    if verb in (Verb.DATA, Verb.BDAT, Verb.BURL):
        return "need RCPT command"
    if state is State.CONNECTED:
        return "send EHLO first"
    return "bad sequence of commands"


assert {verb.name: int(verb) for verb in Verb if verb} == {name: n for name, n in VERB_NUMBERS.items() if name}
