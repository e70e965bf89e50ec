"""The way of a new message through reception, checks, directory and delivery, step by step. Nothing is sent or queued.
What is said is what the worker's own parts would do.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple, Protocol

from fastmta._intake import Recipient
from fastmta.delivery import seams as delivery
from fastmta.delivery.explanation import Step, delivery_steps, route_step
from fastmta.delivery.service import DeliveryService
from fastmta.directory.recipients import Directory
from fastmta.model.envelope import LocalTarget, QueuedTarget, Resolution
from fastmta.model.stages import Stage
from fastmta.operations.desk import Desk
from fastmta.operations.explaining_policy import policy_answers
from fastmta.operations.hops import in_hand
from fastmta.operations.queued import text as shown
from fastmta.operations.values import stamp
from fastmta.operations.waiting import suspended_text
from fastmta.policy.check import Context
from fastmta.policy.client_names import ClientNames
from fastmta.policy.networks import Networks
from fastmta.policy.plan import plan_for

REFUSED, ACCEPTED = "refused", "accepted"


class Parts(delivery.Services, Protocol):
    """What of a worker the way of a message is explained by."""

    @property
    def directory(self) -> Directory: ...


class Delivering(NamedTuple):
    """A worker's parts, and the service that delivers with them."""

    services: Parts
    service: DeliveryService


class Explanation:
    """The steps of one message; `outcome` is what its sender would be told at RCPT."""

    def __init__(
        self, desk: Desk, parts: Delivering, sender: str, recipient: str, client: str | None, helo: str = ""
    ) -> None:
        self._desk = desk
        self._parts = parts.services
        self._service = parts.service
        self._sender = sender.strip().removeprefix("<").removesuffix(">")
        self._recipient = recipient.strip().removeprefix("<").removesuffix(">")
        self._client = client
        self._helo = helo
        self.outcome = ACCEPTED
        self.reply = ""

    async def steps(self) -> AsyncIterator[Step]:
        """In the order of a message's way. It ends where the message would be refused."""
        trusted = self._client is None or self._client in Networks(self._parts.config.mynetworks)
        lists = plan_for("smtp", self._parts.config, self._parts).lists
        granting = next((check.name for each in lists for check in each.checks if check.grants_relay), "")
        yield self._client_step(trusted, granting)
        for step in self._limit_steps():
            yield step
        sender = self._sender_step()
        yield sender
        if self.outcome == REFUSED:
            return
        may_relay = trusted
        async for answer in policy_answers(lists, await self._context(trusted)):
            yield answer.step
            may_relay = may_relay if answer.may_relay is None else answer.may_relay
            if answer.refusal:
                yield self._refused("recipient", answer.refusal)
                return
        raw = self._recipient.encode("utf-8", "surrogateescape")
        resolution, told = self._parts.directory.explain(raw, may_relay=may_relay)
        for problem in self._parts.directory.problems():
            yield Step("problem", problem, {"problem": problem})
        for address, by, targets in told:
            yield Step(
                "alias", f"{address} by {by}: {', '.join(targets)}", {"address": address, "by": by, "targets": targets}
            )
        if resolution.refusal is not None:
            yield self._refused("recipient", str(resolution.refusal))
            return
        through = self._parts.config.filter_for("smtp")
        if through:
            text = f"queued for the content filter {through}; what follows comes once it has given the message back"
            yield Step("filter", text, {"filter": through})
        for target in self._adjusted(raw, resolution):
            if isinstance(target, Step):
                yield target
            elif isinstance(target, LocalTarget):
                yield self._mailbox_step(target)
            else:
                async for step in self._queued_steps(target):
                    yield step

    async def _context(self, trusted: bool) -> Context:
        """What checks are told: the client with its name, as a session has it at RCPT."""
        ip = self._client or "127.0.0.1"
        names = ClientNames(self._parts.resolver, self._parts.clock.monotonic)
        found = names.known(ip) or await names.find(ip)
        return Context(
            stage=Stage.RCPT,
            service="smtp",
            session=0,
            client_ip=ip,
            client_name=found.name,
            reverse_name=found.reverse,
            trusted=trusted,
            tls=False,
            helo=self._helo,
            sender=self._sender.encode("utf-8", "surrogateescape"),
            recipient=self._recipient.encode("utf-8", "surrogateescape"),
            recipients=(self._recipient.encode("utf-8", "surrogateescape"),),
        )

    def _adjusted(self, raw: bytes, resolution: Resolution) -> Iterator[LocalTarget | QueuedTarget | Step]:
        """The targets with the routes that the sender's mail takes, and who gets a copy."""
        directory = self._parts.directory
        sender = self._sender.encode("utf-8", "surrogateescape")
        for target in resolution.targets:
            if isinstance(target, LocalTarget) or not directory.adjusts:
                yield target
                continue
            alone = Recipient(raw, Resolution(targets=(target,)))
            (found,) = directory.adjusted(sender, [alone], copies=False)
            (to,) = found.targets
            if to.hop != target.hop:
                text = f"{shown(to.hop)}: of this sender (sender_dependent_relayhost_maps, ..._default_transport_maps)"
                yield Step("sender", text, {"next_hop": shown(to.hop)})
            yield QueuedTarget(target.forward_path, to.hop, to.held)
        for copy in directory.adjusted(sender, [Recipient(raw, resolution)])[1:] if directory.adjusts else ():
            to_whom = copy.forward_path.decode("utf-8", "backslashreplace")
            yield Step("copy", f"a blind copy goes to {to_whom}", {"recipient": to_whom})

    def _refused(self, kind: str, reply: str) -> Step:
        self.outcome, self.reply = REFUSED, reply
        return Step(kind, f"refused: {reply}", {"reply": reply})

    def _client_step(self, trusted: bool, granting: str) -> Step:
        """`granting`: the list that says who may relay, "" where mynetworks and logins alone do."""
        values: dict[str, object] = {"client": self._client, "may_relay": None if granting else trusted}
        if granting:
            whose = self._client or "a login or a program on this machine (no --client given)"
            text = f"{whose}: {granting} says whether it may relay"
            return Step("client", text, {**values, "relay_list": granting})
        if self._client is None:
            return Step("client", "a login or a program on this machine (no --client given): it may relay", values)
        if trusted:
            return Step("client", f"{self._client} is in mynetworks: it may relay", values)
        text = f"{self._client} is not in mynetworks: without a login it may send to our own domains only"
        return Step("client", text, values)

    def _limit_steps(self) -> list[Step]:
        """The limits by address that this client is under."""
        config = self._parts.config
        if self._client is None or self._client in Networks(config.smtpd_client_event_limit_exceptions):
            return []
        keys = (
            "smtpd_client_connection_count_limit",
            "smtpd_client_connection_rate_limit",
            "smtpd_client_message_rate_limit",
            "smtpd_client_recipient_rate_limit",
        )
        values: dict[str, object] = {key: getattr(config, key) for key in keys if getattr(config, key)}
        text = ", ".join(f"{key} = {value}" for key, value in values.items()) or "none"
        return [Step("limits", f"of this client: {text}", values)]

    def _sender_step(self) -> Step:
        if not self._sender:
            return Step("sender", "the null sender: a report, which is never answered with a report", {"sender": ""})
        directory = self._parts.directory
        try:
            address = directory.qualify(self._sender)
        except ValueError as error:
            return self._refused("sender", f"501 5.1.7 {self._sender!a}: {error}")
        found = directory.class_of(address.domain)
        values: dict[str, object] = {"sender": address.key, "class": found.value}
        return Step(
            "sender",
            f"{address.key}: its domain is in {found.value}"
            if found.value != "other"
            else f"{address.key}: its domain is not ours",
            values,
        )

    def _mailbox_step(self, target: LocalTarget) -> Step:
        store = self._desk.store
        owner = target.mailbox.decode("utf-8", "surrogateescape")
        used, messages, quota, limit = store.mailboxes.usage(target.account_id, target.mailbox_id)
        room = f"{used} of {quota} bytes are used" if quota else f"{used} bytes are used, no quota"
        values = {"mailbox": owner, "used_bytes": used, "quota_bytes": quota}
        if limit:
            room += f", {messages} of {limit} messages"
            values |= {"messages": messages, "quota_messages": limit}
        return Step("mailbox", f"delivered to the mailbox of {owner} as it is accepted ({room})", values)

    async def _queued_steps(self, target: QueuedTarget) -> AsyncIterator[Step]:
        service = self._service
        path = target.forward_path
        yield Step("queue", f"{path.decode('utf-8', 'backslashreplace')} is queued", {"recipient": shown(path)})
        yield route_step(service, target.hop, path, held=target.held)
        forwarding = service.forwarding
        if forwarding is not None and target.hop.startswith(b"smtp:"):
            given = self._recipient.encode("utf-8", "surrogateescape")
            before = self._sender.encode("utf-8", "surrogateescape")
            if given.lower() != path.lower() and forwarding.passes_on(given, path):
                after = forwarding.sender(before)
                text = f"it is passed on: its sender stays {shown(before) or '<>'}"
                if after != before:
                    text = f"it is passed on: its sender leaves as {shown(after)} (SRS)"
                yield Step("srs", text, {"sender": shown(after)})
        stopped = self._desk.store.suspensions.by_hop().of(target.hop)
        if stopped is not None:
            yield Step(
                "suspended", suspended_text(stopped), {"since": stamp(stopped.since_ms / 1000), "by": stopped.by}
            )
        sender = self._sender.encode("utf-8", "surrogateescape")
        async for step in delivery_steps(service, target.hop, path, sender):
            yield step
        known = await in_hand(self._desk, [target.hop])
        yield state_step(None if known is None else known.get(shown(target.hop), {}))


def state_step(hop: dict[str, Any] | None) -> Step:
    """What the running server says of a hop; None: there is none."""
    if hop is None:
        return Step("state", "no server is running: nothing is delivered now", {"running": False})
    if not hop:
        return Step("state", "the hop is at rest", {"running": True})
    text = f"{hop['in_flight']} recipients in flight over {hop['connections']} connections"
    if hop["concurrency"]:
        text += f", of at most {hop['concurrency']} now"
    if hop["dead_seconds"]:
        text += f"; dead for {hop['dead_seconds']} s more: {hop['reason']}"
    if hop.get("shaped"):
        text += f"; it waits by {hop['shaped']}"
    return Step("state", text, {"running": True, **hop})
