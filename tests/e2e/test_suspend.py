"""`fastmta queue suspend` beside a running server: it holds at once, over a restart, and a flush changes nothing."""

import asyncio
import json
import smtplib
from pathlib import Path

from tests.support.mail import letter
from tests.support.server import Server
from tests.support.smtp_sink import SmtpSink
from tests.support.waiting import wait_for

SENDER, STOPPED, OPEN = "bill@example.test", "a@stopped.example", "b@open.example"


def _send(server: Server, *recipients: str) -> None:
    with smtplib.SMTP(server.host, server.port("smtp"), timeout=30) as client:
        client.sendmail(SENDER, recipients, letter("suspended or not", sender=SENDER, to=recipients[0]))


def test_a_suspended_domain_waits_over_flush_and_restart_until_it_is_resumed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with asyncio.timeout(120), SmtpSink() as stopped, SmtpSink() as other:
            routes = {
                "stopped.example": f"smtp:[127.0.0.1]:{stopped.port}",
                "open.example": f"smtp:[127.0.0.1]:{other.port}",
            }
            server = Server(tmp_path, services=("smtp",), workers=2, settings={"transport": routes})

            def cli(*arguments: str) -> str:
                return server.cli(*arguments).stdout

            def recorded() -> None:
                """What the other server has taken is no more in the queue."""
                wait_for(lambda: len(server.queue()) == 1, "the answer is recorded")

            await asyncio.to_thread(server.start)
            try:
                hop = f"smtp:[127.0.0.1]:{stopped.port}"
                assert await asyncio.to_thread(cli, "queue", "suspend", "stopped.example") == f"{hop} suspended\n"
                await asyncio.to_thread(_send, server, STOPPED, OPEN)
                await other.until(lambda: len(other.messages) == 1)
                await asyncio.to_thread(recorded)
                assert await asyncio.to_thread(cli, "queue", "flush", "--json") == '{"changed": 0}\n'
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
                await asyncio.to_thread(_send, server, OPEN)
                await other.until(lambda: len(other.messages) == 2)
                await asyncio.to_thread(recorded)
                (row,) = json.loads(await asyncio.to_thread(cli, "queue", "top", "--json"))
                assert (row["next_hop"], row["state"], row["waiting"], row["in_flight"]) == (hop, "suspended", 1, 0)
                (queued,) = await asyncio.to_thread(server.queue)
                told = json.loads(await asyncio.to_thread(cli, "explain", "--id", queued["queue_id"], "--json"))
                assert "fastmta queue resume stopped.example" in told["recipients"][0]["why"]
                now = json.loads(await asyncio.to_thread(cli, "explain", SENDER, OPEN, "--json"))["steps"][-1]
                assert now["step"] == "state" and now["running"] is True
                assert not stopped.connections
                assert await asyncio.to_thread(cli, "queue", "resume", "--all") == f"{hop} resumed\n"
                await stopped.until(lambda: len(stopped.messages) == 1)
            finally:
                await asyncio.to_thread(server.stop)

    asyncio.run(scene())
