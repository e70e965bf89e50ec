"""What a SASL exchange says next: a challenge, what the client claims to be, or that it is over."""

import msgspec


class Challenge(msgspec.Struct, frozen=True, gc=False):
    """The server speaks next; `raw` is not yet base64."""

    raw: bytes


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """What the client claims to be; nothing in it has been believed yet. `authzid` is "" where it named nobody else.

    `proof`: None where `password` has to be checked, else whether the client has proved that it has it. `token`:
    `password` is an OAuth access token.
    """

    authcid: str
    password: str
    authzid: str = ""
    mechanism: str = "PLAIN"
    proof: bool | None = None
    token: bool = False

    def __repr__(self) -> str:
        return f"Credentials({self.authcid!r}, mechanism={self.mechanism!r})"  # a password never reaches a log


class Failure(msgspec.Struct, frozen=True, gc=False):
    """The exchange is over. `code` is one of:

    mechanism  not one that we offer          SMTP 504 5.5.4, IMAP NO, POP3 -ERR
    syntax     bad base64 or a bad message    SMTP 501 5.5.2, IMAP BAD
    cancelled  the client sent "*"            SMTP 501 5.7.0, IMAP BAD
    refused    the credentials were wrong, and the client has read why: as any failed login
    too-long   a response over the bound      SMTP 500 5.5.6, IMAP BAD
    """

    code: str


Step = Challenge | Credentials | Failure
