"""The process that runs a site's policy module: `python -m fastmta.policy.site_host FD MODULE`.

It answers questions on the socket FD until that closes, and dies with whoever started it. Frames are four octets of
length and msgpack. First it tells what the module has, or why it cannot be loaded. A question is [number, stage,
context]; an answer is [number, verdict, ""] or [number, null, what went wrong]. Stage "" is a ping.
"""

import asyncio
import importlib.util
import inspect
import os
import resource
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from fastmta.policy.api import STAGES, VERSION, Context, Verdict

FRAME_BYTES: Final = 1 << 20
ERROR_CHARACTERS: Final = 4000


def load(path: Path) -> tuple[ModuleType, tuple[str, ...]]:
    """The module, and which of the stages it has a function for. Raises whatever loading it raises."""
    spec = importlib.util.spec_from_file_location("site_policy", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["site_policy"] = module
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    wanted = getattr(module, "API", VERSION)
    if wanted != VERSION:
        raise ImportError(f"it wants version {wanted} of the interface; this is {VERSION}")
    found = []
    for stage in STAGES:
        function = getattr(module, stage, None)
        if function is None:
            continue
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{stage} is not an async function")
        found.append(stage)
    if not found:
        raise ImportError(f"it has none of the functions {', '.join(STAGES)}")
    return module, tuple(found)


class Host:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, module: ModuleType) -> None:
        self._reader = reader
        self._writer = writer
        self._module = module
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, value: Any) -> None:
        raw = msgspec.msgpack.encode(value)
        self._writer.write(len(raw).to_bytes(4, "big") + raw)

    async def serve(self) -> None:
        while True:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            number, stage, raw = msgspec.msgpack.decode(
                await self._reader.readexactly(size), type=tuple[int, str, bytes]
            )
            if not stage:
                self.say([number, None, ""])
                continue
            task = asyncio.create_task(self._answer(number, stage, msgspec.msgpack.decode(raw, type=Context)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, stage: str, context: Context) -> None:
        try:
            verdict = await getattr(self._module, stage)(context)
            if not isinstance(verdict, Verdict):
                raise TypeError(f"{stage} gave {type(verdict).__name__} and not a Verdict")
            self.say([number, msgspec.to_builtins(verdict), ""])
        except BaseException:
            self.say([number, None, traceback.format_exc()[-ERROR_CHARACTERS:]])


async def run(fd: int, path: Path) -> None:
    sock = socket.socket(fileno=fd)
    reader, writer = await asyncio.open_connection(sock=sock, limit=FRAME_BYTES)
    host = Host(reader, writer, ModuleType("none"))
    try:
        host._module, stages = load(path)
    except BaseException as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        host.say([0, None, text[:ERROR_CHARACTERS]])
        await writer.drain()
        return
    host.say([0, list(stages), ""])
    try:
        await host.serve()
    except (asyncio.IncompleteReadError, ConnectionError):
        return


def _end_with_the_worker(fd: int) -> None:
    """Ends the process when the other side is gone, whatever the module does at that moment."""
    watched = select.poll()
    watched.register(os.dup(fd), select.POLLHUP | select.POLLRDHUP)
    while not any(events & (select.POLLHUP | select.POLLRDHUP) for _, events in watched.poll()):
        continue
    os._exit(0)


def main() -> None:
    threading.Thread(target=_end_with_the_worker, args=(int(sys.argv[1]),), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asyncio.run(run(int(sys.argv[1]), Path(sys.argv[2])))
    os._exit(0)  # threads that the module has started hold nobody up


if __name__ == "__main__":
    main()
