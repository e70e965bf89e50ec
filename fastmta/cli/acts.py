"""What an administrator does is told where the server's log goes: through its control socket, which knows who asks by
the kernel's word; by syslog (facility mail) while no server runs.

A command never fails because its line could not be written.
"""

import os
import syslog
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final, Protocol

from fastmta._intake import Lines
from fastmta.admin.control import REQUEST_BYTES, ControlConfig, NotRunning, request
from fastmta.model.errors import FastMTAError
from fastmta.runtime.identity import user_name
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import local_cells
from fastmta.runtime.owned import acting_as_owner
from fastmta.trace.writer import Trace

Told = tuple[str, str]  # a recipient: queue id, address
LINES: Final = 256  # of recipients that one request carries
_PATIENCE_S: Final = 10.0


class ActsConfig(ControlConfig, Protocol):
    """What of the configuration says where the trace is."""

    @property
    def trace_retention(self) -> float: ...
    @property
    def trace_size_limit(self) -> int: ...


def tell(config: ControlConfig, act: str, **fields: str | int | None) -> None:
    """Tells of a command that changed something; `act` such as "user.add"."""
    _send(config, act, {name: value for name, value in fields.items() if value is not None}, [])


def tell_recipients(config: ActsConfig, act: str, recipients: Iterable[Told]) -> None:
    """Tells of queued recipients, a line each; `act` such as "queue.hold"."""
    for page in _pages(recipients):
        _send(config, act, {}, page)
        _trace(config, act, page)


def _trace(config: ActsConfig, act: str, recipients: list[Told]) -> None:
    """The same for the message trace, which needs no server."""
    if not config.trace_retention:
        return
    directory = Path(config.data_directory)
    log = Log(level="error")
    log.trace = lines = Lines()
    for queue_id, address in recipients:
        told = address.encode("utf-8", "surrogateescape")
        log.info(f"admin.{act}", queue_id=queue_id, recipient=told, uid=os.getuid(), user=user_name(os.getuid()))
    try:
        with acting_as_owner(directory):
            trace = Trace(directory, log, local_cells())
            trace.configure(config.trace_retention, config.trace_size_limit)
            trace.add(lines.take())
            trace.close()
    except (OSError, FastMTAError):
        return  # what was done is done, and the log has it


def _pages(recipients: Iterable[Told]) -> Iterator[list[Told]]:
    """So many at once as a request holds, JSON's escapes included."""
    page: list[Told] = []
    room = REQUEST_BYTES // 2
    for each in recipients:
        cost = 6 * sum(map(len, each)) + 10
        if page and (len(page) >= LINES or cost > room):
            yield page
            page, room = [], REQUEST_BYTES // 2
        page.append(each)
        room -= cost
    if page:
        yield page


def _send(config: ControlConfig, act: str, fields: dict[str, str | int], recipients: list[Told]) -> None:
    behind = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    if behind:
        fields["sudo_user"] = behind
    try:
        request(config, {"do": "note", "act": act, "fields": fields, "recipients": recipients}, timeout_s=_PATIENCE_S)
        return
    except NotRunning:
        pass
    except FastMTAError:
        return  # it runs and is busy, or stops at this moment
    who = {"uid": os.getuid(), "user": user_name(os.getuid())}
    syslog.openlog("fastmta", syslog.LOG_PID, syslog.LOG_MAIL)
    lines = ({"queue_id": queue_id, "recipient": address} for queue_id, address in recipients)
    for line in lines if recipients else iter([fields]):
        shown = chain(line.items(), who.items())
        syslog.syslog(syslog.LOG_INFO, " ".join([f"admin.{act}", *(f"{name}={value!a}" for name, value in shown)]))
