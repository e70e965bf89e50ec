"""The queue as a running server tells it at its public socket (operations/public.py), else as the store has it: for
listings that load next to nothing where a server is up.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from fastmta.admin.control import NoAnswer, NotRunning, exchanged, require_listener
from fastmta.cli.failures import EX_UNAVAILABLE, CommandFailed
from fastmta.cli.output import stamp
from fastmta.config.brief import Brief
from fastmta.model.errors import ActFailed
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

if TYPE_CHECKING:
    import socket

Row = dict[str, Any]
TRIES: Final = 4  # to connect while a worker is being replaced
TRY_INTERVAL_S: Final = 0.3
ANSWER_S: Final = 60.0
LISTED_AT_ONCE: Final = 1000


def each_row(brief: Brief, visit: Callable[[Row], None]) -> None:
    """Calls `visit` with every queued recipient, in the order of the queue, as `queue list --json` shows it.

    CommandFailed with EX_UNAVAILABLE where no server answers and this user may not read the store.
    """
    try:
        ask(brief, "queue.list", {}, visit)
    except NotRunning:
        _require_store(brief, "the queue cannot be read")
        from_store(brief, {}, visit)
        for waiting in _spooled(brief):
            visit(waiting)


def flush(brief: Brief) -> None:
    """Has what is deferred tried now."""
    try:
        ask(brief, "queue.flush", {}, lambda row: None)
    except NotRunning:
        _require_store(brief, "the queue cannot be flushed")
        from fastmta.cli.performing import here
        from fastmta.operations.moves import flush
        from fastmta.operations.selecting import Selector

        here(brief.config_file, flush, Selector())


def ask(brief: Brief, act: str, request: dict[str, Any], visit: Callable[[Row], None]) -> None:
    """Has an act of everybody's done and visits its rows. NotRunning where nobody listens, ActFailed as elsewhere."""
    with _connected(brief) as sock:
        try:
            for line in exchanged(sock, {"do": "act", "act": act, "request": request}):
                for row in line.get("rows", ()):
                    visit(row)
                if not line.get("ok", True):
                    raise ActFailed(str(line.get("error", "the server refused")), line.get("kind", "busy"))
        except NoAnswer:
            raise ActFailed("the server's answer broke off; try again", "busy") from None


def _connected(brief: Brief) -> "socket.socket":
    try:
        public = enter(brief.data_directory)
    except NoSpool as error:
        raise NotRunning(str(error)) from None
    try:
        require_listener(QUEUE_SOCKET, public, brief.data_directory)
        import socket

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
    raise NotRunning(f"no server is running on {brief.data_directory}")


def may_open_store(brief: Brief) -> bool:
    return os.geteuid() == 0 or os.access(brief.data_directory, os.R_OK | os.W_OK | os.X_OK)


def _require_store(brief: Brief, what: str) -> None:
    if not may_open_store(brief):
        raise CommandFailed(f"{what}: the mail system is down", EX_UNAVAILABLE)


def from_store(brief: Brief, request: dict[str, Any], visit: Callable[[Row], None]) -> None:
    """What the act `queue.list` gives, of the store itself and without a loop; makes and changes nothing."""
    from fastmta.cli.lean import msgspec_alone

    msgspec_alone()
    import msgspec

    from fastmta.cli.opened import existing_store
    from fastmta.operations.queued import record
    from fastmta.operations.selecting import Selector, selection

    left = request.get("limit", sys.maxsize)
    asked = Selector(**{name: value for name, value in request.items() if name != "limit"})
    with existing_store(brief.data_directory) as store:
        if store is None:
            return
        _, chosen = selection(asked, time.time())
        suspended = store.suspensions.by_hop()
        after = b""
        while left > 0:
            page, after = store.queue.walk(chosen, after, min(left, LISTED_AT_ONCE))
            left -= len(page)
            for message, recipient in page:
                visit(msgspec.structs.asdict(record(message, recipient, suspended)))
            if not after:
                return


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
                left_at = stamp(status.st_mtime)
                yield {
                    "queue_id": name[:12].upper(),
                    "n": n,
                    "state": "active",
                    "sender": ticket.sender,
                    "recipient": drop.address,
                    "original_recipient": "",
                    "next_hop": "",
                    "suspended": False,
                    "suspended_since": None,
                    "suspended_by": None,
                    "attempts": 0,
                    "due_at": left_at,
                    "received_at": left_at,
                    "size": status.st_size,
                    "last_reply": "",
                }
    finally:
        os.close(maildrop)
