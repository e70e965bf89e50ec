"""What a command that has opened the store itself says and asks beside a server that may run."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastmta.admin.control import ControlConfig, NotRunning, request
from fastmta.model.errors import ActFailed
from fastmta.model.events import Actor, Moves
from fastmta.model.ids import queue_id_text
from fastmta.operations.desk import Key

if TYPE_CHECKING:
    from fastmta.config.schema import Config


class Told:
    """Tells where the server's log goes."""

    def __init__(self, config: "Callable[[], Config]") -> None:
        self._config = config

    def act(self, name: str, fields: dict[str, Any], actor: Actor) -> None:
        from fastmta.cli.acts import tell

        tell(self._config(), name, **fields)

    def moves(self, moves: Moves) -> None:
        from fastmta.cli.acts import tell_recipients

        told = [(queue_id_text(q), path.decode("utf-8", "backslashreplace")) for q, _, path in moves.recipients]
        tell_recipients(self._config(), moves.act, told)


class Supervisor:
    """The supervisor of a server that runs, by its control socket."""

    def __init__(self, config: "Callable[[], Config]") -> None:
        self._config = config

    async def ask(self, question: str, actor: Actor) -> dict[str, Any]:
        answer = request(self._config(), {"do": question})
        if not answer.get("ok"):
            raise ActFailed(str(answer.get("error", "the server refused")), "busy")
        return answer


class Owners:
    """The workers of a server that runs, by its control socket. What is asked of them blocks."""

    def __init__(self, config: "Callable[[], ControlConfig]") -> None:
        self._config = config

    async def withdraw(self, keys: list[Key]) -> set[Key]:
        if not keys:
            return set()
        answer = self._answer({"do": "withdraw", "recipients": keys})
        return {(queue_id, n) for queue_id, n in answer["busy"]} if answer else set()

    async def hops(self, names: list[str]) -> list[dict[str, Any]] | None:
        answer = self._answer({"do": "hops", "hops": names})
        return answer["hops"] if answer else None

    async def sessions(self, wanted: dict[str, Any]) -> list[dict[str, Any]] | None:
        answer = self._answer({"do": "sessions", "wanted": wanted})
        return answer["sessions"] if answer else None

    def _answer(self, command: dict[str, Any]) -> dict[str, Any] | None:
        try:
            answer = request(self._config(), command)
        except NotRunning:
            return None
        if not answer.get("ok"):
            raise ActFailed(str(answer.get("error", "the server refused")), "busy")
        return answer
