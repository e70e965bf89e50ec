"""The data directory's owner, whose rights a command of root takes where it makes or opens something there."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from fastmta.model.errors import ActFailed
from fastmta.runtime.identity import acting_as


@contextmanager
def acting_as_owner(directory: "str | os.PathLike[str]") -> Iterator[None]:
    """For as long as it lasts, root is the directory's owner: what is made belongs to the server's user, and no link
    that this user may have laid there leads anywhere that is not his.
    """
    owner = os.stat(directory)
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(acting_as(owner.st_uid, owner.st_gid, [owner.st_gid]))
        except OSError as error:
            raise ActFailed(f"cannot act as the owner of {directory}: {error.strerror}", "unavailable") from error
        yield
