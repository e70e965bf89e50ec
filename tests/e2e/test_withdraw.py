"""`fastmta queue hold` and `delete` beside a running server: never what is on its way, always what is not."""

import asyncio
import smtplib
from pathlib import Path

from tests.support.mail import letter
from tests.support.server import Server
from tests.support.smtp_sink import HANG, SmtpSink

SENDER = "bill@example.test"
SLOW, LATER = "now@slow.example", "later@held.example"


def _send(server: Server) -> None:
    with smtplib.SMTP(server.host, server.port("smtp"), timeout=60) as client:
        client.sendmail(SENDER, [SLOW, LATER], letter("two ways", sender=SENDER, to=SLOW))


def test_what_is_being_sent_is_left_alone_and_the_rest_is_deleted(tmp_path: Path) -> None:
    async def scene() -> None:
        async with asyncio.timeout(60), SmtpSink() as sink:
            sink.replies["DATA"] = [HANG]
            routes = {"slow.example": f"smtp:[127.0.0.1]:{sink.port}", "held.example": "hold:"}
            server = Server(tmp_path, services=("smtp",), workers=2, settings={"transport": routes})
            await asyncio.to_thread(server.start)
            try:
                await asyncio.to_thread(_send, server)
                await sink.until(lambda: any(line.startswith(b"DATA") for line in sink.commands))
                held = await asyncio.to_thread(server.cli, "queue", "hold", "--recipient", SLOW, check=False)
                assert held.returncode == 75
                assert "1 recipient is being sent at this moment" in held.stderr
                done = await asyncio.to_thread(server.cli, "queue", "delete", "--all", "--yes", check=False)
                assert done.stdout == "1 recipient deleted\n"
                assert "1 recipient is being sent at this moment" in done.stderr
                assert done.returncode == 75
                assert [each["recipient"] for each in await asyncio.to_thread(server.queue)] == [SLOW]
            finally:
                await asyncio.to_thread(server.kill)
            done = await asyncio.to_thread(
                server.cli, "queue", "delete", "--all", "--yes"
            )  # nobody's hands: the store decides
            assert done.stdout == "1 recipient deleted\n"
            assert await asyncio.to_thread(server.queue) == []

    asyncio.run(scene())
