"""What sessions cost that wait for the DNS."""

import asyncio
import os
import time
import tracemalloc

from fastmta.dns.resolver import LookupTrouble, NotFound, Resolver
from fastmta.model.limits import DNS_SOCKETS
from fastmta.model.stages import Stage
from fastmta.model.verdict import PASS, Verdict
from fastmta.policy.check import Context
from tests.smtp.stages import STRANGER, Fixed, ask
from tests.support.dns_stub import DnsStub
from tests.support.smtp_rig import SmtpRig

SESSIONS = 300
QUESTIONS = 10  # a session: in all more than are on the wire at once (DNS_ON_WIRE)
SESSION_BYTES = 8192
QUESTION_BYTES = 1024


class Asking(Fixed):
    """Asks ten questions that nobody else asks."""

    resolver: Resolver

    def check(self, context: Context) -> "asyncio.Future[Verdict]":  # type: ignore[override]
        return self._ask(context)  # type: ignore[return-value]

    async def _ask(self, context: Context) -> Verdict:
        futures = [self.resolver._asked(f"n{n}.s{context.session}.test", "A") for n in range(QUESTIONS)]
        for future in futures:
            try:
                await future
            except (NotFound, LookupTrouble):
                pass
        return PASS


async def test_hundreds_of_sessions_with_ten_questions_each_are_cheap(rig: SmtpRig) -> None:
    async with DnsStub({}) as stub:
        stub.answer = lambda query: None  # type: ignore[method-assign]
        check = Asking(Stage.MAIL)
        check.resolver = Resolver([stub.address], monotonic=time.monotonic)
        ask(rig, check, delay_reject=False)
        warm = Resolver([stub.address], monotonic=time.monotonic, query_timeout_s=0.01, lookup_timeout_s=0.01)
        try:
            await warm.a("x.test")
        except LookupTrouble:
            pass
        await warm.close()
        clients = [rig.connect(ip=STRANGER) for _ in range(1)]
        rig.limits.exceptions = rig.limits.exceptions.__class__(("198.51.100.0/24",))
        clients += [rig.connect(ip=STRANGER) for _ in range(SESSIONS)]
        for client in clients:
            client.start()
        descriptors = len(os.listdir("/proc/self/fd"))
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for client in clients[1:]:
            client.feed(b"MAIL FROM:<a@elsewhere.test>\r\n")
        for _ in range(SESSIONS * QUESTIONS // 100 + 20):
            await asyncio.sleep(0)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(os.listdir("/proc/self/fd")) - descriptors <= DNS_SOCKETS
        assert (after - before) / SESSIONS < SESSION_BYTES + QUESTIONS * QUESTION_BYTES
        for client in clients:
            client.lose()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()], "nothing is left"
        await check.resolver.close()
