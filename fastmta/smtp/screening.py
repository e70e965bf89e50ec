"""What has been asked about one session: the runs of its checks, what they have said, and who waits for them.

Made when a session first comes to a stage at which somebody is asked. Runs about the client and its HELO stay for the
session, the others for the transaction. The session itself waits and goes on by its generation (`_session`): a run
that ends after a disconnect, a 421 or a new transaction has been cancelled, and finds nobody.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from fastmta._canonical import Field
from fastmta.model.ids import queue_id_text
from fastmta.model.reply import Reply
from fastmta.model.services import BY_NAME
from fastmta.model.stages import RELAYS, RELAYS_NOT, Stage, bit
from fastmta.model.verdict import PASS, Action, Outcome, Verdict, standing
from fastmta.policy.check import Check, Context, deadline_s
from fastmta.policy.plan import Plan, StageList
from fastmta.policy.run import Run
from fastmta.policy.summing import DECLINED, close, count, note, refusal_of, sum_up, tell
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, Cells

if TYPE_CHECKING:
    from fastmta._session import Connection

_OF_SESSION: Final = Stage.AUTH  # runs that begin up to here outlive a transaction
_ENDS: Final = frozenset({421, 521})  # codes with which access(5) ends a session
_EVERY: Final = sum(bit(stage) for stage in Stage)
_NO_CIPHER: Final = ("", "", 0)
_LETS_IN: Final = frozenset({Action.ACCEPT, Action.DISCARD})


class Desk(Protocol):
    """What the screenings of one service share: smtp/server.ServiceHost."""

    @property
    def name(self) -> str: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def log(self) -> Log: ...
    @property
    def cells(self) -> Cells: ...
    @property
    def authserv_id(self) -> str: ...
    def reverse_name(self, ip: str) -> str: ...
    def quarantine_lacks(self, session: "Connection") -> list[int]: ...
    def make_quarantines(self, session: "Connection", accounts: list[int], then: Callable[[], None]) -> None: ...
    def attend(self, session: "Connection") -> None:
        """Sets the session's `stages` to what the present configuration asks."""
        ...


class Message:
    """The message that has come, for checks at its end."""

    __slots__ = ("_session", "fields", "size")

    def __init__(self, session: "Connection") -> None:
        self._session = session
        self.size: int = session.message_bytes
        self.fields: tuple[Field, ...] | None = None

    async def read(self, offset: int, octets: int) -> bytes:
        """Octets of what came; fewer only at its end."""
        found: bytes = self._session.read_message(offset, octets)
        return found


class Screening:
    """The checks of one session."""

    __slots__ = ("_desk", "_outcome", "_plan", "_port", "_runs", "_session", "_taken", "_transaction", "refused")

    def __init__(self, desk: Desk, session: "Connection") -> None:
        self._desk = desk
        self._session = session
        self._port = _port(session)
        self._plan = desk.plan
        self._runs: dict[Stage, Run] = {}  # by the stage of their list
        self._taken: list[Run] = []  # whose notes are in the outcome
        self._outcome = Outcome()
        self._transaction = 0
        self.refused: Reply | None = None  # the reply of the last check that refused

    # --- what the session tells ---

    def reset(self) -> None:
        """The transaction is over; the next one follows the present configuration."""
        if self._plan is not self._desk.plan:
            self.cancel()
            self._plan = self._desk.plan
        else:
            for each in self._plan.lists:
                if each.starts > _OF_SESSION and each.stage in self._runs:
                    self._runs.pop(each.stage).cancel()
        self._taken.clear()
        self._outcome = Outcome()
        self._transaction += 1
        self._desk.attend(self._session)
        if self._session.denied is not None:
            self._session.stages = _EVERY
        elif self._runs and any(
            v.if_permit is not None for run in self._runs.values() if run.done for _, v in run.verdicts
        ):
            self._session.stages |= bit(Stage.RCPT)

    def forget_hello(self) -> None:
        """What was learnt in plain text does not count after STARTTLS."""
        self._drop(lambda starts: starts > Stage.CONNECT)

    def cancel(self) -> None:
        """The session is over."""
        self._drop(lambda starts: True)

    def _drop(self, is_over: Callable[[Stage], bool]) -> None:
        for each in self._plan.lists:
            if each.stage in self._runs and is_over(each.starts):
                self._runs.pop(each.stage).cancel()

    # --- the stages ---

    def examine(self, stage: Stage, subject: bytes, go_on: Callable[[], Reply]) -> Reply | None:
        """As session.Effects.examine."""
        runs = self._started(stage, subject)
        if stage is Stage.RCPT:
            return self._settle(runs, partial(self._unless_put_off, go_on))
        return self._settle(runs, go_on)

    def message_came(self) -> Outcome | None:
        """What becomes of the message; None: the session waits, and is told by `decided`."""
        runs = self._started(Stage.END, b"")
        pending = [run for run in runs if not run.done]
        if not pending:
            return self._prepared(self._finished(runs))
        generation = self._session.wait(True)
        pending[0].when_done(partial(self._decided, generation, runs))
        return None

    def _decided(self, generation: int, runs: list[Run]) -> None:
        outcome = self._finished(runs)
        if self._prepared(outcome) is not None:
            self._session.decided(generation, lambda: outcome)

    def _prepared(self, outcome: Outcome) -> Outcome | None:
        """The outcome; None while what it needs is being made: the session waits, and is told by `decided`."""
        lacks = self._desk.quarantine_lacks(self._session) if outcome.quarantine else ()
        if not lacks:
            return outcome
        generation = self._session.wait(True)
        self._desk.make_quarantines(
            self._session, list(lacks), lambda: self._session.decided(generation, lambda: outcome)
        )
        return None

    def _started(self, stage: Stage, subject: bytes) -> list[Run]:
        """Starts what may start now, and gives the runs that are awaited here."""
        context: Context | None = None
        due: list[Run] = []
        again = stage in (Stage.HELO, Stage.MAIL, Stage.RCPT, Stage.AUTH)
        for each in self._plan.lists:
            if not each.starts <= stage <= each.due or (each.stage is Stage.HELO and not self._hello(stage, subject)):
                continue
            run = self._runs.get(each.stage)
            if run is not None and again and each.starts is stage:  # asked about another subject now
                run.cancel()
                if run in self._taken:
                    self._taken.remove(run)
                run = None
            if run is None:
                if context is None:
                    context = self._context(stage, subject)
                run = self._runs[each.stage] = self._start(each, context)
            if each.due is stage:
                due.append(run)
        return due

    def _hello(self, stage: Stage, subject: bytes) -> bytes:
        name: bytes = subject if stage is Stage.HELO else self._session.helo
        return name

    def _start(self, each: StageList, context: Context) -> Run:
        return Run(each.checks, context, deadline_s(each.stage), self._desk.loop, self._failed)

    def _settle(self, runs: list[Run], go_on: Callable[[], Reply]) -> Reply | None:
        """The reply once all of `runs` have let pass or one has refused; None where that takes time."""
        for run in runs:
            if not run.done:
                generation = self._session.wait(True)
                run.when_done(partial(self._session.resume, generation, partial(self._settle, runs, go_on)))
                return None
            refusal = self._take(run)
            if refusal is not None:
                return refusal
        return go_on()

    @property
    def _is_greeting(self) -> bool:
        """Whether what is said of the client is said in the greeting."""
        return any(each.stage is Stage.CONNECT and each.due is Stage.CONNECT for each in self._plan.lists)

    def _unless_put_off(self, go_on: Callable[[], Reply]) -> Reply:
        """What comes of a recipient whom nobody has refused: DEFER_IF_PERMIT of any list so far puts it off, and where
        nobody is there DEFER_IF_REJECT.
        """
        put_off = self._put_off(Stage.RCPT)
        if put_off is not None:
            return self._refusal(Verdict(Action.DEFER, put_off))
        reply = go_on()
        later = self._if_reject() if reply.code >= 500 else None
        return reply if later is None else self._refusal(Verdict(Action.DEFER, later))

    def _put_off(self, last: Stage) -> Reply | None:
        """The first DEFER_IF_PERMIT of the lists up to `last`."""
        for each in self._plan.lists:
            run = self._runs.get(each.stage)
            if run is not None and run.done and each.stage <= last:
                for _, verdict in run.verdicts:
                    if verdict.if_permit is not None:
                        return verdict.if_permit
        return None

    def _if_reject(self) -> Reply | None:
        """DEFER_IF_REJECT of a list that was asked about the recipient."""
        run = self._runs.get(Stage.RCPT)
        found = (verdict.if_reject for _, verdict in run.verdicts) if run is not None else ()
        return next((reply for reply in found if reply is not None), None)

    def _take(self, run: Run) -> Reply | None:
        """What a run that is done has said: the reply that refuses, or None, its notes kept for the end."""
        self._tell(run)
        verdict = self._decisive(run)
        if verdict.action in DECLINED:
            if run is self._runs.get(Stage.CONNECT) and self._is_greeting:
                self._session.denied = Reply(503, "5.7.0", f"Error: access denied for {self._session.client}")
                self._session.stages = _EVERY
            later = self._if_reject() if run is self._runs.get(Stage.RCPT) else None
            put_off = self._put_off(Stage.RCPT) if later is not None and verdict.is_behind else None
            if put_off is not None:  # as Postfix, whose list has ended behind its first word
                return self._refusal(Verdict(Action.DEFER, put_off))
            if later is not None and verdict.action is Action.REJECT:
                return self._refusal(Verdict(Action.DEFER, later))
            return self._refusal(verdict)
        for check, verdict in run.verdicts:
            if verdict.if_permit is not None:
                self._session.stages |= bit(Stage.RCPT)
            if check.grants_relay:
                self._session.relays = RELAYS if verdict.permits or verdict.action in _LETS_IN else RELAYS_NOT
        if run not in self._taken:
            self._taken.append(run)
            for _, verdict in run.verdicts:
                self._note(verdict)
        return None

    def _decisive(self, run: Run) -> Verdict:
        """The verdict that refuses, or else the last one."""
        for check, verdict in run.verdicts:
            if verdict.if_alone is not None:
                before = self._put_off(Stage(check.stage - 1)) if check.stage else None
                stands = standing(verdict, before)
                if stands is not verdict:
                    return stands
        return run.verdicts[-1][1]

    def _refusal(self, verdict: Verdict, *, of_all: bool = True) -> Reply:
        reply = refusal_of(verdict)
        if verdict.is_late and of_all:
            self._session.forgive()
        self.refused = reply
        if reply.code in _ENDS and of_all:
            self._session.close_after_reply()
        return reply

    def _note(self, verdict: Verdict) -> None:
        outcome = self._outcome
        note(outcome, verdict)
        if outcome.wants_more:
            self._session.stages |= bit(Stage.END)  # where it is carried out

    # --- the end ---

    def _finished(self, runs: list[Run]) -> Outcome:
        outcome = self._outcome
        everybody = len(self._session.recipients or ())
        for run in runs:
            self._tell(run)
        refused, results = sum_up(outcome, (verdict for run in runs for _, verdict in run.verdicts), everybody)
        if refused and not self._may_split(refused, everybody):
            first = next((each for each in refused.values() if each.action is Action.DEFER), None)
            return Outcome(self._refusal(first or next(iter(refused.values()))), (first or PASS).is_late)
        outcome.refused = {number: self._refusal(verdict, of_all=False) for number, verdict in refused.items()}
        if not close(outcome, results, self._desk.authserv_id):
            self._desk.log.warning(
                "policy.too_much", session=self._session.number, octets=len(outcome.head), cuts=len(outcome.cuts)
            )
            return Outcome(Reply(451, "4.3.0", "The message cannot be taken now"), True)
        return outcome

    def _may_split(self, refused: dict[int, Verdict], recipients: int) -> bool:
        """Whether some are refused and others not: LMTP can say so; SMTP says one thing of all, and whom a check
        refused for good then gets a report, while one that asks for another try has the client try all again.
        """
        if BY_NAME[self._desk.name].protocol == "lmtp":
            return True
        return len(refused) < recipients and all(each.action is Action.REJECT for each in refused.values())

    # --- telling ---

    def _context(self, stage: Stage, subject: bytes) -> Context:
        session = self._session
        recipients = session.recipients if stage >= Stage.DATA else None
        return Context(
            stage=stage,
            service=self._desk.name,
            session=session.number,
            client_ip=session.peer_ip,
            client_name=session.client.partition("[")[0],
            reverse_name=self._desk.reverse_name(session.peer_ip),
            trusted=session.trusted,
            tls=session.tls,
            client_port=self._port,
            cipher=(session.transport.get_extra_info("cipher") or _NO_CIPHER) if session.tls else _NO_CIPHER,
            certificate=None if session.speaks_for else session.certificate,
            esmtp=session.esmtp,
            pipelined=session.pipelined,
            transaction=self._transaction,
            bare=session.bare,
            helo=self._hello(stage, subject).decode("utf-8", "replace"),
            login=subject.decode() if stage is Stage.AUTH else session.login,
            sender=subject if stage is Stage.MAIL else session.reverse_path,
            size_bytes=session.size if stage is Stage.END else 0,
            recipient=subject if stage is Stage.RCPT else b"",
            recipients=tuple(each.forward_path for each in recipients or ()),
            queue_id=session.queue_id if stage is Stage.END else 0,
            message=Message(session) if stage is Stage.END else None,
            added=session.added_fields() if stage is Stage.END else b"",
            head=self._outcome.head if stage is Stage.END else b"",
        )

    def _tell(self, run: Run) -> None:
        if run.is_told:
            return
        run.is_told = True
        session = self._session
        cells = self._desk.cells
        for check, verdict in run.verdicts:
            if count(cells, check, verdict):
                queue_id = queue_id_text(session.queue_id) if check.stage is Stage.END else None
                tell(self._desk.log, check, verdict, session=session.number, queue_id=queue_id, client=session.client)

    def _failed(self, check: Check, error: BaseException) -> None:
        self._desk.cells[METRICS.internal_errors_total[self._desk.name]] += 1
        self._desk.log.exception(
            "policy.failed", error, session=self._session.number, client=self._session.client, check=check.name
        )


def _port(session: "Connection") -> int:
    """The client's port; 0 on a unix socket."""
    peer = session.told_peer or session.transport.get_extra_info("peername")
    return peer[1] if isinstance(peer, tuple) and len(peer) > 1 else 0
