"""The queue as a running server tells it at its socket, else as the store has it: for listings that load next to
nothing where a server is up.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from fastmta.cli.failures import EX_TEMPFAIL, EX_UNAVAILABLE, CommandFailed
from fastmta.config.brief import Brief
from fastmta.pickup.spool import (
    QUEUE_SOCKET,
    BadSpoolFile,
    NoSpool,
    enter,
    is_spool_name,
    open_file,
    open_maildrop,
    read_ticket,
)

Row = dict[str, Any]
TRIES: Final = 4  # to connect while a worker is being replaced
TRY_INTERVAL_S: Final = 0.3
ANSWER_S: Final = 60.0
LISTED_AT_ONCE: Final = 1000


class ServerDown(Exception):
    """No server answers for this data directory."""


def each_row(brief: Brief, visit: Callable[[Row], None]) -> None:
    """Calls `visit` with every queued recipient, in the order of the queue; its keys are queue_socket.Row's.

    CommandFailed with EX_UNAVAILABLE where no server answers and this user may not read the store.
    """
    try:
        ask(brief, b"list\n", visit)
    except ServerDown:
        _require_store(brief, "the queue cannot be read")
        from_store(brief, {}, visit)
        for waiting in _spooled(brief):
            visit(waiting)


def flush(brief: Brief) -> None:
    """Has what is deferred tried now."""
    try:
        ask(brief, b"flush\n", lambda row: None)
    except ServerDown:
        _require_store(brief, "the queue cannot be flushed")
        from fastmta.cli.performing import here
        from fastmta.operations.moves import flush
        from fastmta.operations.selecting import Selector

        here(brief.config_file, flush, Selector())


def ask(brief: Brief, request: bytes, visit: Callable[[Row], None]) -> None:
    """Sends a request and visits the rows of its answer. ServerDown where nobody listens."""
    with _connected(brief) as sock, sock.makefile("rb") as stream:
        try:
            sock.sendall(request)
            for line in stream:
                row = json.loads(line)
                if "end" in row:
                    return
                if "error" in row:
                    raise CommandFailed(str(row["error"]), EX_TEMPFAIL)
                visit(row)
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            raise CommandFailed(f"the server's answer broke off: {error}", EX_TEMPFAIL) from error
    raise CommandFailed("the server's answer broke off", EX_TEMPFAIL)


def _connected(brief: Brief) -> socket.socket:
    try:
        public = enter(brief.data_directory)
    except NoSpool:
        raise ServerDown from None
    try:
        for tried in range(TRIES):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(ANSWER_S)
            try:
                sock.connect(f"/proc/self/fd/{public}/{QUEUE_SOCKET}")
                return sock
            except FileNotFoundError:
                sock.close()
                break
            except OSError:
                sock.close()
                if tried < TRIES - 1:
                    time.sleep(TRY_INTERVAL_S)
    finally:
        os.close(public)
    raise ServerDown


def may_open_store(brief: Brief) -> bool:
    return os.geteuid() == 0 or os.access(brief.data_directory, os.R_OK | os.W_OK | os.X_OK)


def _require_store(brief: Brief, what: str) -> None:
    if not may_open_store(brief):
        raise CommandFailed(f"{what}: the mail system is down", EX_UNAVAILABLE)


def from_store(brief: Brief, wanted: dict[str, Any], visit: Callable[[Row], None]) -> None:
    """Visits what the store has of what is wanted (queue_rows.Wanted), without a server; makes and changes nothing."""
    import msgspec

    from fastmta.cli.owned import acting_as_owner
    from fastmta.pickup.queue_rows import Wanted, row
    from fastmta.store import MailStore

    directory = Path(brief.data_directory)
    if not (directory / "data.mdb").exists():
        return
    asked = Wanted(**wanted)
    selection, left = asked.selection(), asked.limit
    with acting_as_owner(directory):
        store = MailStore.open(directory, create=False, gives_way=True)
    try:
        suspended = store.suspensions.by_hop()
        after = b""
        while left > 0:
            page, after = store.queue.walk(selection, after, min(left, LISTED_AT_ONCE))
            left -= len(page)
            for message, recipient in page:
                visit(msgspec.structs.asdict(row(message, recipient, suspended)))
            if not after:
                return
    finally:
        store.close()


def _spooled(brief: Brief) -> Iterator[Row]:
    """What waits for the server to come up, as if it were in the queue already."""
    try:
        maildrop = open_maildrop(brief.data_directory)
    except OSError:
        return  # no mail has been left here, or we may not list it
    try:
        for name in sorted(filter(is_spool_name, os.listdir(maildrop))):
            try:
                with open_file(maildrop, name) as (file, status):
                    ticket = read_ticket(file)
            except (OSError, BadSpoolFile):
                continue
            for n, drop in enumerate(ticket.recipients):
                yield {
                    "id": name[:12].upper(),
                    "n": n,
                    "state": "active",
                    "sender": ticket.sender,
                    "recipient": drop.address,
                    "original": "",
                    "hop": "",
                    "attempts": 0,
                    "due_ms": int(status.st_mtime * 1000),
                    "received_ms": int(status.st_mtime * 1000),
                    "size": status.st_size,
                    "reply": "",
                    "suspended_ms": None,
                    "suspended_by": None,
                }
    finally:
        os.close(maildrop)
