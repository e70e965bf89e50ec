"""What an administrator's command has done, as a line of the server's log with who did it: the request `note`."""

from typing import Annotated, Any, Final

import msgspec

from fastmta.runtime.log import Log
from fastmta.supervisor.control import Client

_FIELDS: Final = 16
_OURS: Final = frozenset({"at", "level", "event"})
_LINES: Final = 256  # of recipients that one request tells

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,20}\Z")]


class Note(msgspec.Struct):
    """`act` is a command such as "queue.hold"; `recipients` are (queue id, address), and get a line each."""

    act: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{1,20}\.[a-z_]{1,20}\Z")]
    fields: Annotated[dict[Name, str | int], msgspec.Meta(max_length=_FIELDS)] = {}
    recipients: Annotated[list[tuple[str, str]], msgspec.Meta(max_length=_LINES)] = []


def note(log: Log, client: Client, request: dict[str, Any]) -> dict[str, Any]:
    """Writes the lines; the answer to the request."""
    try:
        told = msgspec.convert({name: value for name, value in request.items() if name != "do"}, Note)
    except msgspec.ValidationError as error:
        return {"ok": False, "error": f"note: {error}"}
    who = {**client.who, **{name: told.fields[name] for name in ("sudo_user",) if name in told.fields}}
    for queue_id, address in told.recipients:
        log.info(f"admin.{told.act}", queue_id=queue_id, recipient=address.encode("utf-8", "surrogateescape"), **who)
    if not told.recipients:
        fields = {name: _shown(value) for name, value in told.fields.items() if name not in who and name not in _OURS}
        log.info(f"admin.{told.act}", **fields, **who)
    return {"ok": True}


def _shown(value: str | int) -> bytes | int:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
