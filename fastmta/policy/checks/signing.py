"""DKIM signatures on the mail of our own people, wherever their domain has a key: clients in mynetworks, logins, local
programs, and our own reports.

The domain is that of From, or the nearest one above it that has an active key (RFC 6376 §3.2 and relaxed alignment).
Every active key of it signs: one RSA and one Ed25519 key make two signatures. What is signed is what goes out: the
message as it came, with the addresses that rewriting gives its header, without Bcc, and with the Date
and Message-ID that the server adds. Keys are read from the store and
kept loaded until the directory changes; the signature itself is made in a thread.
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
from fastmta.directory.canonical import Canonical
from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import DKIM_SIGNERS
from fastmta.model.services import screened
from fastmta.model.verdict import PASS, Verdict
from fastmta.policy.check import Check, Context, Message, Parts
from fastmta.policy.checks.authentication import hash_body, read_header
from fastmta.policy.header_rewriting import HeaderRewriting, applied

_LABELS_LEAST: Final = 2  # no key of a top-level domain is looked for


def build(config: Config, parts: Parts) -> Sequence[Check]:
    """Without any key there is nothing to ask; smtp/server.py asks again when the first one is added."""
    if not (config.dkim_signing and parts.store.dkim_keys.exist()):
        return []
    rewriting = HeaderRewriting(config, Canonical(config)) if HeaderRewriting.is_wanted(config) else None
    return [Signing(parts, rewriting)]


class Signing(Check):
    """Adds the signatures; whatever goes wrong lets the message go unsigned, with a line in the log."""

    name = "dkim_signing"
    services = (*screened("smtp"), "pickup", "bounce")
    late = Verdict(is_late=True, reason="not signed in time")

    def __init__(self, parts: Parts, rewriting: HeaderRewriting | None = None) -> None:
        """`rewriting`: what is signed is a header whose addresses it has written anew."""
        self._parts = parts
        self._rewriting = rewriting
        self._signers: dict[str, tuple[Signer, ...]] = {}
        self._version = -1

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        if not context.is_known or context.message is None:
            return PASS
        return self._sign(context, context.message)

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
            came = await read_header(message)
            shown = came
            if self._rewriting is not None:
                self._rewriting.refresh()
                changes, _ = await self._rewriting.changes(context, came, self._parts.turns)
                shown = tuple(applied(came, changes))
            fields: Sequence[Field] = (*parse_fields(context.added), *shown) if context.added else shown
            domains = author_domains(fields)
            signers = self._signers_of(domains[0]) if len(domains) == 1 else ()
            if not signers:
                return PASS
            bodies = Bodies(("relaxed",))
            await hash_body(self._parts, bodies, message, octets_of(came) + 2)
            digest = bodies.digest("relaxed")
            tags = DkimTags(names_to_sign(fields), signed_at=int(self._parts.clock.now()))
            drafts = [draft_dkim(signer, fields, digest, tags) for signer in signers]
            signatures = await self._parts.offload(sign_all, drafts)
            made = [draft.signed(each) for draft, each in zip(drafts, signatures, strict=True)]
        except TemporaryFailure as failure:  # header_rewriting, which looks at the same tables, puts the message off
            return Verdict(reason=f"not signed: {failure.reply.text}")
        except (HeaderTooLong, SigningError) as error:
            return Verdict(reason=f"not signed: {error}")
        return Verdict(fields=tuple(made), reason=f"signed for {signers[0].domain}")
