"""Mailboxes to an mbox file or a Maildir; line ends become LF, the local convention of both."""

import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from fastmta.imap.mailbox_name import encode
from fastmta.model.errors import ActFailed
from fastmta.model.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from fastmta.model.uidl import FILE as UIDLIST
from fastmta.model.uidl import own_uidl
from fastmta.operations.nofollow import directory, new_file, read_file

if TYPE_CHECKING:
    from fastmta.store.mailbox_names import Mailbox
    from fastmta.store.mailboxes import Mailboxes, MessageRow
    from fastmta.store.pace import Pace

MAILDIR_FLAGS: Final = ((DRAFT, "D"), (FLAGGED, "F"), (ANSWERED, "R"), (SEEN, "S"), (DELETED, "T"))
PASSED: Final = "$Forwarded"  # Maildir's P
KEYWORDS_FILE: Final = "dovecot-keywords"
CODED_DOT: Final = "&AC4-"  # a "." within a level of a mailbox name
KEYWORD_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_READ_BYTES: Final = 262_144
_UIDLIST_BYTES: Final = 256 << 20  # of a list of uids, some 100 octets a message
_UIDLIST_HEAD: Final = re.compile(rb"3 V(\d{1,10}) N(\d{1,10})(?: .*)?\n")
_FROM_LINE: Final = re.compile(rb"^(>*From )", re.MULTILINE)
_RETURN_PATH: Final = re.compile(rb"^Return-Path:[ \t]*<([^>\s]+)>", re.IGNORECASE | re.MULTILINE)


def export_mbox(mailboxes: "Mailboxes", boxes: "Iterable[Mailbox]", path: Path, pace: "Pace") -> int:
    """Writes all messages into one new file, which is removed again if that fails."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise ActFailed(f"{path} exists", "cannot_create") from None
    count = 0
    try:
        with open(descriptor, "wb") as file:
            for box in boxes:
                for row in _rows(mailboxes, box, pace):
                    count += _write_mbox_message(mailboxes, box, row, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return count


def _write_mbox_message(mailboxes: "Mailboxes", box: "Mailbox", row: "MessageRow", file: BinaryIO) -> int:
    chunks = _chunks(mailboxes, box.id, row)
    first = next(chunks, None)
    if first is None:
        return 0  # expunged meanwhile
    sender = _RETURN_PATH.search(row.prefix)
    file.write(b"From %s %s\n" % (sender.group(1) if sender else b"MAILER-DAEMON", _asctime(row.internal_date_s)))
    file.write(_status_fields(row))
    if box.name == "INBOX":  # what POP3 shows
        file.write(b"X-UIDL: %s\n" % _uidl(mailboxes, box, row))
    ends_line = True
    for block, inside in unix_blocks(_then(first, chunks)):
        skip = block.find(b"\n") + 1 or len(block) if inside else 0
        file.write(block[:skip] + _FROM_LINE.sub(rb">\1", block[skip:]))
        ends_line = block.endswith(b"\n")
    file.write(b"\n" if ends_line else b"\n\n")
    return 1


def _uidl(mailboxes: "Mailboxes", box: "Mailbox", row: "MessageRow") -> bytes:
    return mailboxes.uidl(box.id, row.uid) or own_uidl(box.uid_validity, row.uid)


def _status_fields(row: "MessageRow") -> bytes:
    """What mail readers keep flags in; `Status: O` says that the message is not new."""
    x_status = "".join(
        letter for bit, letter in ((ANSWERED, "A"), (FLAGGED, "F"), (DRAFT, "T"), (DELETED, "D")) if row.flags & bit
    )
    out = b"Status: RO\n" if row.flags & SEEN else b"Status: O\n"
    if x_status:
        out += b"X-Status: %s\n" % x_status.encode()
    if row.keywords:
        out += b"X-Keywords: %s\n" % row.keywords
    return out


def export_maildir(mailboxes: "Mailboxes", boxes: "Iterable[Mailbox]", path: Path, pace: "Pace", *, flat: bool) -> int:
    """Adds all messages to a Maildir++; `flat`: to its top, else INBOX there and every other mailbox in a folder."""
    count = 0
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with directory(path) as top:
        for box in boxes:
            if flat or box.name == "INBOX":
                count += _export_folder(mailboxes, box, top, pace)
                continue
            with directory(folder_name(box.name), top, create=True) as folder:
                with suppress(FileExistsError):
                    new_file("maildirfolder", folder).close()
                count += _export_folder(mailboxes, box, folder, pace)
    return count


def _export_folder(mailboxes: "Mailboxes", box: "Mailbox", folder: int, pace: "Pace") -> int:
    count = 0
    letters = {name: letter for letter, name in read_keywords(folder).items()}
    uidls: list[bytes] = []
    known = len(letters)
    with (
        directory("new", folder, create=True),
        directory("tmp", folder, create=True) as tmp,
        directory("cur", folder, create=True) as cur,
    ):
        for row in _rows(mailboxes, box, pace):
            name = _write_maildir_message(mailboxes, box, row, tmp, cur, letters)
            count += bool(name)
            if name and box.name == "INBOX":
                uidls.append(b"W%d P%s :%s\n" % (row.size, _uidl(mailboxes, box, row), os.fsencode(name)))
    if len(letters) > known:
        _write_keywords(folder, letters)
    if uidls:
        _write_uidls(folder, box, uidls)
    return count


def _write_uidls(folder: int, box: "Mailbox", added: list[bytes]) -> None:
    """Adds lines to the folder's list of uids, in the form of Dovecot 2: what POP3 calls a message stands behind P."""
    head, lines = read_uidlist(folder) or ((box.uid_validity, 1), [])
    validity, uid = head
    temporary = f"{UIDLIST}.{os.getpid()}.{time.time_ns()}"
    with new_file(temporary, folder) as file:
        file.write(b"3 V%d N%d\n" % (validity, uid + len(added)))
        file.writelines(lines)
        file.writelines(b"%d %s" % (uid + number, line) for number, line in enumerate(added))
    os.rename(temporary, UIDLIST, src_dir_fd=folder, dst_dir_fd=folder)


def read_uidlist(folder: int) -> tuple[tuple[int, int], list[bytes]] | None:
    """(UIDVALIDITY, next uid) and the lines of a folder's list of uids; None where there is none of Dovecot's form."""
    try:
        opened = read_file(UIDLIST, folder)
    except OSError:
        opened = None
    if opened is None:
        return None
    with opened as file:
        first = _UIDLIST_HEAD.fullmatch(file.readline(1000))
        if first is None:
            return None
        return (int(first[1]), int(first[2])), file.read(_UIDLIST_BYTES).splitlines(keepends=True)


def folder_name(name: str) -> str:
    """Maildir++'s directory of a mailbox: levels joined by dots, so a dot within one is written in modified UTF-7."""
    return "." + ".".join(encode(level).decode("ascii").replace(".", CODED_DOT) for level in name.split("/"))


def read_keywords(folder: int) -> dict[str, str]:
    """Letter to keyword by the folder's keywords file; what is not of its form is passed over."""
    out: dict[str, str] = {}
    try:
        file = read_file(KEYWORDS_FILE, folder)
    except OSError:
        file = None
    if file is None:
        return out
    with file:
        for raw in file.read(65_536).splitlines():
            number, _, name = raw.decode("ascii", "replace").partition(" ")
            if number.isdigit() and len(number) < 3 and int(number) < len(KEYWORD_LETTERS) and name:
                out[KEYWORD_LETTERS[int(number)]] = name
    return out


def _write_keywords(folder: int, letters: dict[str, str]) -> None:
    """Replaces the keywords file, or whatever bears its name."""
    temporary = f"{KEYWORDS_FILE}.{os.getpid()}.{time.time_ns()}"
    with new_file(temporary, folder) as file:
        for name in sorted(letters, key=letters.__getitem__):
            file.write(b"%d %s\n" % (KEYWORD_LETTERS.index(letters[name]), name.encode("ascii", "replace")))
    os.rename(temporary, KEYWORDS_FILE, src_dir_fd=folder, dst_dir_fd=folder)


def _write_maildir_message(
    mailboxes: "Mailboxes", box: "Mailbox", row: "MessageRow", tmp: int, cur: int, letters: dict[str, str]
) -> str:
    """The name of its file without flags; "" where it has gone."""
    chunks = _chunks(mailboxes, box.id, row)
    first = next(chunks, None)
    if first is None:
        return ""
    flags = [letter for bit, letter in MAILDIR_FLAGS if row.flags & bit]
    for keyword in row.keywords.decode("ascii", "replace").split():
        if keyword == PASSED:
            flags.append("P")
        elif keyword in letters:
            flags.append(letters[keyword])
        else:
            free = [letter for letter in KEYWORD_LETTERS if letter not in letters.values()]
            if free:  # the format has room for 26
                letters[keyword] = free[0]
                flags.append(free[0])
    host = socket.gethostname().replace("/", "\\057").replace(":", "\\072")
    # The uid has leading zeros: names in order of text are messages in order of arrival, within a second too.
    unique = f"{row.internal_date_s}.V{box.uid_validity}U{row.uid:010}P{os.getpid()}T{time.time_ns()}.{host}"
    try:
        with new_file(unique, tmp) as file:
            for block, _ in unix_blocks(_then(first, chunks)):
                file.write(block)
            file.flush()
            os.utime(file.fileno(), (row.internal_date_s, row.internal_date_s))
            size = os.fstat(file.fileno()).st_size
        name = f"{unique},S={size}"
        os.rename(unique, f"{name}:2,{''.join(sorted(flags))}", src_dir_fd=tmp, dst_dir_fd=cur)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(unique, dir_fd=tmp)
        raise
    return name


def unix_blocks(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The same bytes with LF for CRLF, in blocks of whole lines, and whether a block begins within a line: one that is
    longer than a read is cut.
    """
    rest = b""
    inside = False
    for chunk in chunks:
        rest += chunk
        end = rest.rfind(b"\n") + 1
        if end:
            yield rest[:end].replace(b"\r\n", b"\n"), inside
            inside = False
        elif len(rest) >= _READ_BYTES:
            end = len(rest) - rest.endswith(b"\r")
            yield rest[:end], inside
            inside = True
        rest = rest[end:]
    if rest:
        yield rest, inside


def _rows(mailboxes: "Mailboxes", box: "Mailbox", pace: "Pace") -> "Iterator[MessageRow]":
    """The messages of a mailbox, with rests in between for the server's sake."""
    uids = mailboxes.uids(box.id)
    for start in range(0, len(uids), 1000):
        for row in mailboxes.rows(box.id, uids[start : start + 1000]):
            yield row
            pace.rest()


def _chunks(mailboxes: "Mailboxes", mailbox_id: int, row: "MessageRow") -> Iterator[bytes]:
    """A message's bytes; nothing where it is gone."""
    offset = 0
    while offset < row.size:
        chunk = mailboxes.read(mailbox_id, row.uid, offset, _READ_BYTES)
        if not chunk:
            if offset:
                raise ActFailed(f"message {row.uid} went away while it was written", "cannot_create")
            return
        offset += len(chunk)
        yield chunk


def _then(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _asctime(seconds: int) -> bytes:
    return time.asctime(time.gmtime(seconds)).encode()
