"""Acts that are everybody's, asked at the public socket."""

import asyncio
import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastmta.admin.control import NoAnswer, exchanged
from fastmta.config.load import load
from fastmta.model.limits import PUBLIC_CLIENTS_OF_USER, PUBLIC_REQUEST_BYTES
from fastmta.operations import acts
from fastmta.operations.desk import Desk
from fastmta.operations.public import PublicSocket
from fastmta.operations.serving import Serving
from tests.support.pickup import close_services, open_services
from tests.support.server import Server
from tests.support.waiting import wait_for


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(f"{server.data_directory}/public/queue")
        yield sock


def ask(server: Server, act: str, **request: Any) -> list[dict[str, Any]]:
    with connected(server) as sock:
        return list(exchanged(sock, {"do": "act", "act": act, "request": request}))


def test_only_what_is_everybodys_is_done(server: Server) -> None:
    public = {each.name for each in acts.every() if each.who == "everybody"}
    assert public == {"queue.list", "queue.flush"}
    assert ask(server, "queue.list") == [{"ok": True, "result": None}]
    assert ask(server, "queue.flush") == [{"ok": True, "result": {"changed": 0}}]
    for name in ("user.list", "queue.delete", "queue.content", "queue.hold"):
        (answer,) = ask(server, name)
        assert (answer["ok"], answer["kind"]) == (False, "not_permitted"), name
    (answer,) = ask(server, "queue.nothing")
    assert answer["kind"] == "usage"
    (answer,) = ask(server, "queue.list", colour="red")
    assert answer["kind"] == "usage"
    (answer,) = ask(server, "queue.flush", ids=["no id"])
    assert answer["kind"] == "usage"


def test_of_one_user_a_few_are_served_at_one_time(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(PUBLIC_CLIENTS_OF_USER):
            stack.enter_context(connected(server))
        (answer,) = ask(server, "queue.list")
        assert (answer["ok"], answer["kind"]) == (False, "busy")
    wait_for(lambda: ask(server, "queue.list")[-1]["ok"], "the others have gone")


def test_a_request_has_a_bound(server: Server) -> None:
    request = {"ids": ["X" * 11] * (PUBLIC_REQUEST_BYTES // 11)}
    with connected(server) as sock, pytest.raises((NoAnswer, OSError)):
        list(exchanged(sock, {"do": "act", "act": "queue.list", "request": request}))


class Slowly(msgspec.Struct, forbid_unknown_fields=True):
    word: str


GATE = asyncio.Event()
DONE: list[str] = []


@acts.act("slow.change", changes=True, who="everybody")
async def change(desk: Desk, asked: Slowly) -> None:
    """Changes something when the gate opens."""
    await GATE.wait()
    await desk.pause()
    DONE.append(asked.word)
    desk.note(word=asked.word)


def test_a_change_is_answered_when_it_has_begun_and_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(acts.FAMILIES, "slow", (__name__,))
    monkeypatch.setattr("fastmta.operations.serving.BEGUN_S", 0.01)
    (tmp_path / "fastmta.toml").write_text('myhostname = "mx.example.test"\ndata_directory = "."\n')

    async def scene() -> None:
        services = await open_services(load(tmp_path / "fastmta.toml"))
        face = PublicSocket(services, Serving(services, lambda *_: asyncio.sleep(0, {}), None))
        public = os.open(tmp_path, os.O_RDONLY)
        face.open(public)

        async def asked(word: str) -> bytes:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "queue")
            writer.write(msgspec.json.encode({"do": "act", "act": "slow.change", "request": {"word": word}}) + b"\n")
            answer = await reader.read()
            writer.close()
            return answer

        try:
            for word in ("a", "a", "b"):
                assert msgspec.json.decode(await asked(word)) == {"ok": True, "result": None}
            GATE.set()
            await asyncio.wait(services.tasks._tasks, timeout=20)
            assert sorted(DONE) == ["a", "b"]
            line = services.log.named("admin.slow.change")[0]
            assert (line["uid"], line["user"].decode()) == (os.getuid(), pwd.getpwuid(os.getuid()).pw_name)
        finally:
            face.close()
            os.close(public)
            await close_services(services)

    asyncio.run(scene())
