"""DKIM signatures on the mail of our own people, wherever their domain has a key: clients in mynetworks, logins, local
programs, and our own reports.

The domain is that of From, or the nearest one above it that has an active key (RFC 6376 §3.2 and relaxed alignment).
Every active key of it signs: one RSA and one Ed25519 key make two signatures. What is signed is what will be stored:
the message as it came, without Bcc and with the Date and Message-ID that the server adds, as all other checks (tables,
rewriting, scanners, milters) have left it; so this one is the last to be asked. Keys are read from the store and kept
loaded until the directory changes; the signature itself is made in a thread.
"""

from collections.abc import Awaitable, Sequence
from typing import Final

from fastmta._canonical import octets_of
from fastmta.authentication.authors import author_domains
from fastmta.authentication.bodies import Bodies
from fastmta.authentication.message import Field, HeaderTooLong, parse_fields
from fastmta.authentication.signing import (
    DkimTags,
    Signer,
    SigningError,
    draft_dkim,
    load_own_signer,
    names_to_sign,
    sign_all,
)
from fastmta.config.schema import Config
from fastmta.model.limits import DKIM_SIGNERS
from fastmta.model.services import screened
from fastmta.model.verdict import PASS, Outcome, Verdict
from fastmta.policy.check import Check, Context, Message, Parts
from fastmta.policy.checks.authentication import hash_body, read_header
from fastmta.policy.summing import note

_LABELS_LEAST: Final = 2  # no key of a top-level domain is looked for
_NOTHING: Final = Outcome()


def build(config: Config, parts: Parts) -> Sequence[Check]:
    """Without any key there is nothing to ask; smtp/server.py asks again when the first one is added."""
    if not (config.dkim_signing and parts.store.dkim_keys.exist()):
        return []
    return [Signing(parts)]


class Signing(Check):
    """Adds the signatures; whatever goes wrong lets the message go unsigned, with a line in the log."""

    name = "dkim_signing"
    services = (*screened("smtp"), "pickup", "bounce")
    reads_verdicts = True
    strangers_too = False
    late = Verdict(is_late=True, reason="not signed in time")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._signers: dict[str, tuple[Signer, ...]] = {}
        self._version = -1

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        return PASS if context.message is None else self._sign(context, context.message)

    def _signers_of(self, domain: str) -> tuple[Signer, ...]:
        """The active keys of the nearest domain that has any; none: the mail is nobody's to sign."""
        version = self._parts.store.directory_version
        if version != self._version:
            self._version = version
            self._signers.clear()
        known = self._signers.get(domain)
        if known:
            return known
        labels = domain.split(".")
        for at in range(max(0, len(labels) - _LABELS_LEAST) + 1):
            name = ".".join(labels[at:])
            known = self._signers.get(name)
            if known is None:
                keys = self._parts.store.dkim_keys.list(name)
                known = tuple(
                    load_own_signer(key.pem, key.domain, key.selector) for key in keys if key.state == "active"
                )
                if len(self._signers) >= DKIM_SIGNERS:
                    self._signers.clear()
                self._signers[name] = known
            if known:
                return known
        return ()

    async def _sign(self, context: Context, message: Message) -> Verdict:
        try:
            made = _noted(context.verdicts) if context.verdicts else _NOTHING
            stored: Message = message if made.body is None else made.body
            came = await read_header(stored)
            shown = _left(came, made.cuts) if made.cuts else came
            front = context.head + made.head + context.added
            fields: Sequence[Field] = (*parse_fields(front), *shown) if front else shown
            domains = author_domains(fields)
            signers = self._signers_of(domains[0]) if len(domains) == 1 else ()
            if not signers:
                return PASS
            bodies = Bodies(("relaxed",))
            await hash_body(self._parts, bodies, stored, octets_of(came) + 2)
            digest = bodies.digest("relaxed")
            tags = DkimTags(names_to_sign(fields), signed_at=int(self._parts.clock.now()))
            drafts = [draft_dkim(signer, fields, digest, tags) for signer in signers]
            signatures = await self._parts.offload(sign_all, drafts)
            signed = [draft.signed(each) for draft, each in zip(drafts, signatures, strict=True)]
        except (HeaderTooLong, SigningError) as error:
            return Verdict(reason=f"not signed: {error}")
        return Verdict(fields=tuple(signed), reason=f"signed for {signers[0].domain}")


def _noted(verdicts: Sequence[Verdict]) -> Outcome:
    """What other checks make of a message."""
    made = Outcome()
    for verdict in verdicts:
        note(made, verdict)
    return made


def _left(came: Sequence[Field], cuts: Sequence[tuple[int, int]]) -> tuple[Field, ...]:
    """The fields of a header without ranges of it, which are in order and apart."""
    raw = b"".join([field.raw for field in came])
    pieces, at = [], 0
    for start, octets in cuts:
        pieces.append(raw[at:start])
        at = start + octets
    return parse_fields(b"".join([*pieces, raw[at:]]))
