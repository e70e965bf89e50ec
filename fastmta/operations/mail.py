"""A message that is not there yet: the act `mail.explain`, which says what would become of it."""

import ipaddress
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import msgspec

from fastmta.model.errors import ActFailed
from fastmta.operations.acts import rows
from fastmta.operations.desk import Desk

OUTCOME: Final = "outcome"


class ExplainMail(msgspec.Struct, forbid_unknown_fields=True):
    """A message from `sender` to `recipient`, as a client would bring it."""

    sender: str
    recipient: str
    client: Annotated[
        str | None, msgspec.Meta(description="The client's IP address; without it one that may relay.")
    ] = None
    helo: Annotated[str, msgspec.Meta(description="What the client says in EHLO.")] = ""


class Said(msgspec.Struct):
    """One step: its `step` ("route", "address", "tls", ...), a sentence, and the values behind it for programs. The
    last one is `outcome`: what the sender would be told at RCPT.
    """

    step: str
    text: str
    values: dict[str, Any]


@rows("mail.explain", at_once=1)
async def explain(desk: Desk, asked: ExplainMail) -> AsyncIterator[Said]:
    """Say each step of a message's way: policy, aliases, route, addresses, TLS and limits. Nothing is sent."""
    from fastmta.operations.explaining import Explanation

    client = asked.client
    if client is not None:
        try:
            client = str(ipaddress.ip_address(client.strip("[]").removeprefix("IPv6:")))
        except ValueError:
            raise ActFailed(f"--client {client}: not an IP address", "usage") from None
    async with desk.delivering() as parts:
        explanation = Explanation(desk, parts, asked.sender, asked.recipient, client, asked.helo)
        async for step in explanation.steps():
            yield Said(step.kind, step.text, step.values)
            await desk.pause()
    yield Said(OUTCOME, explanation.outcome, {"outcome": explanation.outcome, "reply": explanation.reply})
