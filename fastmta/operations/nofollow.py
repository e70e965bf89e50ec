"""Files below a directory that its user may change while root reads or writes there: each step is opened by its name
in the directory above, and a symbolic link is never followed. Only the path that a command was given is resolved, its
last name excepted.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def directory(name: str | Path, above: int | None = None, *, create: bool = False) -> Iterator[int]:
    """A descriptor of the directory `name` in `above`; NotADirectoryError for anything else, a link included."""
    if create:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=above)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(name)) from None
        raise
    try:
        yield fd
    finally:
        os.close(fd)


def read_file(name: str | Path, above: int | None = None) -> BinaryIO | None:
    """The regular file `name` in `above`; None for anything else, a link or a pipe, which is not waited for."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return open(fd, "rb")


def new_file(name: str | Path, above: int | None = None) -> BinaryIO:
    """A file that was not there, private to its owner; FileExistsError for whatever bears the name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(name, flags, 0o600, dir_fd=above), "wb")
