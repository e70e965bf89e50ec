"""The spool: where every local user may leave a message for the server, and what such a file holds.

    data_directory/public/            everybody may pass
                          maildrop/   everybody may create a file, nobody but the server may list or remove others'
                          pickup      a datagram here wakes whoever picks up
                          queue       asks a running server for the queue (operations/public.py)

A file is written under a name that begins with a dot, flushed, made readable, and renamed to 32 hexadecimal digits
that nobody can guess; then its directory is flushed. From that moment the message is promised, with the server up or
down. The file's owner, by the kernel's word, is who handed it in; everything else in it is that user's claim.

`sendmail` imports this module, so it stays small: no msgspec, no asyncio.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, NamedTuple

from fastmta.model.errors import FastMTAError
from fastmta.model.limits import SENDMAIL_RECIPIENTS, SPOOL_LINE_BYTES, SPOOL_NAME_DIGITS

PUBLIC: Final = "public"
MAILDROP: Final = "maildrop"
WAKE: Final = "pickup"
QUEUE_SOCKET: Final = "queue"
MAGIC: Final = b"FastMTA spool 1\n"
READ_BYTES: Final = 65_536
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_HEX: Final = frozenset("0123456789abcdef")


class NoSpool(FastMTAError):
    """There is no spool directory that this user can use."""


class TooBig(FastMTAError):
    """The message is larger than message_size_limit."""


class BadSpoolFile(FastMTAError):
    """Not a file that our `sendmail` has written; the text says why."""


class Drop(NamedTuple):
    """One recipient. `notify` are NOTIFY_* bits, 0: not given; `orcpt` is RFC 3461's, with its type."""

    address: str
    notify: int = 0
    orcpt: str = ""


class Ticket(NamedTuple):
    """What stands in front of a spooled message. `sender` is as it was given: bare, or "" for the null path."""

    sender: str
    recipients: list[Drop]
    full_name: str = ""
    envid: str = ""
    ret: str = ""
    verify: bool = False  # no delivery: a report on the recipients is wanted

    def encode(self) -> bytes:
        lines = [f"S{self.sender}"]
        for letter, value in (("F", self.full_name), ("E", self.envid), ("T", self.ret)):
            if value:
                lines.append(letter + value)
        if self.verify:
            lines.append("V")
        for each in self.recipients:
            lines.append(f"R{each.address}")
            if each.notify:
                lines.append(f"N{each.notify}")
            if each.orcpt:
                lines.append(f"O{each.orcpt}")
        return MAGIC + "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n\n"


def read_ticket(file: BinaryIO) -> Ticket:
    """The ticket of an open spool file, which stands at its content afterwards. Raises BadSpoolFile."""
    if file.read(len(MAGIC)) != MAGIC:
        raise BadSpoolFile("it was not written by sendmail")
    given: dict[str, str] = {}
    recipients: list[Drop] = []
    while (line := file.readline(SPOOL_LINE_BYTES + 1)) != b"\n":
        if not line.endswith(b"\n") or len(recipients) > SENDMAIL_RECIPIENTS:
            raise BadSpoolFile("its envelope is too long or not whole")
        text = line[:-1].decode("utf-8", "surrogateescape")
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            raise BadSpoolFile("its envelope holds control characters")
        letter, value = text[:1], text[1:]
        if letter == "R":
            recipients.append(Drop(value))
        elif letter in "NO" and recipients:
            last = recipients[-1]
            if letter == "O":
                recipients[-1] = last._replace(orcpt=value)
            elif len(value) <= 2 and value.isascii() and value.isdigit() and int(value) < 16:
                recipients[-1] = last._replace(notify=int(value))
        else:
            given[letter] = value
    if "S" not in given or not recipients:
        raise BadSpoolFile("it names no sender or no recipient")
    return Ticket(
        given["S"],
        recipients,
        given.get("F", ""),
        given.get("E", ""),
        given["T"] if given.get("T") in ("FULL", "HDRS") else "",
        "V" in given,
    )


def make_spool(data_directory: str) -> int:
    """Makes what is missing of the directories, as the owner of the data directory, and lets everybody pass to them.

    Gives a descriptor of the maildrop. OSError where the owner may not; nothing is reached through a link.
    """
    base = os.open(data_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mode = stat.S_IMODE(os.fstat(base).st_mode)
        if mode & 0o011 != 0o011:
            os.fchmod(base, mode | 0o011)
        public = _directory(PUBLIC, base, 0o755)
        try:
            return _directory(MAILDROP, public, 0o1733)
        finally:
            os.close(public)
    finally:
        os.close(base)


def _directory(name: str, above: int, mode: int) -> int:
    try:
        os.mkdir(name, mode, dir_fd=above)
    except FileExistsError:
        pass
    found = os.open(name, _OPEN, dir_fd=above)
    if stat.S_IMODE(os.fstat(found).st_mode) != mode:
        os.fchmod(found, mode)
    return found


def enter(data_directory: str) -> int:
    """A descriptor of `public`, to reach names in it; NoSpool where it is not there or may not be passed."""
    try:
        base = os.open(data_directory, _PASS)
        try:
            return os.open(PUBLIC, _PASS | os.O_NOFOLLOW, dir_fd=base)
        finally:
            os.close(base)
    except OSError as error:
        raise NoSpool(f"{data_directory}/{PUBLIC}: {error.strerror}") from error


def deposit(data_directory: str, ticket: Ticket, content: Iterable[bytes], size_limit: int) -> None:
    """Writes a message to the spool; when this returns it is on stable storage, and a running server is told.

    `content` is the message with whatever line ends it has; `size_limit` in bytes, 0: none. Raises NoSpool, TooBig, or
    OSError, and then nothing is left behind.
    """
    public = enter(data_directory)
    try:
        try:
            maildrop = os.open(MAILDROP, _PASS | os.O_NOFOLLOW, dir_fd=public)
        except OSError as error:
            raise NoSpool(f"{data_directory}/{PUBLIC}/{MAILDROP}: {error.strerror}") from error
        try:
            _write(maildrop, ticket, content, size_limit)
        finally:
            os.close(maildrop)
        _wake(public)
    finally:
        os.close(public)


def _write(maildrop: int, ticket: Ticket, content: Iterable[bytes], size_limit: int) -> None:
    name = os.urandom(SPOOL_NAME_DIGITS // 2).hex()
    hidden = f".{name}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(hidden, flags, 0o600, dir_fd=maildrop)
    called = hidden
    try:
        with open(fd, "wb") as file:
            file.write(ticket.encode())
            size = 0
            for piece in content:
                size += len(piece)
                if size_limit and size > size_limit:
                    raise TooBig(f"message file too big: more than {size_limit} bytes")
                file.write(piece)
            file.flush()
            os.fchmod(fd, 0o444)  # the server is another user; who is not cannot know the name
            os.fsync(fd)
            os.rename(hidden, name, src_dir_fd=maildrop, dst_dir_fd=maildrop)
            called = name
            _flush_name(fd, maildrop)
    except BaseException:
        try:
            os.unlink(called, dir_fd=maildrop)
        except OSError:
            pass
        raise


def _flush_name(fd: int, maildrop: int) -> None:
    """Makes a rename durable. Who may not list a directory cannot open it for fsync(2); the renamed file's own fsync
    takes the rename along, since that is the last change of its inode (ext4, XFS and btrfs keep it so).
    """
    try:
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=maildrop)
    except PermissionError:
        os.fsync(fd)
        return
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _wake(public: int) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.sendto(b"", f"/proc/self/fd/{public}/{WAKE}")
        except OSError:
            return  # nobody serves, or is told often enough: the directory is looked at each second


def open_maildrop(data_directory: str) -> int:
    """A descriptor of the maildrop, for who may list it. OSError otherwise."""
    base = os.open(data_directory, _PASS)
    try:
        public = os.open(PUBLIC, _PASS | os.O_NOFOLLOW, dir_fd=base)
        try:
            return os.open(MAILDROP, _OPEN, dir_fd=public)
        finally:
            os.close(public)
    finally:
        os.close(base)


@contextmanager
def open_file(maildrop: int, name: str) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """A spool file and its status. It may be changed under us by its owner, who harms nobody else: each byte is read
    once. Raises FileNotFoundError, or BadSpoolFile for what is no plain file with one name.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=maildrop)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadSpoolFile(f"it cannot be opened: {error.strerror}") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(fd)
        raise BadSpoolFile("it is not a plain file with one name")
    with open(fd, "rb", buffering=READ_BYTES) as file:
        yield file, status


def is_spool_name(name: str) -> bool:
    return len(name) == SPOOL_NAME_DIGITS and _HEX.issuperset(name)
