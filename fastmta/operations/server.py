"""The server as a whole: the acts `server.reload`, `stop` and `status`.

The supervisor does them and says in the log who asked, so they work where no worker answers any more.
"""

from typing import Any

from fastmta.operations.acts import act
from fastmta.operations.desk import BareDesk
from fastmta.operations.values import Nothing


@act("server.reload")
async def reload(desk: BareDesk, asked: Nothing) -> None:
    """Let the running server read its configuration again; no connection is lost."""
    _ = desk.config  # read here: a mistake is told to whoever asks, and not only in the server's log
    await desk.server.ask("reload", desk.actor)


@act("server.stop")
async def stop(desk: BareDesk, asked: Nothing) -> None:
    """Stop the running server when its transactions have ended."""
    await desk.server.ask("stop", desk.actor)


@act("server.status")
async def status(desk: BareDesk, asked: Nothing) -> dict[str, Any]:
    """Show the running server: processes, listeners, connections, totals, queue."""
    return await desk.server.ask("status", desk.actor)
