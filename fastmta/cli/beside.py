"""What a command that has opened the store itself says and asks beside a server that may run: acts are told through
the control socket, by syslog (facility mail) where no server runs; owners are asked what they are sending.

A command never fails because its line could not be written.
"""

import syslog
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from fastmta.admin.control import REQUEST_BYTES, ControlConfig, NotRunning, request
from fastmta.model.errors import ActFailed, FastMTAError
from fastmta.model.events import Actor, Event
from fastmta.model.ids import queue_id_text
from fastmta.operations.desk import Key

Line = tuple[str, str]  # a recipient: queue id, address
LINES: Final = 256  # of recipients that one request carries
_PATIENCE_S: Final = 10.0


class Told:
    """Tells where the server's log goes."""

    def __init__(self, config: ControlConfig) -> None:
        self._config = config

    def act(self, name: str, fields: dict[str, Any], actor: Actor) -> None:
        self._send(name, fields, [], actor)

    def recipients(self, events: Iterable[Event]) -> None:
        found = list(events)
        if not found or found[0].by is None:
            return
        told = [(queue_id_text(each.queue_id), each.recipient.decode("utf-8", "backslashreplace")) for each in found]
        for page in _pages(told):
            self._send(found[0].act, {}, page, found[0].by)

    def _send(self, act: str, fields: dict[str, Any], recipients: list[Line], actor: Actor) -> None:
        if actor.sudo_user is not None:
            fields = {**fields, "sudo_user": actor.sudo_user}
        try:
            command = {"do": "note", "act": act, "fields": fields, "recipients": recipients}
            request(self._config, command, timeout_s=_PATIENCE_S)
            return
        except NotRunning:
            pass
        except FastMTAError:
            return  # it runs and is busy, or stops at this moment
        who = {"uid": actor.uid, "user": actor.user}
        syslog.openlog("fastmta", syslog.LOG_PID, syslog.LOG_MAIL)
        lines = ({"queue_id": queue_id, "recipient": address} for queue_id, address in recipients)
        for line in lines if recipients else iter([fields]):
            shown = chain(line.items(), who.items())
            syslog.syslog(syslog.LOG_INFO, " ".join([f"admin.{act}", *(f"{name}={value!a}" for name, value in shown)]))


def _pages(recipients: Iterable[Line]) -> Iterator[list[Line]]:
    """So many at once as a request holds, JSON's escapes included."""
    page: list[Line] = []
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


class Owners:
    """The workers of a server that runs, by its control socket."""

    def __init__(self, config: ControlConfig) -> None:
        self._config = config

    async def withdraw(self, keys: list[Key]) -> set[Key]:
        if not keys:
            return set()
        answer = self._answer({"do": "withdraw", "recipients": keys})
        return {(queue_id, n) for queue_id, n in answer["busy"]} if answer else set()

    async def hops(self, names: list[str]) -> list[dict[str, Any]] | None:
        answer = self._answer({"do": "hops", "hops": names})
        return answer["hops"] if answer else None

    def _answer(self, command: dict[str, Any]) -> dict[str, Any] | None:
        try:
            answer = request(self._config, command)
        except NotRunning:
            return None
        if not answer.get("ok"):
            raise ActFailed(str(answer.get("error", "the server refused")), "busy")
        return answer
