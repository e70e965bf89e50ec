"""The checks of messages that no session brings: those of local programs ("pickup") and our own reports ("bounce").

They are asked the list of the end of a message (policy/plan.py), where a check's `services` name that way in. The
client is this machine, as Postfix has it for its non_smtpd_milters.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from fastmta.config.schema import Config
from fastmta.model.errors import TemporaryFailure
from fastmta.model.ids import queue_id_text
from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action, Outcome
from fastmta.policy.check import Check, Context, Message, Parts, deadline_s
from fastmta.policy.plan import Plan, plan_for
from fastmta.policy.run import Run
from fastmta.policy.summing import close, count, refusal_of, sum_up, tell
from fastmta.runtime.metrics import METRICS, Cells

_TOO_MUCH: Final = Reply(451, "4.3.0", "The checks add more than a message can hold")


class Services(Parts, Protocol):
    """What of a worker this needs: what checks are built from, the configuration, and where it counts."""

    @property
    def config(self) -> Config: ...
    @property
    def cells(self) -> Cells: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...


class Judge:
    """One way in of one worker. The plan follows the configuration, and the signing keys that there are."""

    def __init__(self, service: str, services: Services) -> None:
        self._service = service
        self.configure(services)

    def configure(self, services: Services) -> None:
        """The configuration was reread."""
        self._services = services
        self._plan = Plan()
        self._version = -1

    def _checks(self) -> tuple[Check, ...]:
        version = self._services.store.directory_version
        if version != self._version:
            self._version = version
            self._plan = plan_for(self._service, self._services.config, self._services)
        return next((each.checks for each in self._plan.lists if each.stage is Stage.END), ())

    @property
    def asks(self) -> bool:
        """Whether any check is asked."""
        return bool(self._checks())

    async def judge(
        self, message: Message, queue_id: int, client: str, sender: bytes, recipients: Sequence[bytes]
    ) -> Outcome:
        """What becomes of a message; `reply` where it is refused as a whole. TemporaryFailure: to be tried again."""
        services, checks = self._services, self._checks()
        if not checks:
            return Outcome()
        context = Context(
            stage=Stage.END,
            service=self._service,
            session=0,
            client_ip="127.0.0.1",
            client_name="localhost",
            trusted=True,
            tls=False,
            reverse_name="localhost",
            sender=sender,
            size_bytes=message.size,
            recipients=tuple(recipients),
            queue_id=queue_id,
            message=message,
        )
        name = queue_id_text(queue_id)

        def failed(check: Check, error: BaseException) -> None:
            services.cells[METRICS.internal_errors_total["worker"]] += 1
            services.log.exception("policy.failed", error, queue_id=name, client=client, check=check.name)

        run = Run(checks, context, deadline_s(Stage.END), services.loop, failed)
        try:
            if not run.done:
                said: asyncio.Future[None] = services.loop.create_future()
                run.when_done(lambda: said.set_result(None))
                await said
        finally:
            run.cancel()
        for check, verdict in run.verdicts:
            if count(services.cells, check, verdict):
                tell(services.log, check, verdict, queue_id=name, client=client)
        return self._outcome(run, len(context.recipients))

    def _outcome(self, run: Run, recipients: int) -> Outcome:
        outcome = Outcome()
        refused, results = sum_up(outcome, (verdict for _, verdict in run.verdicts), recipients)
        later = next((each for each in refused.values() if each.action is Action.DEFER), None)
        if later is not None:  # nobody waits for an answer: all of it is tried again
            raise TemporaryFailure(refusal_of(later))
        if refused and len(refused) == recipients:
            return Outcome(refusal_of(next(iter(refused.values()))))
        outcome.refused = {number: refusal_of(verdict) for number, verdict in refused.items()}
        if not close(outcome, results, self._services.config.authserv_id):
            raise TemporaryFailure(_TOO_MUCH)
        return outcome
