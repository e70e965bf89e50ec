"""The dialogue of one login at a server (RFC 4954): AUTH, challenges and answers in base64, and what its end means.

A failed login is a failure of the session and never of a recipient, and nothing that it sent is in its reply. Left to
auth/sasl_client.py: what a mechanism says. Left to the client: the session's state.
"""

from base64 import b64decode, b64encode
from typing import Final

from fastmta.auth.sasl_client import Credentials, Login, LoginError
from fastmta.model.reply import Reply

AUTH_LINE_BYTES: Final = 510  # of AUTH with its initial response; a longer one waits for the challenge (RFC 4954 §4)
CHALLENGES: Final = 8  # of one login; no mechanism has more than three


class LoginDialogue:
    """One login. `challenge` is what the server asked last; `ended` says that it has accepted the login."""

    __slots__ = ("_challenges", "_said", "challenge", "ended", "login")

    def __init__(self, credentials: Credentials, offered: list[str], *, tls: bool) -> None:
        """LoginError: none of what is offered may be used."""
        self.login: Login = credentials.choose(offered, tls=tls)
        self._challenges = 0
        self._said: list[str] = []  # a server that repeats it is not quoted
        self.challenge = b""
        self.ended = False

    def begin(self) -> bytes:
        """AUTH, with the initial response where there is one that fits."""
        command = b"AUTH " + self.login.mechanism.encode()
        initial = self.login.start()
        if initial is not None:
            encoded = self._encoded(initial) or b"="
            if len(command) + 1 + len(encoded) <= AUTH_LINE_BYTES:
                command += b" " + encoded
        return command + b"\r\n"

    def receive(self, reply: Reply) -> None:
        """A positive reply: a challenge, or the end. LoginError: this login cannot go on."""
        if reply.code == 334:
            self._challenges += 1
            try:
                self.challenge = b64decode(reply.text.strip(), validate=True)
            except ValueError:
                raise LoginError("the challenge is not base64") from None
            if self._challenges > CHALLENGES:
                raise LoginError("the challenges do not end")
        elif not self.login.proved():
            raise LoginError("the server has not proved that it knows the password")
        else:
            self.ended = True

    def answer(self, response: bytes) -> bytes:
        """The line that answers the challenge by `response`."""
        return self._encoded(response) + b"\r\n"

    def refusal(self, reply: Reply, peer: str) -> Reply:
        """What the session failed by, where the server refused the login by `reply`."""
        text = str(reply)
        for said in self._said:
            text = text.replace(said, "[...]")
        if reply.is_permanent:
            code, enhanced = 454, "4.7.8"
        else:
            code, enhanced = (reply.code if reply.code // 100 == 4 else 454), "4.7.0"
        return Reply(code, enhanced, f"SASL authentication failed; server {peer} said: {text}")

    def _encoded(self, response: bytes) -> bytes:
        encoded = b64encode(response)
        if len(encoded) >= 4:
            self._said.append(encoded.decode())
        return encoded
