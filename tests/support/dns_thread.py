"""The DNS stub for tests that are not coroutines: it answers from a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.support.dns_stub import DnsStub


@contextmanager
def dns_stub(zones: Mapping[str, Any], place: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[DnsStub]:
    """A running stub; `zones` and `queries` may be used from the test's thread, for both are plain mappings."""
    stub = DnsStub(zones, place=place)
    loop = asyncio.new_event_loop()
    started = threading.Event()
    stop = asyncio.Event()
    failure: list[BaseException] = []

    async def answer() -> None:
        try:
            async with stub:
                started.set()
                await stop.wait()
        except BaseException as error:
            failure.append(error)
            raise
        finally:
            started.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(answer(),), name="dns-stub", daemon=True)
    thread.start()
    started.wait(60.0)
    try:
        if failure:
            raise RuntimeError("the DNS stub did not start") from failure[0]
        yield stub
    finally:
        if not failure:
            loop.call_soon_threadsafe(stop.set)
        thread.join(60.0)
        loop.close()
