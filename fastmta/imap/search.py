"""Evaluates SEARCH's tree, a block of messages at a time.

Each key has a mask, a bytes object with one octet a message. What the rows tell is masked by loops in C; FROM, TO, CC,
BCC, SUBJECT, SENT... and some header fields by the ENVELOPEs made at arrival; what is then still undecided, and what
the text index (search_index.py) says nothing of, by the messages' bytes (search_text.py). A key that is not known yet
leaves a range, from what must match to what may: no byte is read for a message that other keys decide.

Invariants: memory is that of one block, whatever the mailbox and the keys; between two pieces of work the session
pauses where its turn is over.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Awaitable
from contextlib import suppress
from email.utils import parsedate
from itertools import compress
from typing import TYPE_CHECKING, Final

from fastmta import _imap, _mime
from fastmta.imap import search_index
from fastmta.imap import search_keys as keys
from fastmta.imap.dates import days_of
from fastmta.imap.fetch_lines import lines_in_memory
from fastmta.imap.fetch_plan import ENVELOPE, LOOP_NAMES, MORE
from fastmta.imap.flag_names import tell_changes
from fastmta.imap.search_keys import Key
from fastmta.imap.search_text import Message, Pending, Vanished, field_values
from fastmta.imap.session import SessionEnded, State
from fastmta.model.limits import IMAP_PROGRESS_S, SEARCH_BLOCK, SEARCH_BLOCK_MASKS, SEARCH_LINES_BYTES, SEARCH_ROWS

if TYPE_CHECKING:
    from fastmta.imap.session import Session
    from fastmta.imap.view import View

_FIELDS: Final = re.compile(rb"\* (\d+) FETCH \(H \{(\d+)\}\r\n")
_AND, _OR, _WITHOUT = 0, 1, 2
_ADDRESSES: Final = range(2, 8)  # fields of an ENVELOPE that are address lists


class Search:
    """One SEARCH over one view. BadSyntax where it names a message that is not there."""

    def __init__(self, session: Session, view: View, key: Key, *, with_modseq: bool = False) -> None:
        self.highest_modseq = 0  # of what was found, with_modseq
        self.modseq_cap = 2**64 - 1  # none above it is told
        self._with_modseq = with_modseq
        self._session = session
        self._done = 0  # messages looked at
        self._told_at = session.services.loop.time()  # when the client last heard something
        self._mailboxes = session.mailboxes
        self._view = view
        self.key = key
        self._ranges: dict[int, array[int]] = {}
        self._envelopes: list[keys.Envelope | keys.Sent] = []
        self._headers: list[keys.Header] = []
        self._texts: list[keys.Text] = []
        self._hints: search_index.Hints | None = None  # what the text index says
        self._by_row = False  # whether some key takes an object for each row
        leaves = self._leaves(key, {})
        self._fields: dict[bytes, list[keys.Header]] = {}  # by name in lower case; none where they are many
        for header in self._headers:
            self._fields.setdefault(header.field.lower(), []).append(header)
        if len(self._fields) > LOOP_NAMES or any(not 0 < len(name) < 256 for name in self._fields):
            self._fields = {}
        self._block = max(256, min(SEARCH_BLOCK, SEARCH_BLOCK_MASKS // max(1, leaves)))
        if self._by_row:
            self._block = min(self._block, SEARCH_ROWS)

    @property
    def is_short(self) -> bool:
        """Whether it takes one short piece of work: rows alone decide, and they are few."""
        return not (self._envelopes or self._headers or self._texts) and self._view.uids.count <= self._block

    def _leaves(self, key: Key, seen: dict[int, Key]) -> int:
        """Sorts the keys by what they need; how many there are."""
        if isinstance(key, keys.Not):
            return self._leaves(key.key, seen)
        if isinstance(key, keys.Or):
            return self._leaves(key.first, seen) + self._leaves(key.second, seen)
        if isinstance(key, keys.And):
            return sum(self._leaves(part, seen) for part in key.keys)
        if id(key) not in seen:
            seen[id(key)] = key
            if isinstance(key, keys.Envelope | keys.Sent):
                self._envelopes.append(key)
            elif isinstance(key, keys.Header):
                self._headers.append(key)
            elif isinstance(key, keys.Text):
                self._texts.append(key)
            elif isinstance(key, keys.EmailId):
                self._by_row = True
            elif isinstance(key, keys.Numbers):
                self._ranges[id(key)] = self._numbers(key)
        return 1

    def _numbers(self, key: keys.Numbers) -> array[int]:
        uids = self._view.uids
        # A number that no message has matches nothing, as a uid does: a client may not know yet what was expunged.
        return _imap.merged_ranges(key.pairs, uids.last if key.by_uid else uids.count)

    # --- running ---

    async def cap_modseqs(self) -> None:
        """Where numbers must stay, no modseq is told above an expunge that cannot be told (View.modseq_cap)."""
        if self._with_modseq:
            await tell_changes(self._session, self._view)
            self.modseq_cap = self._view.modseq_cap

    def now(self, *, by_uid: bool) -> array[int]:
        """The numbers found, for a search that is short."""
        seqs, uids = self._view.uids.all()
        block = Block(self, seqs, uids)
        return self._found(block, block.bounds(self.key)[0], by_uid)

    def _found(self, block: Block, mask: bytes, by_uid: bool) -> array[int]:
        if self._with_modseq:
            highest = max(self.highest_modseq, *compress(block.modseqs(), mask), 0)
            self.highest_modseq = min(highest, self.modseq_cap)
        return _imap.mask_select(mask, block.uids if by_uid else block.seqs)

    async def run(self, *, by_uid: bool, among: array[int] | None = None) -> array[int]:
        """The numbers found, of all or `among` these ascending uids. SessionEnded where the peer leaves meanwhile."""
        seqs, uids = self._view.uids.all() if among is None else self._view.uids.by_uids(_imap.uid_pairs(among))
        out: array[int] = array("I")
        index = self._session.services.index
        if self._texts and index is not None:
            self._hints = await search_index.ask(index, self._view.mailbox_id, self._texts, uids)
            await self.pause()
        for begin in range(0, len(uids), self._block):
            block = Block(self, seqs[begin : begin + self._block], uids[begin : begin + self._block])
            mask = await self._decide(block)
            out.extend(self._found(block, mask, by_uid))
            self._done += len(block.uids)
            await self.pause()
        return out

    def pause_now(self) -> Awaitable[None] | None:
        """What to await, where the session's turn is over."""
        return self.pause() if self._session.wire.turn_is_over() else None

    async def pause(self) -> None:
        session = self._session
        now = session.services.loop.time()
        if now - self._told_at >= IMAP_PROGRESS_S:
            self._told_at = now
            progress = (_imap.quoted(session.tag), self._done, self._view.uids.count)
            session.write(b"* OK [INPROGRESS (%b %d %d)] Still searching\r\n" % progress)  # RFC 9585
            await session.wire.flush()
        else:
            await session.wire.pause()
        if self._session.state == State.LOGOUT:
            raise SessionEnded

    async def _decide(self, block: Block) -> bytes:
        must, may = block.bounds(self.key)
        open_ones = _imap.mask_combine(may, must, _WITHOUT)
        if self._envelopes and open_ones.find(1) >= 0:
            await self._look_at_envelopes(block, open_ones)
            must, may = block.bounds(self.key)
            open_ones = _imap.mask_combine(may, must, _WITHOUT)
        if open_ones.find(1) >= 0 and self._fields and not self._texts:
            await self._look_at_fields(block, open_ones)
            must, may = block.bounds(self.key)
            open_ones = _imap.mask_combine(may, must, _WITHOUT)
        if open_ones.find(1) < 0:
            return must
        found = bytearray(must)
        at = open_ones.find(1)
        while at >= 0:
            found[at] = await self._look_at_message(block, at)
            waiting = self.pause_now()
            if waiting is not None:
                await waiting
            at = open_ones.find(1, at + 1)
        return bytes(found)

    async def _look_at_envelopes(self, block: Block, mask: bytes) -> None:
        uids = _imap.mask_select(mask, block.uids)
        places = _imap.mask_select(mask, array("I", range(1, len(mask) + 1)))
        found = {id(key): bytearray(len(mask)) for key in self._envelopes}
        start = 0
        while start < len(uids):
            lines, start = await lines_in_memory(
                self._mailboxes, self._view.mailbox_id, places, uids, ENVELOPE | MORE, start, SEARCH_LINES_BYTES
            )
            texts: dict[tuple[int, int], str | None] = {}  # decoded once for all keys
            not_shown: dict[int, list[keys.Envelope]] = {}  # what the header decides
            for key in self._envelopes:
                mine = found[id(key)]
                if isinstance(key, keys.Sent):
                    for at, raw in _imap.envelope_days(lines, key.low, key.high, mine):
                        text = self._text(block, at, 0, raw, texts)
                        mine[at] = text is not None and _is_sent(text, key)
                else:
                    for at, raw in _imap.envelope_matches(lines, key.field, key.needle.encode(), mine):
                        if raw is not None:
                            text = self._text(block, at, key.field, raw, texts)
                            mine[at] = text is not None and key.needle in text
                        elif not mine[at]:
                            not_shown.setdefault(at, []).append(key)
                waiting = self.pause_now()
                if waiting is not None:
                    await waiting
            for at, asked in not_shown.items():
                for number, yes in (await self._look_at_header(block, at, asked)).items():
                    found[number][at] = yes
        for key in self._envelopes:
            block.masks[id(key)] = bytes(found[id(key)])

    async def _look_at_header(self, block: Block, at: int, asked: list[keys.Envelope]) -> dict[int, bool]:
        """Which of the keys some field of one message's header has, by id: of those that its ENVELOPE does not show."""
        headers = {id(key): keys.Header(keys.ENVELOPE_FIELDS[key.field], key.needle) for key in asked}
        known: dict[int, bool] = {}
        with suppress(Vanished):
            await self._message(block, at).look_at_header(
                list(headers.values()), known, None, self.pause_now, goes_on=False
            )
        return {number: known.get(id(header), False) for number, header in headers.items()}

    def _message(self, block: Block, at: int) -> Message:
        columns = block.columns
        return Message(self._mailboxes, self._view.mailbox_id, block.uids[at], columns.sizes[at], columns.prefixes[at])

    async def _look_at_fields(self, block: Block, mask: bytes) -> None:
        """HEADER keys, by the store's loop for header fields: no message is opened but one with a very long header."""
        uids = _imap.mask_select(mask, block.uids)
        places = _imap.mask_select(mask, array("I", range(1, len(mask) + 1)))
        found = {id(key): bytearray(len(mask)) for keys_of in self._fields.values() for key in keys_of}
        section = [(b"H", b"".join(bytes((len(name),)) + name for name in self._fields), False)]
        start = 0
        while start < len(uids):
            last = start
            lines, start = await lines_in_memory(
                self._mailboxes, self._view.mailbox_id, places, uids, 0, start, SEARCH_LINES_BYTES, sections=section
            )
            at = 0
            while line := _FIELDS.match(lines, at):
                end = line.end() + int(line[2])
                if int(line[2]) > 2:  # more than its empty line
                    await self._match_fields(lines[line.end() : end], int(line[1]) - 1, found)
                at = end + 3
            if start == last:  # a header that does not lie in one piece
                place = places[start] - 1
                known: dict[int, bool] = {}
                message = self._message(block, place)
                with suppress(Vanished):
                    await message.look_at_header(self._headers, known, None, self.pause_now, goes_on=False)
                for number, yes in known.items():
                    found[number][place] = yes
                start += 1
            waiting = self.pause_now()
            if waiting is not None:
                await waiting
        for number, each in found.items():
            block.masks[number] = bytes(each)

    async def _match_fields(self, header: bytes, place: int, found: dict[int, bytearray]) -> None:
        plain = header.lower() if header.isascii() and b"=?" not in header else None
        folded = b"\n " in header or b"\t" in header or b"  " in header
        for name, keys_of in self._fields.items():
            # A value that is not coded has the needle as it stands, or its first word where there are folds and blanks.
            if plain is not None and not any(
                (first_word(key.needle) if folded else key.needle.encode()) in plain for key in keys_of
            ):
                continue
            values = field_values(header, name)
            for key in keys_of if values else ():
                found[id(key)][place] = any(key.needle in value for value in values)
            waiting = self.pause_now()
            if waiting is not None:
                await waiting

    def _text(
        self, block: Block, at: int, field: int, raw: bytes | None, texts: dict[tuple[int, int], str | None]
    ) -> str | None:
        """A field of an ENVELOPE as text, case folded; of the header where the ENVELOPE is not there."""
        if (at, field) not in texts:
            if raw is None:
                raw = self._from_header(block.uids[at], field)
            texts[at, field] = None if raw is None else _mime.decode_header(raw).casefold()
        return texts[at, field]

    def _from_header(self, uid: int, field: int) -> bytes | None:
        header = self._mailboxes.read(self._view.mailbox_id, uid, 0, 65_536)
        if header is None:
            return None
        structure = _mime.Structure()
        end = _mime.header_end(header)
        structure.feed(header[:end] if end >= 0 else header)
        line = b"* 1 FETCH (ENVELOPE %b)\r\n" % _mime.envelope_of(structure.finish())
        return _imap.envelope_text(line, field)

    async def _look_at_message(self, block: Block, at: int) -> bool:
        known = block.known_texts(self._texts, at)
        texts = [key for key in self._texts if id(key) not in known]
        message = self._message(block, at)
        try:
            pending = Pending([key for key in texts if key.with_header], known, self.pause_now)
            await message.look_at_header(self._headers, known, pending, self.pause_now, goes_on=bool(texts))
            verdict = block.verdict(self.key, at, known)
            if verdict is None:
                pending = Pending([key for key in texts if id(key) not in known], known, self.pause_now)
                await message.look_at_body(pending, self.pause_now)
                pending.end()
                verdict = block.verdict(self.key, at, known)
        except Vanished:
            return False
        return bool(verdict)


class Block:
    """Some messages of the view, with their rows as columns and the masks of the keys that are decided."""

    def __init__(self, search: Search, seqs: array[int], uids: array[int]) -> None:
        self._search = search
        self._view = search._view
        self.seqs = seqs
        self.uids = uids
        self.columns = search._mailboxes.columns(search._view.mailbox_id, uids)
        self.masks: dict[int, bytes] = {}
        self._hinted: dict[int, tuple[bytes, bytes]] = {}
        self.keywords: list[frozenset[bytes]] | None = None
        self._modseqs: array[int] | None = None

    def bounds(self, key: Key) -> tuple[bytes, bytes]:
        """(what must match, what may): the same mask twice for a key that is decided. Of messages that are here."""
        must, may = self._bounds(key)
        here = self.columns.here
        if 0 not in here:
            return must, may
        return _imap.mask_combine(must, here, _AND), _imap.mask_combine(may, here, _AND)

    def _bounds(self, key: Key) -> tuple[bytes, bytes]:
        if isinstance(key, keys.Not):
            must, may = self._bounds(key.key)
            every = b"\1" * len(must)
            return _imap.mask_combine(every, may, _WITHOUT), _imap.mask_combine(every, must, _WITHOUT)
        if isinstance(key, keys.Or):
            first, second = self._bounds(key.first), self._bounds(key.second)
            return _imap.mask_combine(first[0], second[0], _OR), _imap.mask_combine(first[1], second[1], _OR)
        if isinstance(key, keys.And):
            must = may = b"\1" * len(self.uids)
            for part in key.keys:
                part_must, part_may = self._bounds(part)
                must = _imap.mask_combine(must, part_must, _AND)
                may = _imap.mask_combine(may, part_may, _AND)
            return must, may
        mask = self._mask(key)
        return self._unknown(key) if mask is None else (mask, mask)

    def _unknown(self, key: Key) -> tuple[bytes, bytes]:
        """Of a key that only the messages' bytes decide, where the text index has not."""
        hints = self._search._hints
        if hints is None or not isinstance(key, keys.Text):
            return bytes(len(self.uids)), b"\1" * len(self.uids)
        known = self._hinted.get(id(key))
        if known is None:
            known = self._hinted[id(key)] = hints.bounds(key, self.uids)
        return known

    def known_texts(self, texts: list[keys.Text], at: int) -> dict[int, bool]:
        """What the text index says of one message, by the id of the key."""
        if self._search._hints is None:
            return {}
        bounds = [(id(key), self._unknown(key)) for key in texts]
        return {number: must[at] == 1 for number, (must, may) in bounds if must[at] == may[at]}

    def _mask(self, key: Key) -> bytes | None:
        mask = self.masks.get(id(key))
        if mask is None:
            mask = self._of_rows(key)
            if mask is not None:
                self.masks[id(key)] = mask
        return mask

    def _of_rows(self, key: Key) -> bytes | None:
        columns = self.columns
        if isinstance(key, keys.Flags):
            return _imap.mask_flags(columns.flags, key.wanted, key.unwanted)
        if isinstance(key, keys.Size):
            return _imap.mask_between(columns.sizes, key.low, key.high)
        if isinstance(key, keys.Received):
            return _imap.mask_between(columns.days, key.low, key.high)
        if isinstance(key, keys.Modseq):
            return bytes(map(key.low.__le__, self.modseqs()))
        if isinstance(key, keys.Arrived):
            dates = self._search._mailboxes.dates(self._view.mailbox_id, self.uids)
            return bytes(key.low <= date <= key.high for date in dates)
        if isinstance(key, keys.Saved):
            saved = self._search._mailboxes.dates(self._view.mailbox_id, self.uids, saved=True)
            days = (date // 86400 or day for date, day in zip(saved, columns.days, strict=True))
            return bytes(key.low <= day <= key.high for day in days)
        if isinstance(key, keys.EmailId):
            names = self._search._mailboxes.email_ids(self._view.mailbox_id, self.uids)
            return bytes(key.name == name for name in names)
        if isinstance(key, keys.Numbers):
            return _imap.mask_ranges(self.uids if key.by_uid else self.seqs, self._search._ranges[id(key)])
        if isinstance(key, keys.Recent):
            return bytes(map(self._view.is_recent, self.uids)) if self._view.recent else bytes(len(self.uids))
        if isinstance(key, keys.Keyword):
            if self.keywords is None:
                self.keywords = [frozenset(words.lower().split()) for words in columns.keywords]
            return _imap.mask_table(columns.words, bytes(key.name in words for words in self.keywords))
        return None

    def modseqs(self) -> array[int]:
        if self._modseqs is None:
            self._modseqs = self._search._mailboxes.modseqs(self._view.mailbox_id, self.uids)
        return self._modseqs

    def verdict(self, key: Key, at: int, known: dict[int, bool]) -> bool | None:
        """Whether a message matches; None where `known` and the masks don't say yet."""
        if isinstance(key, keys.Not):
            inner = self.verdict(key.key, at, known)
            return None if inner is None else not inner
        if isinstance(key, keys.Or):
            first, second = self.verdict(key.first, at, known), self.verdict(key.second, at, known)
            return True if first or second else None if first is None or second is None else False
        if isinstance(key, keys.And):
            out: bool | None = True
            for part in key.keys:
                one = self.verdict(part, at, known)
                if one is False:
                    return False
                out = None if one is None else out
            return out
        mask = self._mask(key)
        return bool(mask[at]) if mask is not None else known.get(id(key))


def first_word(needle: str) -> bytes:
    words = needle.split(maxsplit=1)
    return words[0].encode() if words else b""


def _is_sent(text: str, key: keys.Sent) -> bool:
    """Whether the Date field names such a day, time and zone disregarded (RFC 3501 §6.4.4)."""
    parsed = parsedate(text)
    if parsed is None:
        return False
    day = days_of(parsed[0], parsed[1], parsed[2])
    return day is not None and key.low <= day <= key.high
