"""An mbox file or a Maildir into mailboxes. Messages are streamed; commits overlap, in the order of the messages."""

import asyncio
import email.utils
import os
import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from fastmta import _mime
from fastmta._parser import normalize
from fastmta.imap.mailbox_name import BadName, canonical, decode, require_creatable
from fastmta.model.errors import ActFailed, FastMTAError, Refused
from fastmta.model.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from fastmta.model.uidl import dovecot_uidl, is_uidl, parse_own
from fastmta.operations.exporting import CODED_DOT, MAILDIR_FLAGS, PASSED, read_keywords, read_uidlist
from fastmta.operations.nofollow import directory, read_file

if TYPE_CHECKING:
    from fastmta.store import MailStore
    from fastmta.store.accounts import Account
    from fastmta.store.mailbox_names import Mailbox

_READ_BYTES: Final = 65_536
_HEADER_BYTES: Final = 1_048_576  # of an mbox message's header, looked through for Status fields
_COMMITS: Final = 64  # messages whose commit is under way
_COMMIT_BYTES: Final = 8 * 2**20
_STATUS_FIELDS: Final = (b"status", b"x-status", b"x-keywords", b"x-uid", b"x-imap", b"x-imapbase")
_STATUS_FLAGS: Final = {"R": SEEN, "A": ANSWERED, "F": FLAGGED, "T": DRAFT, "D": DELETED}
_FROM_LINE: Final = re.compile(rb"From .*\d\d?:\d\d.*\d{4}")
_FROM_DATE: Final = re.compile(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? .*")
_QUOTED_FROM: Final = re.compile(rb">+From ")
_UIDL: Final = re.compile(rb"^X-UIDL:[ \t]*(\S+)[ \t]*\r?\n(?![ \t])", re.IGNORECASE | re.MULTILINE)
_UID: Final = re.compile(rb"^X-UID:[ \t]*([1-9]\d{0,9})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_IMAP_BASE: Final = re.compile(rb"^X-IMAP(?:base)?:[ \t]*([1-9]\d{0,9})[ \t\r\n]", re.IGNORECASE | re.MULTILINE)
_UIDLIST_LINE: Final = re.compile(rb"([1-9]\d{0,9}) ([^:]*):(.+)\n")
_KEYWORD: Final = re.compile(r"[^\x00-\x20\x7f-\uffff(){%*\"\\\]]{1,128}")


class _Filer:
    """Files messages in one mailbox: `begin`, `feed` as often as wanted, `end`; at last `settle`."""

    def __init__(self, store: "MailStore", mailbox: "Mailbox") -> None:
        self._mailboxes = store.mailboxes
        self._mailbox = mailbox
        self._mailbox_id = mailbox.id
        self._uidls: set[bytes] | None = None  # that messages of the mailbox came with
        self._structure = _mime.Structure()
        self._commits: deque[tuple[asyncio.Task[object], int]] = deque()
        self._bytes = 0
        self.count = 0

    def begin(self) -> None:
        self._blob = self._mailboxes.new_blob()
        self._after_cr = False
        self._drained = asyncio.Event()
        self._blob.on_drain = self._drained.set

    async def feed(self, raw: bytes) -> None:
        """More of the message; bare newlines become CRLF."""
        data, self._after_cr = normalize(raw, self._after_cr)
        self._structure.feed(data)
        self._blob.feed(data)
        if self._blob.congested:
            self._drained.clear()
            await self._drained.wait()

    async def end(self, date_s: int, flags: int, keywords: list[str], uidl: bytes = b"") -> None:
        """The message is whole; one without a byte is none. POP3 calls it `uidl`, where nothing else is called so."""
        if self._blob.size == 0 and not self._after_cr:
            self.abandon()
            return
        if self._after_cr:
            self._structure.feed(b" ")
            self._blob.feed(b" ")
        names = sorted({k.lower(): k for k in keywords if _KEYWORD.fullmatch(k) and not k.startswith("\\")}.values())
        work = self._mailboxes.append(
            self._mailbox_id,
            self._blob,
            flags=flags,
            keywords=" ".join(names[:64]).encode(),
            internal_date_s=date_s,
            structure=self._structure.finish(),
            uidl=uidl if self._is_new(uidl) else b"",
        )
        # Each message is a unit of its own: a refused one takes no other with it, and the committer gathers them.
        size = self._blob.size
        task: asyncio.Task[object] = asyncio.create_task(work, name="import append")
        self._commits.append((task, size))
        self._bytes += size
        while len(self._commits) >= _COMMITS or (self._bytes > _COMMIT_BYTES and self._commits):
            await self._take()

    def _is_new(self, uidl: bytes) -> bool:
        """Whether a name may be kept: POP3 shows INBOX alone, and no two of its messages may have one name."""
        if self._mailbox.name != "INBOX" or not is_uidl(uidl):
            return False
        if self._uidls is None:
            self._uidls, after = set(), 0
            while page := self._mailboxes.uidls(self._mailbox_id, after):
                self._uidls.update(name for _, name in page)
                after = page[-1][0]
        own = parse_own(uidl)
        if own is not None and own[0] == self._mailbox.uid_validity:
            return False  # a message of this mailbox has it, or had it
        if uidl in self._uidls:
            return False
        self._uidls.add(uidl)
        return True

    def abandon(self) -> None:
        """The message that was begun is none."""
        self._blob.abandon()
        self._structure.clear()

    async def settle(self) -> int:
        """Waits for all commits; how many messages there are now."""
        while self._commits:
            await self._take()
        return self.count

    async def _take(self) -> None:
        task, size = self._commits.popleft()
        try:
            await task
        except FastMTAError as error:
            rest = [await _outcome(other) for other, _ in self._commits]
            self.count += sum(rest)
            reason = "the account's quota is used up" if isinstance(error, Refused) and error.code == "quota" else error
            raise ActFailed(f"{reason}; {self.count} messages were read before", "cannot_create") from error
        self._bytes -= size
        self.count += 1


async def _outcome(task: "asyncio.Task[object]") -> bool:
    try:
        await task
    except FastMTAError:
        return False
    return True


async def import_mbox(store: "MailStore", account: "Account", path: Path, mailbox: str) -> int:
    """Reads an mbox of any of the usual kinds into one mailbox; how many messages."""
    opened = read_file(path)
    if opened is None:
        raise ActFailed(f"{path} is not a regular file", "no_input")
    with opened as file:
        first = file.readline(_READ_BYTES)
        if first and not first.startswith(b"From "):
            raise ActFailed(f"{path} is not an mbox file: it does not begin with a From line", "invalid")
        filer = _Filer(store, await _mailbox(store, account, mailbox))
        if not first:
            return 0
        file.seek(0)
        validity = 0
        for raw_from, lines in mbox_messages(file):
            modified_s = int(os.fstat(file.fileno()).st_mtime)
            validity = await _import_mbox_message(filer, raw_from, lines, modified_s, validity)
        return await filer.settle()


def mbox_messages(file: BinaryIO) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    """Each message's From line, and its lines (or pieces of very long ones), which must be drawn before the next.

    A message begins at a line that looks like a From line behind an empty one; Content-Length is not believed. Quoting
    is undone as mboxrd has it.
    """
    following: list[bytes] = [file.readline(_READ_BYTES)]

    def lines() -> Iterator[bytes]:
        empty: list[bytes] = []  # an empty line is the separator's, if a From line or the end follows
        whole = True
        while line := file.readline(_READ_BYTES):
            if whole and empty and line.startswith(b"From ") and _FROM_LINE.match(line):
                following.append(line)
                return
            yield from empty
            empty.clear()
            if whole and line in (b"\n", b"\r\n"):
                empty.append(line)
            else:
                yield line[1:] if whole and _QUOTED_FROM.match(line) else line
            whole = line.endswith(b"\n")

    while following:
        yield following.pop(), lines()


async def _import_mbox_message(
    filer: _Filer, raw_from: bytes, lines: Iterator[bytes], modified_s: int, validity: int
) -> int:
    """The UIDVALIDITY that the file has told so far: in its first message, or before."""
    filer.begin()
    top: list[bytes] = []
    size = 0
    for line in lines:
        top.append(line)
        size += len(line)
        if line in (b"\n", b"\r\n") or size > _HEADER_BYTES:
            break
    header = b"".join(top)
    fields = _mime.header_fields(header, _STATUS_FIELDS)
    uidl = b""
    if size <= _HEADER_BYTES:
        header, uidl = _without_uidl(header)
        if fields != b"\r\n":
            header = _mime.header_fields(header, _STATUS_FIELDS, True)
    told = _IMAP_BASE.search(fields)
    validity = int(told[1]) if told is not None else validity
    uid = _UID.search(fields)
    if not uidl and uid is not None and validity:
        uidl = dovecot_uidl(validity, int(uid[1]))
    await filer.feed(header)
    block: list[bytes] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= _READ_BYTES:
            await filer.feed(b"".join(block))
            block.clear()
            size = 0
    await filer.feed(b"".join(block))
    if re.search(rb"^X-IMAP(?:base)?:", fields, re.I | re.M) and b"DON'T DELETE THIS MESSAGE" in header:
        filer.abandon()  # the place where some servers keep their own data
        return validity
    status = "".join(_values(fields, b"status") + _values(fields, b"x-status"))
    flags = 0
    for letter, bit in _STATUS_FLAGS.items():
        if letter in status:
            flags |= bit
    date_s = _date_of(_FROM_DATE.search(raw_from), header, modified_s)
    await filer.end(date_s, flags, " ".join(_values(fields, b"x-keywords")).split(), uidl)
    return validity


def _without_uidl(header: bytes) -> tuple[bytes, bytes]:
    """A header without the first X-UIDL, and that: a server has written it there, as our export does; a further one is
    the message's own."""
    found = _UIDL.search(header)
    if found is None or not is_uidl(found[1]):
        return header, b""
    return header[: found.start()] + header[found.end() :], found[1]


def _values(fields: bytes, name: bytes) -> list[str]:
    raw = _mime.header_fields(fields, (name,))
    return [line.partition(b":")[2].decode("ascii", "replace").strip() for line in raw.splitlines() if b":" in line]


def _date_of(from_date: "re.Match[bytes] | None", header: bytes, otherwise_s: int) -> int:
    """When the message arrived: by its From line, else by its Date field, else when the file was written."""
    candidates = [from_date.group().decode("ascii", "replace")] if from_date else []
    candidates += _values(header, b"date")
    for text in candidates:
        parsed = email.utils.parsedate_tz(text)
        if parsed is not None:
            try:
                seconds = int(email.utils.mktime_tz(parsed))
            except (ValueError, OverflowError):
                continue
            if 0 <= seconds < 1 << 40:
                return seconds
    return otherwise_s


async def import_maildir(store: "MailStore", account: "Account", path: Path, mailbox: str | None) -> int:
    """Reads a Maildir++ with its folders; how many messages."""
    with directory(path) as top:
        names = [e.name for e in os.scandir(top) if e.name.startswith(".") and e.is_dir(follow_symlinks=False)]
        folders = [(name, _mailbox_name(name)) for name in sorted(names)]
        for _, name in folders:
            _require_name(f"{mailbox}/{name}" if mailbox else name)  # before anything is read
        if not folders and not {"cur", "new"}.intersection(os.listdir(top)):
            raise ActFailed(f"{path} is not a Maildir: it has neither cur nor new", "invalid")
        count = await _import_folder(store, account, top, mailbox or "INBOX")
        for folder_name, name in folders:
            with directory(folder_name, top) as folder:
                count += await _import_folder(store, account, folder, f"{mailbox}/{name}" if mailbox else name)
    return count


async def _import_folder(store: "MailStore", account: "Account", folder: int, name: str) -> int:
    filer = _Filer(store, await _mailbox(store, account, name))
    letters = read_keywords(folder)
    uidls = _maildir_uidls(folder) if name == "INBOX" else {}
    with ExitStack() as stack:
        found: list[tuple[float, str, int]] = []
        for part in ("cur", "new"):
            try:
                fd = stack.enter_context(directory(part, folder))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in os.scandir(fd):
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name, fd))
        for _, file_name, fd in sorted(found):  # oldest first
            await _import_maildir_file(filer, file_name, fd, letters, uidls)
    return await filer.settle()


def _maildir_uidls(folder: int) -> dict[str, bytes]:
    """What POP3 called the messages of a Maildir, by the names of their files without flags."""
    found = read_uidlist(folder)
    out: dict[str, bytes] = {}
    if found is not None:
        (validity, _), lines = found
        for line in lines:
            match = _UIDLIST_LINE.fullmatch(line)
            if match is not None:
                given = next((word[1:] for word in match[2].split() if word[:1] == b"P"), b"")
                out[os.fsdecode(match[3].partition(b":")[0])] = given or dovecot_uidl(validity, int(match[1]))
    return out


def _mailbox_name(directory: str) -> str:
    """The mailbox of a Maildir++ folder's name, which may be no modified UTF-7 at all."""
    levels = []
    for level in directory[1:].split("."):
        try:
            levels.append(decode(os.fsencode(level.replace(CODED_DOT, "."))))
        except BadName:
            levels.append(os.fsencode(level).decode("utf-8", "replace"))
    return canonical("/".join(levels))


async def _import_maildir_file(
    filer: _Filer, name: str, above: int, letters: dict[str, str], uidls: dict[str, bytes]
) -> None:
    try:
        opened = read_file(name, above)
    except FileNotFoundError:
        return  # its reader has moved it meanwhile
    if opened is None:
        return
    with opened as file:
        status = os.fstat(file.fileno())
        filer.begin()
        while data := file.read(_READ_BYTES):
            await filer.feed(data)
    info = name.partition(":2,")[2].partition(",")[0]
    flags = 0
    for bit, letter in MAILDIR_FLAGS:
        if letter in info:
            flags |= bit
    keywords = [letters[letter] for letter in info if letter in letters]
    if "P" in info:
        keywords.append(PASSED)
    uidl = uidls.get(name.partition(":")[0], b"")
    await filer.end(int(status.st_mtime) or int(time.time()), flags, keywords, uidl)


def _require_name(name: str) -> None:
    try:
        require_creatable(canonical(name))
    except BadName as error:
        raise ActFailed(f"{name}: {error}", "invalid") from error


async def _mailbox(store: "MailStore", account: "Account", name: str) -> "Mailbox":
    """The mailbox of that name, made and subscribed to where it is missing."""
    name = canonical(name)
    found = store.mailboxes.get(account.id, name)
    if found is None:
        _require_name(name)
        found = await store.mailboxes.create(account.id, name)
        await store.mailboxes.subscribe(account.id, name)
    return found
