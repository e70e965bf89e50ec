"""How mail for one recipient would be delivered, said step by step and without sending: route, hosts, TLS, limits.

Everything is asked of the objects that deliver (router, Finder, TlsPolicies, RelayLogins), so what is said here is what
would be done. The DNS is asked, and an MTA-STS policy may be fetched.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from fastmta.delivery.finding import Finder
from fastmta.delivery.routing import next_hop_of
from fastmta.model.errors import PermanentFailure, TemporaryFailure
from fastmta.queue.retry import RetryPolicy

if TYPE_CHECKING:
    from fastmta.config.delivery_keys import DeliveryConfig
    from fastmta.config.shaping import ShapingConfig
    from fastmta.delivery.service import DeliveryService
    from fastmta.delivery.tls_policy import TlsPolicy
    from fastmta.dns.mx import Address


class Step(msgspec.Struct, frozen=True):
    """One step: its `kind` ("route", "address", "tls", ...), a sentence, and the values behind it for programs."""

    kind: str
    text: str
    values: dict[str, object] = {}


def route_step(service: "DeliveryService", hop: bytes, forward_path: bytes, *, held: bool = False) -> Step:
    """Which setting decides about the hop of a recipient."""
    router = service.services.router
    full = router.full_hop(hop, forward_path)
    line = router.line_for(forward_path)
    setting = router.named_by(full, forward_path)
    if line is not None:
        why = f'by {router.table_of(line[0])} "{line[0]}" = "{line[1]}"'
    elif setting == "relayhost":
        why = "by relayhost"
    elif setting:
        why = "by default_transport, or by what its sender has"
    else:
        why = "since no line of [transport] or transport_maps and no relayhost says otherwise"
    text = f"{_text(full)} {why}" + ("; it is held until it is released" if held else "")
    values = {"next_hop": _text(full), "setting": setting or "mx", "key": line[0] if line else "", "held": held}
    return Step("route", text, values)


async def delivery_steps(
    service: "DeliveryService", hop: bytes, forward_path: bytes, reverse_path: bytes
) -> AsyncIterator[Step]:
    """What the owner of a hop would do with this recipient, as far as it can be known without connecting."""
    config = service.config.delivery
    full = service.services.router.full_hop(hop, forward_path)
    try:
        next_hop = next_hop_of(full, config)
    except ValueError as error:
        yield Step("route", f"the route cannot be used, so the mail is deferred: {error}", {"error": str(error)})
        return
    if service.defers(next_hop.transport):
        text = f"mail of {next_hop.transport}: waits until somebody flushes it (defer_transports)"
        yield Step("deferred", text, {"transport": next_hop.transport})
    if next_hop.reply is not None:
        what = "delivered" if next_hop.reply.code < 300 else "deferred" if next_hop.reply.is_temporary else "bounced"
        yield Step(
            "transport", f"{next_hop.transport}: it is {what} with {next_hop.reply}", {"reply": str(next_hop.reply)}
        )
    elif next_hop.transport in ("smtp", "lmtp"):
        lmtp = next_hop.transport == "lmtp"
        hosts = []
        async for step in _server_steps(service, hop, forward_path, reverse_path, lmtp=lmtp):
            if step.kind == "address" and "host" in step.values:
                hosts.append(str(step.values["host"]))
            yield step
        yield _limits_step(config, next_hop.transport)
        name = _text(hop).partition(":")[2]
        for rule in service.shaping.rules:
            if rule.names(name) or any(rule.names_host(host) for host in hosts):
                yield _rule_step(rule.config)
    else:
        yield Step("transport", f"{next_hop.transport}: no other server takes part", {"transport": next_hop.transport})
    yield _retry_step(RetryPolicy.of(config), reverse_path)


async def _server_steps(
    service: "DeliveryService", hop: bytes, forward_path: bytes, reverse_path: bytes, *, lmtp: bool
) -> AsyncIterator[Step]:
    try:
        addresses = await Finder(service, hop).addresses(forward_path, null_sender=not reverse_path)
    except (PermanentFailure, TemporaryFailure) as failure:
        what = "deferred" if failure.reply.is_temporary else "bounced"
        yield Step("address", f"no address, so the mail is {what}: {failure.reply}", {"error": str(failure.reply)})
        return
    if not addresses:
        yield Step("address", "no address that mail with this sender may take", {"error": "no address"})
    for address in addresses:
        yield _address_step(address)
        yield await _tls_step(service, address, lmtp=lmtp)
        login = _login_step(service, address, reverse_path) if address.port else None
        if login is not None:
            yield login


def _address_step(address: "Address") -> Step:
    if not address.port:
        return Step("address", f"unix socket {address.ip}", {"path": address.ip})
    by = f"MX {address.preference} of {address.domain}" if address.domain else f"{address.next_hop or address.host}"
    values = {"host": address.host, "ip": address.ip, "port": address.port, "preference": address.preference}
    return Step("address", f"{address.host}[{address.ip}]:{address.port} ({by})", values)


async def _tls_step(service: "DeliveryService", address: "Address", *, lmtp: bool) -> Step:
    try:
        policy = await service.tls.of(address, lmtp=lmtp, plain_text=False)
    except TemporaryFailure as failure:
        return Step("tls", f"mail must not go there now: {failure.reply}", {"error": str(failure.reply)})
    values: dict[str, object] = {"level": policy.level, "setting": "smtp_tls_policy_maps" if policy.is_ours else ""}
    return Step("tls", _tls_text(policy), values)


def _tls_text(policy: "TlsPolicy") -> str:
    by = "by smtp_tls_policy_maps" if policy.is_ours else "by the domain's MTA-STS policy"
    if not policy.is_ours and policy.level != "mta-sts":
        by = "by its TLSA records" if policy.tlsa else "by smtp_tls_security_level"
    if policy.level == "none":
        return f"none ({by}): plain text"
    if policy.level == "may":
        return f"may ({by}): TLS where it is offered, else plain text; the certificate is not verified"
    checked = "the certificate is not verified"
    if policy.must_verify:
        checked = "the certificate must match " + (", ".join(policy.match) or "its TLSA records")
    return f"{policy.level} ({by}): no mail without TLS; {checked}"


def _login_step(service: "DeliveryService", address: "Address", reverse_path: bytes) -> Step | None:
    """Who logs in; the entry's password is not shown."""
    logins = service.logins
    try:
        entry = logins.of_sender(reverse_path) or logins.of_host(address.host, address.next_hop)
    except TemporaryFailure as failure:
        return Step("login", f"the login cannot be looked up: {failure.reply}", {"error": str(failure.reply)})
    user = entry.partition(":")[0]
    return Step("login", f"AUTH as {user} by smtp_sasl_password_maps", {"user": user}) if user else None


def _limits_step(config: "DeliveryConfig", transport: str) -> Step:
    limit = {
        name: getattr(config, f"{transport}_{key}")
        for name, key in (
            ("concurrency", "destination_concurrency_limit"),
            ("initial_concurrency", "initial_destination_concurrency"),
            ("recipients", "destination_recipient_limit"),
            ("rate_delay", "destination_rate_delay"),
        )
    }
    text = f"at most {limit['concurrency']} connections to this hop, {limit['initial_concurrency']} at first; "
    text += f"{limit['recipients']} recipients a transaction"
    if limit["rate_delay"]:
        text = f"one delivery at a time to this hop, and {limit['rate_delay']:g} s between two; "
        text += f"{limit['recipients']} recipients a transaction"
    return Step("limits", text, limit)


def _rule_step(rule: "ShapingConfig") -> Step:
    """A traffic rule that names the hop or one of its hosts."""
    said = [
        f"{value} {words}"
        for value, words in (
            (rule.concurrency, "connections"),
            (rule.messages_per_second, "messages a second"),
            (rule.messages_per_hour, "messages an hour"),
            (rule.messages_per_connection, "messages a connection"),
            (rule.recipients_per_message, "recipients a transaction"),
        )
        if value
    ]
    if rule.source_addresses:
        said.append("from " + ", ".join(rule.source_addresses))
    per = {"rule": "all that it names together", "domain": "each next hop", "source": "each address of ours"}[rule.per]
    text = f"rule {rule.title} ({per}): {'; '.join(said) or 'no limit'}"
    return Step("shaping", text, {"rule": rule.title, **msgspec.structs.asdict(rule)})


def _retry_step(policy: RetryPolicy, reverse_path: bytes) -> Step:
    lifetime_s = policy.lifetime_s(reverse_path)
    return Step(
        "retry",
        f"a temporary failure is tried again after {policy.minimal_backoff_s:g} to {policy.maximal_backoff_s:g} s, and "
        f"given up {lifetime_s / 86400:g} days after arrival",
        {"minimal_s": policy.minimal_backoff_s, "maximal_s": policy.maximal_backoff_s, "lifetime_s": lifetime_s},
    )


def _text(hop: bytes) -> str:
    return hop.decode("utf-8", "backslashreplace")
