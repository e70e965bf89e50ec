"""The transition table: every pair of state and verb, in the table and in a real session."""

import pytest

from fastmta._parser import VERB_NUMBERS
from fastmta.smtp.transitions import NO_TRANSITION, TRANSITIONS, State, Verb, table_bytes
from tests.support.smtp_rig import Client, SmtpRig

#: Commands that bring a fresh session into a state.
INTO = {
    State.CONNECTED: b"",
    State.GREETED: b"EHLO a.test\r\n",
    State.MAIL: b"EHLO a.test\r\nMAIL FROM:<a@b>\r\n",
    State.RCPT: b"EHLO a.test\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@relay.test>\r\n",
    State.BDAT: b"EHLO a.test\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@relay.test>\r\nBDAT 3\r\na\r\n",
}
LINES = {
    Verb.EHLO: b"EHLO a.test",
    Verb.HELO: b"HELO a.test",
    Verb.LHLO: b"LHLO a.test",
    Verb.MAIL: b"MAIL FROM:<a@b>",
    Verb.RCPT: b"RCPT TO:<x@relay.test>",
    Verb.DATA: b"DATA",
    Verb.BDAT: b"BDAT 0",
    Verb.RSET: b"RSET",
    Verb.NOOP: b"NOOP",
    Verb.QUIT: b"QUIT",
    Verb.VRFY: b"VRFY x",
    Verb.EXPN: b"EXPN x",
    Verb.HELP: b"HELP",
    Verb.STARTTLS: b"STARTTLS",
    Verb.AUTH: b"AUTH PLAIN AGJpbGxAZXhhbXBsZS50ZXN0AHNlY3JldA==",
}
ALLOWED = {
    State.CONNECTED: {"EHLO", "HELO", "LHLO", "MAIL", "NOOP", "RSET", "HELP", "VRFY", "EXPN", "QUIT", "XCLIENT",
                      "XFORWARD"},
    State.GREETED: {
        "EHLO", "HELO", "LHLO", "NOOP", "RSET", "HELP", "VRFY", "EXPN", "QUIT", "MAIL", "STARTTLS", "AUTH",
        "XCLIENT", "XFORWARD",
    },
    State.MAIL: {"EHLO", "HELO", "LHLO", "NOOP", "RSET", "HELP", "VRFY", "EXPN", "QUIT", "RCPT"},
    State.RCPT: {
        "EHLO", "HELO", "LHLO", "NOOP", "RSET", "HELP", "VRFY", "EXPN", "QUIT", "RCPT", "DATA", "BDAT", "BURL",
    },
    State.BDAT: {"EHLO", "HELO", "LHLO", "NOOP", "RSET", "HELP", "VRFY", "EXPN", "QUIT", "BDAT", "BURL"},
    State.DATA: set(),
    State.AUTH: set(),
}  # fmt: skip


def test_the_verbs_are_the_parsers() -> None:
    assert {verb.name: int(verb) for verb in Verb if verb} == {n: v for n, v in VERB_NUMBERS.items() if n}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("verb", list(Verb))
def test_every_pair_is_listed_or_refused(state: State, verb: Verb) -> None:
    listed = (state, verb) in TRANSITIONS
    assert listed is (verb.name in ALLOWED[state])
    cell = table_bytes()[state * len(Verb) + verb]
    assert cell == (TRANSITIONS[state, verb] if listed else NO_TRANSITION)


def enter(rig: SmtpRig, state: State) -> Client:
    client = rig.connect()
    client.say(INTO[state])
    assert client.session.state == state
    return client


@pytest.mark.parametrize("state", list(INTO))
@pytest.mark.parametrize("verb", list(LINES))
def test_a_session_moves_by_the_table(rig: SmtpRig, state: State, verb: Verb) -> None:
    client = enter(rig, state)
    code = int(client.say(LINES[verb] + b"\r\n")[:3])
    after = TRANSITIONS.get((state, verb))
    if after is None:
        assert code == (554 if state is State.MAIL and verb in (Verb.DATA, Verb.BDAT) else 503)
        assert client.session.state == state or verb is Verb.BDAT
    elif verb in (Verb.LHLO, Verb.EXPN):  # in order, but not of this service
        assert code in (500, 502)
        assert client.session.state == state
    elif verb is Verb.STARTTLS:
        assert code == 220
        assert client.session.state == State.GREETED, "it moves when the handshake is done"
    else:
        assert 200 <= code < 400
        assert client.session.state == after
