"""GENURLAUTH, RESETKEY, URLFETCH (RFC 4467): URLs that let somebody else read one message or part of one.

A URL is authorized by a token, made with a key of the mailbox that it leads to, which is made at the first GENURLAUTH
and lies beside the owner's credentials. Who removes the key, by RESETKEY, makes all of the mailbox's URLs worthless.
What is wrong with a URL is not told: URLFETCH gives NIL. "submit+" is for submission, which is given such URLs by BURL
(smtp/burl.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap import authorized
from fastmta.imap import url as urls
from fastmta.imap.fetch_sections import without_nuls, write_octets
from fastmta.imap.session import SessionEnded, State
from fastmta.model import rights
from fastmta.model.limits import IMAP_CHUNK_BYTES, IMAP_URL_BYTES, IMAP_URLS

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

_REFUSED: Final = "Not the URL of an own message that can be authorized"


def gen_url_auth(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """Pairs of a URL without its token, and a mechanism, of which there is one."""
    rumps: list[tuple[bytes, int]] = []
    while cursor.try_sp():
        rump = cursor.astring()
        cursor.sp()
        mechanism = cursor.atom()
        mailbox_id = _own_mailbox(session, rump) if mechanism == b"INTERNAL" else 0
        if not mailbox_id or len(rumps) == IMAP_URLS:
            raise BadSyntax(_REFUSED)  # RFC 4467 §6
        rumps.append((rump, mailbox_id))
    cursor.end()
    if not rumps:
        raise BadSyntax("A URL expected")
    return _generate(session, rumps)


def _own_mailbox(session: Session, rump: bytes) -> int:
    """The id of the session's own mailbox that a URL leads to; 0 where it leads to none."""
    match = authorized.AUTHORIZED.fullmatch(rump) if len(rump) <= IMAP_URL_BYTES else None
    if match is None or (match[2] is not None and authorized.expires_at(match[2]) is None):
        return 0
    url = urls.parse(match[1])
    if url is None or not url.mailbox or url.user.lower() != session.address.lower():
        return 0
    box = session.box_named(url.mailbox, rights.READ)
    return box.id if not isinstance(box, bytes) and box.account_id == session.account_id else 0


async def _generate(session: Session, rumps: list[tuple[bytes, int]]) -> bytes:
    keys = session.services.store.url_keys
    told = b""
    for rump, mailbox_id in rumps:
        key = await keys.made(session.account_id, mailbox_id)
        told += b" " + _imap.astring(b"%b:internal:%b" % (rump, authorized.token(key, rump)))
    session.write(b"* GENURLAUTH%b\r\n" % told)
    return b"OK GENURLAUTH completed"


def reset_key(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """Of all own mailboxes, or of one; a mechanism that is named and not there is passed over."""
    mailbox_id = 0
    if cursor.try_sp():
        box = session.box_named(session.name_of(cursor.astring()), rights.ADMIN)
        while cursor.try_sp():
            cursor.atom()
        cursor.end()
        if isinstance(box, bytes):
            return box
        if box.account_id != session.account_id:
            return b"NO [NOPERM] Only its owner resets the key of a mailbox"
        mailbox_id = box.id
    cursor.end()
    return _reset(session, mailbox_id)


async def _reset(session: Session, mailbox_id: int) -> bytes:
    await session.services.store.url_keys.reset(session.account_id, mailbox_id)
    return b"OK [URLMECH INTERNAL] Keys removed" if mailbox_id else b"OK All keys removed"


def url_fetch(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    wanted: list[bytes] = []
    while cursor.try_sp():
        wanted.append(cursor.astring())
        if len(wanted) > IMAP_URLS:
            raise BadSyntax("Too many URLs")
    cursor.end()
    if not wanted:
        raise BadSyntax("A URL expected")
    return _fetch(session, wanted)


async def _fetch(session: Session, wanted: list[bytes]) -> bytes:
    keeper = session.services.store
    for raw in wanted:
        session.write(b"* URLFETCH %b" % _imap.astring(raw[:IMAP_URL_BYTES]))
        source = authorized.resolve(keeper, raw, session.address, session.services.clock.now())
        if source is None:
            session.write(b" NIL")
        elif source.data is not None:
            session.write(b" {%d}\r\n%b" % (len(source.data), without_nuls(source.data)))
        else:
            await write_octets(session, source.row, source.offset, source.length)
        session.write(b"\r\n")
        if session.wire.written() >= IMAP_CHUNK_BYTES:
            await session.wire.flush()
        elif session.wire.turn_is_over():
            await session.wire.pause()
        if session.state == State.LOGOUT:
            raise SessionEnded
    return b"OK URLFETCH completed"
