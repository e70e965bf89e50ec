"""Whether new mail may be taken in: the disk's free space against queue_minfree, looked at once a second.

Below it new mail gets 452 4.3.1 while reading and deleting go on. Pages that the store has freed inside its file count
as free space, since a full disk that mail was deleted from would otherwise refuse for ever; but a quarter of the
reserve must be free on the disk itself, because such pages do not fit every message. What comes between two looks the
store's committer refuses by itself: it is told the reserve.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastmta.runtime.log import Log

if TYPE_CHECKING:
    from fastmta.config.schema import Config
from fastmta.store import MINFREE_FLOOR

MESSAGE_SHARE: Final = 1.5  # of message_size_limit: Postfix's own advice for queue_minfree
DISK_SHARE: Final = 0.01
TINY_SHARE: Final = 0.25  # no default asks for more than this of a disk
RESUME_SHARE: Final = 1.05  # above the bound by this much before mail is taken again, so that it does not flutter


class StorageWatch:
    """The verdict of the last look; `ok` is cheap and asked for each message."""

    def __init__(
        self,
        config: "Config",
        log: Log,
        reusable_bytes: Callable[[], int] = lambda: 0,
        set_reserve: Callable[[int], None] = lambda reserve_bytes: None,
        reap_soon: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = log
        self._reusable_bytes = reusable_bytes
        self._set_reserve = set_reserve
        self._reap_soon = reap_soon
        self.trouble = ""
        self.configure(config)

    def configure(self, config: "Config") -> None:
        """Takes over changed settings; 0 lets us choose by the size of the disk and of a message."""
        self._path = config.data_directory
        self._minfree = config.queue_minfree
        self.minfree_bytes = config.queue_minfree  # as it is worked out, from the first look on
        self._message_size_limit = config.message_size_limit
        self.look()

    def ok(self) -> bool:
        """Whether there is room for new mail."""
        return not self.trouble

    def look(self) -> None:
        """Looks at the disk; may block for the microseconds of a statvfs."""
        try:
            disk = os.statvfs(self._path)
        except OSError as error:
            self._say(f"the data directory cannot be looked at: {error.strerror}")
            return
        total = disk.f_blocks * disk.f_frsize
        on_disk = disk.f_bavail * disk.f_frsize
        wanted = self.minfree_bytes = self._minfree or int(
            min(max(MESSAGE_SHARE * self._message_size_limit, DISK_SHARE * total), TINY_SHARE * total)
        )
        self._set_reserve(wanted)
        bound = wanted * (RESUME_SHARE if self.trouble else 1.0)
        free = on_disk if on_disk >= bound else on_disk + self._reusable_bytes()
        if free < bound or on_disk < wanted * MINFREE_FLOOR:
            self._say(f"free space {free} bytes, {on_disk} of them on the disk itself, is below queue_minfree {wanted}")
            self._reap_soon()  # what was deleted shall make room now
        else:
            self._say("")

    def _say(self, trouble: str) -> None:
        if bool(trouble) != bool(self.trouble):
            if trouble:
                self._log.error("storage.low", reason=trouble, effect="new mail gets 452 4.3.1")
            else:
                self._log.info("storage.recovered")
        self.trouble = trouble
