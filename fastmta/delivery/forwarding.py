"""Mail that is passed on off-site: what changes about it so that whoever gets it can still tell whose it is.

Mail is passed on where a recipient of ours (an alias) stands for an address elsewhere. Its envelope sender is rewritten
by SRS (directory/srs.py) where it is a stranger's, so that SPF holds there; with `arc_sealing` an ARC set tells what we
verified when it came; and it gets our own DKIM signature where the domain of SRS has a key. The author's own signature
stays good, because nothing of the message is changed. Reports of ours go to the original sender.

All this is made when the message leaves: what is signed is what goes out, and what stays here has none of it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from fastmta.authentication.arc import BrokenChain, collect_sets, has_chain, verify_arc
from fastmta.authentication.bodies import Bodies, forms_needed
from fastmta.authentication.message import Field, HeaderTooLong, parse_fields
from fastmta.authentication.results import consolidated
from fastmta.authentication.signing import (
    DkimTags,
    Signer,
    SigningError,
    draft_dkim,
    load_own_signer,
    names_to_sign,
    seal_arc,
    sign_all,
)
from fastmta.delivery.seams import QueuedRecipient, Services
from fastmta.directory import addresses
from fastmta.directory.srs import Srs
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import AUTHENTICATED_BODY_PIECE, AUTHENTICATED_HEADER_BYTES

if TYPE_CHECKING:
    from fastmta.delivery.job import Job

Read = Callable[[int, int], bytes | None]


class Gone(Exception):
    """The message was deleted, or cannot be read; delivering it meets the same."""


class Owner(Protocol):
    @property
    def transport(self) -> str: ...


class Forwarding:
    """The forwarding of one configuration."""

    __slots__ = ("_keys", "_services", "_srs", "_version", "domain")

    def __init__(self, services: Services, srs: Srs | None) -> None:
        self._services = services
        self._srs = srs
        config = services.config
        self.domain = config.srs_domain or config.mydomain  # whose keys seal and sign
        self._keys: tuple[Signer, ...] = ()
        self._version = -1

    @staticmethod
    def of(services: Services) -> "Forwarding | None":
        """None where the configuration wants nothing of this."""
        config = services.config
        if not config.srs_domain and not config.arc_sealing:
            return None
        return Forwarding(services, services.directory.srs)

    # --- who is passed on ---

    def groups(self, owner: Owner, rows: Sequence[QueuedRecipient]) -> list[Sequence[QueuedRecipient]]:
        """The rows of one message apart: the two kinds do not share a transaction."""
        if owner.transport != "smtp" or not any(row.tail.original for row in rows):
            return [rows]
        passed_on = [row for row in rows if self._is_passed_on(row)]
        rest = [row for row in rows if row not in passed_on]
        return [each for each in (rest, passed_on) if each]

    def prepare(self, owner: Owner, job: "Job") -> None:
        """Gives a job of one kind its sender, and notes what it still lacks."""
        if owner.transport != "smtp" or not self._is_passed_on(job.rows[0]):
            return
        job.sender = self.sender(job.envelope.reverse_path)
        job.wants_front = bool(self._signers() and (self._services.config.dkim_signing or self._seals))

    @property
    def _seals(self) -> bool:
        return self._services.config.arc_sealing

    def _is_passed_on(self, row: QueuedRecipient) -> bool:
        tail = row.tail
        return bool(tail.original) and self.passes_on(tail.original, tail.forward_path)

    def passes_on(self, original: bytes, forward_path: bytes) -> bool:
        """Whether a recipient of ours stands for an address elsewhere."""
        is_ours = self._services.directory.is_ours
        return is_ours(_domain(original)) and not is_ours(_domain(forward_path))

    def sender(self, reverse_path: bytes) -> bytes:
        """What a message that is passed on has as its envelope sender."""
        if self._srs is None or not reverse_path:
            return reverse_path
        try:
            address = addresses.parse(reverse_path.decode("utf-8", "surrogateescape"))
        except ValueError:
            return reverse_path
        if self._services.directory.is_ours(address.domain) or self._srs.is_excluded(address.domain):
            return reverse_path
        return self._srs.forward(address) or reverse_path

    # --- what is put in front ---

    async def front(self, job: "Job", read: Read) -> bytes:
        """The fields for the top of the message: an ARC set, and signatures. Raises Gone."""
        services = self._services
        now = services.clock.now()
        try:
            header = _header(read)
            fields = parse_fields(header)
            bodies = Bodies({*forms_needed(fields), "relaxed"})
            at = len(header) + 2
            size = job.envelope.size_bytes + job.growth
            while at < size:
                piece = read(at, min(AUTHENTICATED_BODY_PIECE, size - at))
                if not piece:
                    raise Gone
                at += len(piece)
                await services.offload(bodies.update, piece)
            signers = self._signers()
            made = b""
            if self._seals:
                made = await self._sealed(fields, bodies, signers[0], now)
                fields = (*parse_fields(made), *fields)
            if services.config.dkim_signing:
                tags = DkimTags(names_to_sign(fields), signed_at=int(now))
                digest = bodies.digest("relaxed")
                drafts = [draft_dkim(signer, fields, digest, tags) for signer in signers]
                signatures = await services.offload(sign_all, drafts)
                for draft, signature in zip(drafts, signatures, strict=True):
                    made = draft.signed(signature) + made
        except (HeaderTooLong, SigningError, BrokenChain) as error:
            services.log.info(
                "delivery.not_sealed", queue_id=queue_id_text(job.message.queue_id), reason=str(error)[:200]
            )
            return b""
        return made

    async def _sealed(self, fields: Sequence[Field], bodies: Bodies, signer: Signer, now: float) -> bytes:
        """An ARC set over the message as it goes out."""
        services = self._services
        chain = "none"
        if has_chain(fields):
            chain = (await verify_arc(fields, bodies, services.resolver, services.offload, now)).result
        results = consolidated(fields, services.config.authserv_id)
        tags = DkimTags(names_to_sign(fields, arc=True), signed_at=int(now))
        digest = bodies.digest("relaxed")
        sets = collect_sets(fields)
        sealed: bytes = await services.offload(seal_arc, signer, fields, sets, chain, results, digest, tags)
        return sealed

    def _signers(self) -> tuple[Signer, ...]:
        """The active keys of the domain that forwards, the one of RSA first: every verifier knows that."""
        version = self._services.store.directory_version
        if version != self._version:
            keys: Iterable[object] = self._services.store.dkim_keys.list(self.domain)
            found = [load_own_signer(key.pem, key.domain, key.selector) for key in keys if key.state == "active"]  # type: ignore[attr-defined]
            self._keys = tuple(sorted(found, key=lambda signer: signer.algorithm != "rsa-sha256"))
            self._version = version
        return self._keys


def _domain(path: bytes) -> str:
    try:
        return addresses.parse(path.decode("utf-8", "surrogateescape")).domain
    except ValueError:
        return ""


def _header(read: Read) -> bytes:
    """The header section with its last CRLF."""
    raw = b""
    while len(raw) <= AUTHENTICATED_HEADER_BYTES:
        piece = read(len(raw), 16_384)
        if piece is None:
            raise Gone
        if not raw and piece.startswith(b"\r\n"):
            return b""
        found = (raw[-3:] + piece).find(b"\r\n\r\n")
        end = len(raw) - len(raw[-3:]) + found + 2
        raw += piece
        if found >= 0:
            return raw[:end]
        if len(piece) < 16_384:
            return raw
    raise HeaderTooLong("the header does not end")
