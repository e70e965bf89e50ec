"""What root does in directories that the workers' user owns.

The workers' user owns the data directory, so whatever root does by path in there, that user can turn against any file
of the machine, by a link laid at the right moment. Two rules follow. What must be root's act, giving a file to the
user, is done at start only, through descriptors, for the names that FastMTA itself makes, and never through a link of
either kind. All else root does as that user (runtime/identity.py), and then a link leads nowhere that was not his
already.
"""

import os
import re
import stat
from pathlib import Path
from typing import Final

from fastmta.model.errors import ConfigError
from fastmta.runtime.identity import WorkersUser

# What a data directory holds, and whose files root may give to the workers' user. A new file belongs here too.
STORE_FILES: Final = ("data.mdb", "data.mdb.compacted", "data.mdb.compacted.part", "lock.mdb")
FILES: Final = frozenset(
    {*STORE_FILES, "lock", "hops.lock", "levels.lock", "open.lock", "writers.lock", "pop3.lock"}
) | {
    "srs.secrets",
    "greylist.table",
    "quotas.table",
}
_NONE: Final = re.compile(r"(?!)")
FOLDERS: Final = {  # names of the files in them that are the server's
    "bus": re.compile(r"\d+-\d+"),
    "running": re.compile(r"\.?\d+-\d+"),
    "index": re.compile(r"[0-9a-f]{1,16}\.fts(\.part)?|store|lock"),
    "public": _NONE,
    "trace": re.compile(r"\d{4}-\d{2}-\d{2}\.\d{3}\.jsonl(\.pruned)?"),
    "public/maildrop": _NONE,  # what lies there belongs to whoever has handed it in
}


def give(directory: Path, who: WorkersUser) -> list[str]:
    """Makes the data directory and the files that we know in it `who`'s; what could not be given, one line each."""
    fd = open_directory(directory)
    try:
        left: list[str] = []
        former = os.fstat(fd).st_uid
        if former != who.uid:
            os.chown(f"/proc/self/fd/{fd}", who.uid, who.gid)
        giving = _Giving(who, frozenset({0, former}), left)
        for name in FILES:
            giving.file(fd, name, str(directory))
        for name, known in FOLDERS.items():
            giving.folder(fd, name, known, str(directory))
        return left
    finally:
        os.close(fd)


class _Giving:
    """One round of `give`: to whom, from which owners, and what was left as it is."""

    def __init__(self, who: WorkersUser, owners: frozenset[int], left: list[str]) -> None:
        self._who = who
        self._owners = owners
        self._left = left

    def file(self, folder_fd: int, name: str, where: str) -> None:
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
        except FileNotFoundError:
            return
        try:
            found = os.fstat(fd)
            if found.st_uid == self._who.uid:
                return
            # A second name may be that of any file of the file system, as far as its owner let links be made.
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid not in self._owners:
                self._left.append(f"{where}/{name}: not a plain file of its own, left as it is")
                return
            os.chown(f"/proc/self/fd/{fd}", self._who.uid, self._who.gid)  # the inode held, whatever the name is now
        finally:
            os.close(fd)

    def folder(self, parent_fd: int, name: str, known: re.Pattern[str], where: str) -> None:
        above, slash, inner = name.partition("/")
        try:
            if slash:
                fd = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
                try:
                    self.folder(fd, inner, known, f"{where}/{above}")
                finally:
                    os.close(fd)
                return
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        except FileNotFoundError:
            return
        except OSError:  # a link, or no directory
            self._left.append(f"{where}/{name}: not a directory of its own, left as it is")
            return
        try:
            owner = os.fstat(fd).st_uid
            if owner not in {self._who.uid, *self._owners}:
                self._left.append(f"{where}/{name}: another user's, left as it is")
                return
            if owner != self._who.uid:
                os.fchown(fd, self._who.uid, self._who.gid)
            for each in os.listdir(fd):
                if known.fullmatch(each):
                    self.file(fd, each, f"{where}/{name}")
        finally:
            os.close(fd)


def open_directory(path: Path) -> int:
    """A descriptor of a directory; links are followed only where nobody but root, or we, could have laid them."""
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    trusted = {0, os.geteuid()}
    parts = path.absolute().parts[1:]
    fd = os.open("/", flags | os.O_PATH)
    for number, part in enumerate(parts, 1):
        follow = 0 if os.fstat(fd).st_uid in trusted else os.O_NOFOLLOW
        kind = os.O_RDONLY if number == len(parts) else os.O_PATH
        try:
            inner = os.open(part, flags | follow | kind, dir_fd=fd)
        except OSError as error:
            raise ConfigError(f"{path} cannot be opened: {part}: {error.strerror}") from None
        finally:
            os.close(fd)
        fd = inner
    return fd


def lies_with(path: str | Path, who: WorkersUser) -> bool:
    """Whether the workers' user could have laid this file there: then root reads it no better than he does."""
    absolute = Path(path).absolute()
    for folder in absolute.parents:
        try:
            if os.stat(folder).st_uid == who.uid:
                return True
        except OSError:
            continue
    return False
