"""TLS sessions with next hops, kept in memory to be resumed: a handshake without certificates and key exchange by them.

A session is resumed with the server that it was made with, under the same policy and the same context, and no longer
than smtp_tls_session_cache_timeout after the handshake in which that server proved who it is; only that server can
resume it, so the proof holds (the library does not remember the whole chain, so DANE-TA could not be proved anew). A
reload makes new contexts, so nothing of before is resumed.

The library copies a session whenever it is read, at a third of a whole handshake's cost. So it is read behind a whole
handshake only, and resumed again and again, but with a server that takes a ticket once: from that one each new ticket
is read (adr/0292).

The loops' `start_tls` has no place for a session: all that it does with a context is to ask whether it is one, and to
have it make the connection's TLS object. So the handshake that resumes is given a `Resuming` in its place.
"""

import ssl
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, cast

from fastmta.model.limits import TLS_SESSIONS


class Resuming:
    """A context for one handshake that resumes a session."""

    __slots__ = ("_context", "_session")
    __class__ = ssl.SSLContext  # type: ignore[assignment]  # what `isinstance` goes by

    def __init__(self, context: ssl.SSLContext, session: ssl.SSLSession) -> None:
        self._context = context
        self._session = session

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        return self._context.wrap_bio(*given, **{**named, "session": self._session})


def resuming(context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLContext:
    """The context for one handshake, which resumes `session` where there is one."""
    return context if session is None else cast("ssl.SSLContext", Resuming(context, session))


class Kept(NamedTuple):
    """A session. `proof`: by what, and as which name, its server was verified; None: it was not asked to be.

    `resumed`: it was, by now. `once`: the server resumes none of its sessions twice.
    """

    session: ssl.SSLSession
    context: ssl.SSLContext
    until: float
    proof: tuple[str, str] | None
    resumed: bool = False
    once: bool = False


class TlsSessions:
    """The sessions of one worker, at most TLS_SESSIONS; the one that was used longest ago makes way."""

    __slots__ = ("_kept", "_monotonic", "_timeout_s")

    def __init__(self, timeout_s: float, monotonic: Callable[[], float]) -> None:
        """`timeout_s`: how long a session is good; 0: none is kept."""
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._kept: dict[Hashable, Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Hashable, context: ssl.SSLContext) -> Kept | None:
        """The session to resume with whom `key` stands for."""
        known = self._kept.get(key)
        if known is None:
            return None
        if known.context is not context or self._monotonic() >= known.until:
            del self._kept[key]
            return None
        return known

    def keep(self, key: Hashable, tls: ssl.SSLObject, proof: tuple[str, str] | None) -> None:
        """Keeps what the server gave to resume by, if it gave anything (in TLS 1.3 it comes behind the handshake)."""
        if not self._timeout_s:
            return
        known = self._kept.pop(key, None)
        is_reused = known is not None and tls.session_reused
        if known is not None and is_reused and not known.once:
            self._kept[key] = known if known.resumed else known._replace(resumed=True)
            return
        session = tls.session
        if session is None or not (session.has_ticket or session.id):
            return
        # What a resumed session proves is as old as the first handshake, so its time goes on from there.
        until = known.until if known is not None and is_reused else self._monotonic() + self._timeout_s
        once = known is not None and (known.once or known.resumed)  # it was resumed, and now another was made
        while len(self._kept) >= TLS_SESSIONS:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = Kept(session, tls.context, until, proof, once=once)

    def forget(self, key: Hashable) -> None:
        """The session did not do."""
        self._kept.pop(key, None)
