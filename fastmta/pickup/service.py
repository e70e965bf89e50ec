"""Picks up what local users leave in the spool. One worker does it: whoever holds the lock of the maildrop.

Files are taken when a datagram wakes us and at least once a second, some side by side so that their commits share a
transaction. A file is removed only after its message is committed; whoever is killed in between picks it up again. The
directory is one that hostile users may write to: every step is relative to its descriptor, nothing is followed, and
each look costs a bounded number of names before others get their turn.
"""

import asyncio
import fcntl
import os
import pwd
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO, Final, NamedTuple

from fastmta.model.envelope import NOTIFY_NEVER
from fastmta.model.errors import Refused, StorageFailure, TemporaryFailure
from fastmta.model.limits import (
    POSTED_AT_ONCE,
    SMTP_RECIPIENTS,
    SPOOL_ABANDONED_S,
    SPOOL_AT_ONCE,
    SPOOL_ENTRIES_A_TURN,
    SPOOL_FAILED,
    SPOOL_LINE_BYTES,
    SPOOL_RETRY_S,
    SPOOL_WAKE_S,
)
from fastmta.pickup import long_posting, report
from fastmta.pickup.intake import Handed, post, resolve
from fastmta.pickup.letter import READ_BYTES, BadLetter, Letter
from fastmta.pickup.seams import PublicFace, Services
from fastmta.pickup.sockets import bind
from fastmta.pickup.spool import (
    PUBLIC,
    WAKE,
    BadSpoolFile,
    Drop,
    Ticket,
    enter,
    is_spool_name,
    make_spool,
    open_file,
    read_ticket,
)
from fastmta.policy.judge import Judge
from fastmta.runtime import crash
from fastmta.runtime.metrics import METRICS

_LOGGED_A_LOOK: Final = 10  # files that are no mail, line by line; the rest is counted


class Found(NamedTuple):
    """A spool file opened and its header read; `uid` is its owner."""

    uid: int
    opened: ExitStack  # closes the file
    ticket: Ticket
    letter: Letter


class Pickup:
    """The spool of one worker's data directory; idle where a sibling has the lock."""

    def __init__(self, services: Services, face: PublicFace | None = None) -> None:
        """`face` listens in the public directory while this worker has the lock."""
        self._services = services
        self._judge = Judge("pickup", services)
        self._maildrop = -1
        self._locked = False
        self._trouble = ""
        self._wake: socket.socket | None = None
        self._face = face
        self._running: asyncio.Task[None] | None = None
        self._asked = False
        self._active = False
        self._tidied = False  # notes of files that are gone have been given up
        self._failed: dict[str, float] = {}  # name -> when it may be tried again
        self._bad = 0
        self._bulk = asyncio.Lock()

    # --- a worker's life ---

    def start(self) -> None:
        """From now on this worker may pick up."""
        self._active = True
        self.tick()

    async def stop(self) -> None:
        """Ends after the messages under way, and lets a sibling have the spool."""
        self._active = False
        if self._running is not None:
            await asyncio.wait([self._running])
        if self._face is not None:
            self._face.close()
        if self._wake is not None:
            self._services.loop.remove_reader(self._wake.fileno())
            self._wake.close()
            self._wake = None
        if self._maildrop >= 0:
            os.close(self._maildrop)
        self._maildrop, self._locked = -1, False

    def reload(self, services: Services) -> None:
        self._services = services
        self._judge.configure(services)

    def tick(self) -> None:
        """Once a second: takes the lock if it is free, and looks."""
        if not self._active:
            return
        try:
            if not self._locked and not self._lock():
                return
        except OSError as error:
            self._say(f"{error.filename or PUBLIC}: {error.strerror}")
            return
        self._say("")
        self._look()

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            self._services.log.error("pickup.closed", reason=trouble, effect="sendmail cannot hand in mail")
        self._trouble = trouble

    def _lock(self) -> bool:
        """Takes the maildrop's lock, which only who may list it can ask for, and binds the sockets beside it."""
        if self._maildrop < 0:
            self._maildrop = make_spool(self._services.config.data_directory)
        try:
            fcntl.flock(self._maildrop, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        public = enter(self._services.config.data_directory)
        try:
            self._wake = bind(public, WAKE, socket.SOCK_DGRAM)
            if self._face is not None:
                self._face.open(public)
        finally:
            os.close(public)
        self._locked = True
        self._services.loop.add_reader(self._wake.fileno(), self._woken)
        return True

    def _woken(self) -> None:
        """Looks, and hears nothing more for a moment: a user who wakes us for ever costs a hundred looks a second."""
        wake = self._wake
        if wake is None:
            return
        self._services.loop.remove_reader(wake.fileno())
        self._services.loop.call_later(SPOOL_WAKE_S, self._listen, wake)
        try:
            while True:
                wake.recv(1)
        except OSError:
            pass
        self._look()

    def _listen(self, wake: socket.socket) -> None:
        if wake is self._wake:
            self._services.loop.add_reader(wake.fileno(), self._woken)

    def _look(self) -> None:
        """Begins a pass over the directory, or another one behind the one that runs."""
        if self._running is not None:
            self._asked = True
        elif self._active and self._services.storage_ok():
            self._running = self._services.tasks.spawn("pickup", self._pass())
            self._running.add_done_callback(self._passed)

    def _passed(self, _: asyncio.Task[None]) -> None:
        self._running = None
        if self._asked:
            self._asked = False
            self._look()

    # --- a pass ---

    async def _pass(self) -> None:
        self._bad = 0
        if not self._tidied:
            self._tidied = True
            await long_posting.tidy(self._services, self._is_there)
        names: list[str] = []
        taken = 0
        with os.scandir(self._maildrop) as entries:
            for seen, entry in enumerate(entries, 1):
                if self._is_due(entry.name):
                    names.append(entry.name)
                if len(names) >= SPOOL_AT_ONCE:
                    taken += await self._take_all(names)
                    names.clear()
                    if not self._active or not self._services.storage_ok():
                        break
                elif seen % SPOOL_ENTRIES_A_TURN == 0:
                    await asyncio.sleep(0)
            else:
                taken += await self._take_all(names)
        if taken:
            await self._services.loop.run_in_executor(None, os.fsync, self._maildrop)
        if self._bad > _LOGGED_A_LOOK:
            self._services.log.warning("pickup.dropped", more=self._bad - _LOGGED_A_LOOK)

    def _is_there(self, name: str) -> bool:
        try:
            os.lstat(name, dir_fd=self._maildrop)
        except FileNotFoundError:
            return False
        return True

    def _is_due(self, name: str) -> bool:
        """Whether a name is a message to be taken now; what can be none is removed."""
        if is_spool_name(name):
            again = self._failed.get(name)
            return again is None or again <= self._services.loop.time()
        try:
            status = os.lstat(name, dir_fd=self._maildrop)
        except OSError:
            return False
        unfinished = name.startswith(".") and is_spool_name(name[1:]) and stat.S_ISREG(status.st_mode)
        dead = not unfinished or time.time() - status.st_ctime > SPOOL_ABANDONED_S
        if dead and self._remove(name, stat.S_ISDIR(status.st_mode)):
            self._tell_dropped(name, "left unfinished" if unfinished else "not a name of the spool")
        return False

    def _remove(self, name: str, is_directory: bool = False) -> bool:
        try:
            if is_directory:
                os.rmdir(name, dir_fd=self._maildrop)
            else:
                os.unlink(name, dir_fd=self._maildrop)
        except OSError:
            return False  # a directory that is not empty is its owner's, and no mail
        return True

    async def _take_all(self, names: list[str]) -> int:
        """Takes these files side by side; how many were picked up."""
        results = await asyncio.gather(*(self._take(name) for name in names))
        return sum(results)

    async def _take(self, name: str) -> bool:
        log = self._services.log
        try:
            in_units = await self._hand_in(name)
        except (BadSpoolFile, BadLetter) as error:
            self._drop(name, str(error))
            return False
        except FileNotFoundError:  # its owner took it back
            return False
        except (StorageFailure, Refused) as error:
            log.warning("pickup.delayed", file=name, error=str(error))
            return False
        except TemporaryFailure as error:  # a check's
            log.warning("pickup.delayed", file=name, error=str(error))
            self._try_later(name)
            return False
        except Exception as error:
            self._services.cells[METRICS.internal_errors_total["worker"]] += 1
            log.exception("pickup.failed", error, file=name)
            self._try_later(name)
            return False
        self._failed.pop(name, None)
        if crash.NAME:
            crash.crash_point("before_spool_unlink")
        self._remove(name)
        if in_units:
            await long_posting.forget(self._services, name)
        return True

    def _try_later(self, name: str) -> None:
        if len(self._failed) >= SPOOL_FAILED:
            self._failed.clear()
        self._failed[name] = self._services.loop.time() + SPOOL_RETRY_S

    async def _hand_in(self, name: str) -> bool:
        """Posts a file. Of those with many recipients, each a kilobyte of memory, one at a time is read and posted.

        Whether it went in several units: what is remembered of them has to be forgotten.
        """
        loop = self._services.loop
        if os.stat(name, dir_fd=self._maildrop, follow_symlinks=False).st_size <= SPOOL_LINE_BYTES:
            found = await loop.run_in_executor(None, self._open, name)
            await self._post(name, found)
            return len(found.ticket.recipients) > POSTED_AT_ONCE
        async with self._bulk:
            found = await loop.run_in_executor(None, self._open, name)
            many = len(found.ticket.recipients) > SMTP_RECIPIENTS
            if many:
                await self._post(name, found)
        if not many:
            await self._post(name, found)
        return len(found.ticket.recipients) > POSTED_AT_ONCE

    def _drop(self, name: str, reason: str) -> None:
        """Removes what our sendmail has not written."""
        self._tell_dropped(name, reason)
        try:
            is_directory = stat.S_ISDIR(os.lstat(name, dir_fd=self._maildrop).st_mode)
        except OSError:
            return
        self._remove(name, is_directory)

    def _tell_dropped(self, name: str, reason: str) -> None:
        self._bad += 1
        if self._bad <= _LOGGED_A_LOOK:
            self._services.log.warning("pickup.dropped", file=name, reason=reason)

    def _open(self, name: str) -> Found:
        """In a thread: the file with its header read."""
        stack = ExitStack()
        try:
            file, status = stack.enter_context(open_file(self._maildrop, name))
            return Found(status.st_uid, stack, read_ticket(file), Letter(_lines(file)))
        except BaseException:
            stack.close()
            raise

    async def _post(self, name: str, found: Found) -> None:
        with found.opened:
            await self._post_opened(name, found)

    async def _post_opened(self, name: str, found: Found) -> None:
        services, ticket = self._services, found.ticket
        sender = self._reverse_path(ticket.sender, found.uid)
        client = f"from userid {found.uid}"
        if not ticket.verify:
            envid = ticket.envid.encode("utf-8", "surrogateescape")
            handed = Handed(sender, ticket.recipients, client, ticket.full_name, envid, ticket.ret)
            await post(services, self._judge, handed, found.letter, name)
            return
        recipients = await resolve(services, ticket.recipients)
        text = report.build(services.config.myhostname, sender, recipients)
        back = Drop(sender.decode("utf-8", "surrogateescape"), NOTIFY_NEVER)
        await post(services, self._judge, Handed(b"", [back], client), Letter(iter(text.splitlines(keepends=True))))

    def _reverse_path(self, text: str, uid: int) -> bytes:
        """The sender as a path; what is no address becomes the owner's own, so that a report finds somebody."""
        if not text:
            return b""
        qualify = self._services.directory.qualify
        try:
            raw = qualify(text).raw
            if len(raw) <= 256 and not any(byte in raw for byte in b"<> \r\n"):
                return raw
        except ValueError:
            pass
        try:
            return qualify(pwd.getpwuid(uid).pw_name).raw
        except (KeyError, ValueError):
            return b""


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(READ_BYTES):
        yield line
