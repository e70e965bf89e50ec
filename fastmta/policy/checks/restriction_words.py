"""What each word of a restriction list does: a decision, nothing, or an awaitable of either.

A decision is ("now", verdict), or ("if_permit", verdict) and ("if_reject", verdict), which wait for what the rest of
the list says; a list of restrictions is asked in the place of what named it. Texts and codes are Postfix's.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from fastmta.config.restrictions import WORDS, Restriction, parse, parse_filter
from fastmta.config.schema import Config
from fastmta.directory.addresses import parse as parse_address
from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.errors import TemporaryFailure
from fastmta.model.reply import Reply
from fastmta.model.stages import BARE_RECIPIENT, BARE_SENDER, Stage
from fastmta.model.verdict import Action, Verdict
from fastmta.policy.check import Context, Parts
from fastmta.policy.checks.access import UNREADABLE, AccessTables
from fastmta.policy.checks.dnsbl import Lists
from fastmta.policy.checks.servers import Servers
from fastmta.policy.delegation import encode_request
from fastmta.policy.policy_client import PolicyService

Decision = tuple[str, Verdict]
Found = Decision | list[Restriction] | None
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_ADDRESS: Final = re.compile(r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f:]*:[0-9A-Fa-f:]*")
_LITERAL: Final = re.compile(r"\[[0-9A-Za-z.:]+\]")
_CLASSES: Final = {
    Stage.CONNECT: "Client host",
    Stage.HELO: "Helo command",
    Stage.MAIL: "Sender address",
    Stage.RCPT: "Recipient address",
    Stage.DATA: "Data command",
    Stage.END: "End-of-data",
}
_PUTS_OFF: Final = frozenset(
    {
        "defer_if_permit",
        "reject_unknown_helo_hostname",
        "reject_unknown_sender_domain",
        "reject_unverified_sender",
    }
)
_UNVERIFIED: Final = "Unverified Client host"
_PLAIN: Final = "Session encryption is required"
_PERMIT: Final[Decision] = ("now", Verdict(Action.ACCEPT))


class Subject:
    """What a list is about, and how replies name it."""

    __slots__ = ("client", "context", "helo", "kind", "recipient", "sender", "stage")

    def __init__(self, stage: Stage, context: Context) -> None:
        self.stage = stage
        self.context = context
        self.kind = _CLASSES[stage]
        self.client = f"{context.client_name}[{context.client_ip}]"
        self.helo = context.helo
        self.sender = (context.sender or b"").decode("utf-8", "replace")
        self.recipient = context.recipient.decode("utf-8", "replace")

    @property
    def shown(self) -> str:
        """The list's subject in a reply."""
        return {
            Stage.CONNECT: self.client,
            Stage.HELO: self.helo,
            Stage.MAIL: self.sender,
            Stage.RCPT: self.recipient,
            Stage.DATA: "DATA",
        }.get(self.stage, "END-OF-MESSAGE")

    def about(self, stage: Stage) -> tuple[str, str]:
        """(what, its class) of one of the four that words ask about."""
        what = {Stage.CONNECT: self.client, Stage.HELO: self.helo, Stage.MAIL: self.sender}.get(stage, self.recipient)
        return what, _CLASSES[stage]


class Words:
    """The words of one configuration, one method each."""

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self._classes = {name: parse(words) for name, words in config.smtpd_restriction_classes.items()}
        self._tables = AccessTables(config, parts.clock)
        self._lists = Lists(parts.resolver, config.maps_rbl_reject_code)
        self._servers = Servers(config, parts.resolver)
        self._services: dict[str, PolicyService] = {}
        self._filters: dict[str, tuple[frozenset[int], ...]] = {}

    def ask(self, restriction: Restriction, subject: Subject) -> Found | Awaitable[Found]:
        """What the word says of the subject."""
        name, argument = restriction
        if name == "reject_unlisted_sender" and subject.context.sender is None:
            return None
        word: Callable[..., Found | Awaitable[Found]] | None = getattr(self, name, None)
        if word is None:
            return self._check_servers(subject, name, argument)
        return word(subject, argument) if argument else word(subject)

    def class_of(self, restriction: Restriction) -> list[Restriction] | None:
        """What a class stands for; None: it is a word."""
        return self._classes.get(restriction.name) if self._classes else None

    def named(self, restrictions: Iterable[Restriction]) -> set[str]:
        """The names of all words in a list and its classes."""
        out: set[str] = set()
        pending = list(restrictions)
        while pending:
            each = pending.pop()
            if each.name not in out:
                out.add(each.name)
                pending += self.class_of(each) or []
        return out

    def reads(self, name: str) -> Stage:
        """Where the last of what a word reads is known; where there are classes, a table may name any of them."""
        word = WORDS.get(name)
        if word is None:
            return Stage.CONNECT  # a class, whose words are asked about themselves
        return Stage.RCPT if word.given == "map" and self._classes else word.reads

    def may_put_off(self, name: str) -> bool:
        """Whether a word may say DEFER_IF_PERMIT."""
        word = WORDS.get(name)
        return name in _PUTS_OFF or (word is not None and word.given in ("map", "service"))

    def warn(self, subject: Subject, verdict: Verdict) -> None:
        """A refusal that warn_if_reject has taken back."""
        self._parts.log.info(
            "policy.would_refuse",
            session=subject.context.session,
            client=subject.client,
            reply=str(verdict.reply or ""),
            reason=verdict.reason or None,
        )

    # --- whoever it is ---

    def permit(self, subject: Subject) -> Found:
        return _PERMIT

    def reject(self, subject: Subject) -> Found:
        return self._refuse(self._config.reject_code, "7.1", subject.shown, subject.kind, "Access denied")

    def defer(self, subject: Subject) -> Found:
        return self._refuse(self._config.defer_code, "7.1", subject.shown, subject.kind, "Try again later")

    def defer_if_permit(self, subject: Subject) -> Found:
        return "if_permit", self._refuse(450, "7.0", subject.shown, subject.kind, "defer_if_permit requested")[1]

    def defer_if_reject(self, subject: Subject) -> Found:
        return "if_reject", self._refuse(450, "7.0", subject.shown, subject.kind, "defer_if_reject requested")[1]

    async def sleep(self, subject: Subject, seconds: str) -> Found:
        await asyncio.sleep(int(seconds))
        return None

    def reject_unauth_pipelining(self, subject: Subject) -> Found:
        if not subject.context.pipelined:
            return None
        text = f"<{_clean(subject.shown)}>: {subject.kind} rejected: Improper use of SMTP command pipelining"
        return "now", _refusal(503, "5.5.0", text)

    def reject_plaintext_session(self, subject: Subject) -> Found:
        code = self._config.plaintext_reject_code
        return None if subject.context.tls else ("now", _refusal(code, f"{code // 100}.7.1", _PLAIN))

    def permit_inet_interfaces(self, subject: Subject) -> Found:
        return _PERMIT if self._servers.have(subject.context.client_ip) else None

    def permit_mynetworks(self, subject: Subject) -> Found:
        return _PERMIT if subject.context.trusted else None

    def permit_sasl_authenticated(self, subject: Subject) -> Found:
        return _PERMIT if subject.context.login else None

    def permit_tls_clientcerts(self, subject: Subject) -> Found:
        shown = subject.context.certificate
        try:
            return _PERMIT if shown is not None and self._tables.relays(shown.fingerprints) else None
        except TemporaryFailure:
            return "now", Verdict(Action.DEFER, UNREADABLE, reason="relay_clientcerts cannot be read")

    def permit_tls_all_clientcerts(self, subject: Subject) -> Found:
        shown = subject.context.certificate
        return _PERMIT if shown is not None and shown.is_trusted else None

    # --- tables ---

    def check_ccert_access(self, subject: Subject, table: str) -> Found:
        shown = subject.context.certificate
        if shown is None:
            return None
        return self._tables.decide(table, ("certificate", *shown.fingerprints), subject.client, "Client certificate")

    def check_client_access(self, subject: Subject, table: str) -> Found:
        context = subject.context
        return self._access(table, subject, Stage.CONNECT, ("client", context.client_name, context.client_ip))

    def check_reverse_client_hostname_access(self, subject: Subject, table: str) -> Found:
        context = subject.context
        what = context.reverse_name
        return self._tables.decide(table, ("client", what, context.client_ip), what, _UNVERIFIED)

    def check_sasl_access(self, subject: Subject, table: str) -> Found:
        login = subject.context.login
        return self._tables.decide(table, ("login", login), login, "SASL login name") if login else None

    def check_helo_access(self, subject: Subject, table: str) -> Found:
        return self._access(table, subject, Stage.HELO, ("domain", subject.helo)) if subject.helo else None

    def check_sender_access(self, subject: Subject, table: str) -> Found:
        return (
            None
            if subject.context.sender is None
            else self._access(table, subject, Stage.MAIL, ("mail", subject.sender))
        )

    def check_recipient_access(self, subject: Subject, table: str) -> Found:
        return self._access(table, subject, Stage.RCPT, ("mail", subject.recipient)) if subject.recipient else None

    def check_policy_service(self, subject: Subject, address: str) -> Awaitable[Found]:
        return self._policy(subject, address)

    async def _policy(self, subject: Subject, address: str) -> Found:
        service = self._services.get(address)
        if service is None:
            service = self._services[address] = PolicyService(address, self._config, self._parts.clock)
        action, trouble = await service.ask(encode_request(subject.context))
        if action is None:
            action = self._config.smtpd_policy_service_default_action
        what, kind = subject.about(subject.stage) if subject.stage <= Stage.RCPT else (subject.shown, subject.kind)
        return self._tables.action(action, what, kind, f"{address}: {trouble or action}")

    def _access(self, table: str, subject: Subject, stage: Stage, key: tuple[str, ...]) -> Found:
        what, kind = subject.about(stage)
        return self._tables.decide(table, key, what, kind)

    def _check_servers(self, subject: Subject, word: str, table: str) -> Found | Awaitable[Found]:
        """check_WHOSE_a_access, check_WHOSE_mx_access and check_WHOSE_ns_access."""
        whose, kind, _ = word.removeprefix("check_").rsplit("_", 2)
        reverse = subject.context.reverse_name
        name, what, class_ = {
            "client": (subject.context.client_name, subject.client, "Client host"),
            "reverse_client_hostname": (reverse, reverse, _UNVERIFIED),
            "helo": (subject.helo, subject.helo, "Helo command"),
            "sender": (self._given_domain(subject, subject.sender, BARE_SENDER), subject.sender, "Sender address"),
            "recipient": (
                self._given_domain(subject, subject.recipient, BARE_RECIPIENT),
                subject.recipient,
                "Recipient address",
            ),
        }[whose]
        return self._served(table, kind, name, what, class_) if name and name != "unknown" else None

    async def _served(self, table: str, kind: str, name: str, what: str, class_: str) -> Found:
        try:
            async for key in self._servers.keys(name, kind):
                found = self._tables.find(table, key)
                if found is not None:
                    return self._tables.action(found[1], what, class_, f"{table}: {found[0]}")
        except TemporaryFailure:
            return "now", Verdict(Action.DEFER, UNREADABLE, reason=f"{table} cannot be read")
        except LookupTrouble as trouble:  # as Postfix: whom nobody knows nobody refuses
            self._parts.log.info("policy.servers_unknown", name=name, reason=str(trouble))
        return None

    def permit_mx_backup(self, subject: Subject) -> Found | Awaitable[Found]:
        if not subject.recipient:
            return None
        return self._mx_backup(subject) if self._relays(subject) is not None else _PERMIT

    async def _mx_backup(self, subject: Subject) -> Found:
        try:
            if parse_address(subject.recipient).is_source_routed:  # the best host trusts us, and may obey it
                return None
        except ValueError:
            return None
        try:
            are_we = await self._servers.are_backup(_domain(subject.recipient).rstrip(".").lower())
        except LookupTrouble:
            text = "Unable to look up mail exchanger information"
            what = _clean(subject.recipient)
            return "if_reject", _refusal(450, "4.4.4", f"<{what}>: Recipient address rejected: {text}")
        return _PERMIT if are_we else None

    # --- DNS lists ---

    def reject_rbl_client(self, subject: Subject, zone: str) -> Found | Awaitable[Found]:
        return self._address_list(subject, zone, self._lists.blocked)

    def permit_dnswl_client(self, subject: Subject, zone: str) -> Found | Awaitable[Found]:
        return None if self._would_relay(subject) else self._address_list(subject, zone, self._lists.listed)

    def _address_list(
        self, subject: Subject, zone: str, ask: Callable[..., Awaitable[Found]]
    ) -> Found | Awaitable[Found]:
        key = self._lists.reversed(subject.context.client_ip)
        if not key:
            return None
        return ask(key, *self._zone(zone), "Client host", subject.context.client_ip)

    def reject_rhsbl_client(self, subject: Subject, zone: str) -> Found | Awaitable[Found]:
        return self._name_list(*_known(subject.context.client_name), zone, "Client host")

    def permit_rhswl_client(self, subject: Subject, zone: str) -> Found | Awaitable[Found]:
        name = subject.context.client_name
        return None if self._would_relay(subject) else self._name_list(*_known(name), zone, "Client host", permits=True)

    def reject_rhsbl_reverse_client(self, subject: Subject, zone: str) -> Found | Awaitable[Found]:
        return self._name_list(*_known(subject.context.reverse_name), zone, _UNVERIFIED)

    def _would_relay(self, subject: Subject) -> bool:
        """A list of good clients is no reason to relay for them."""
        return bool(subject.recipient) and self._relays(subject) is not None

    def reject_rhsbl_helo(self, subject: Subject, zone: str) -> Found | Awaitable[Found]:
        return self._name_list(subject.helo, subject.helo, zone, "Helo command")

    def reject_rhsbl_sender(self, subject: Subject, zone: str) -> Found | Awaitable[Found]:
        return self._name_list(_domain(subject.sender), subject.sender, zone, "Sender address")

    def reject_rhsbl_recipient(self, subject: Subject, zone: str) -> Found | Awaitable[Found]:
        return self._name_list(_domain(subject.recipient), subject.recipient, zone, "Recipient address")

    def _name_list(
        self, name: str, what: str, zone: str, kind: str, *, permits: bool = False
    ) -> Found | Awaitable[Found]:
        if not _HOST.fullmatch(name) or "." not in name:
            return None
        ask = self._lists.listed if permits else self._lists.blocked
        return ask(name.rstrip(".").lower(), *self._zone(zone), kind, what)

    def _zone(self, text: str) -> tuple[str, tuple[frozenset[int], ...]]:
        zone, _, wanted = text.partition("=")
        if wanted and wanted not in self._filters:
            self._filters[wanted] = parse_filter(wanted)
        return zone, self._filters[wanted] if wanted else ()

    # --- names ---

    def reject_invalid_helo_hostname(self, subject: Subject) -> Found:
        name = subject.helo
        if not name or _is_host(name) or _LITERAL.fullmatch(name) or _ADDRESS.fullmatch(name):
            return None
        return self._refuse(
            self._config.invalid_hostname_reject_code, "5.2", subject.helo, "Helo command", "Invalid name"
        )

    def reject_non_fqdn_helo_hostname(self, subject: Subject) -> Found:
        name = subject.helo
        if not name or _LITERAL.fullmatch(name) or (_is_host(name) and "." in name.rstrip(".")):
            return None
        return self._refuse(
            self._config.non_fqdn_reject_code, "5.2", name, "Helo command", "need fully-qualified hostname"
        )

    def reject_unknown_helo_hostname(self, subject: Subject) -> Found | Awaitable[Found]:
        name = subject.helo
        if not name or _LITERAL.fullmatch(name):
            return None
        refusal = self._refuse(self._config.unknown_hostname_reject_code, "7.1", name, "Helo command", "Host not found")
        return self._has_mail_host(name, refusal, None) if _HOST.fullmatch(name) else refusal

    def reject_unknown_client_hostname(self, subject: Subject) -> Awaitable[Found]:
        return self._client_name(subject, confirmed=True)

    def reject_unknown_reverse_client_hostname(self, subject: Subject) -> Awaitable[Found]:
        return self._client_name(subject, confirmed=False)

    async def _client_name(self, subject: Subject, *, confirmed: bool) -> Found:
        ip, resolver = subject.context.client_ip, self._parts.resolver
        hostname = "hostname" if confirmed else "reverse hostname"
        text = f"Client host rejected: cannot find your {hostname}, [{ip}]"
        code = self._config.unknown_client_reject_code
        refusal: Decision = ("now", _refusal(code, f"{code // 100}.7.25" if confirmed else f"{code // 100}.7.1", text))
        known = subject.context.client_name if confirmed else subject.context.reverse_name
        if known != "unknown":
            return None
        try:
            names = await resolver.ptr(ip)
            if not confirmed:
                return None
            for name in names[:5]:
                if ip in await resolver.addresses(name):
                    return None
        except NotFound:
            pass
        except LookupTrouble:
            return "now", _for_now(refusal)  # what tables say of the name is not known either
        return refusal

    def reject_non_fqdn_sender(self, subject: Subject) -> Found:
        return self._non_fqdn(subject, subject.sender, BARE_SENDER, "Sender address")

    def reject_non_fqdn_recipient(self, subject: Subject) -> Found:
        return self._non_fqdn(subject, subject.recipient, BARE_RECIPIENT, "Recipient address")

    def _non_fqdn(self, subject: Subject, address: str, bare: int, kind: str) -> Found:
        domain = self._given_domain(subject, address, bare)
        if not address or _LITERAL.fullmatch(domain) or "." in domain.rstrip("."):
            return None
        return self._refuse(self._config.non_fqdn_reject_code, "5.2", address, kind, "need fully-qualified address")

    def _given_domain(self, subject: Subject, address: str, bare: int) -> str:
        """The domain that was said, not the one that we put in."""
        return "" if subject.context.bare & bare else _domain(address)

    def reject_unknown_sender_domain(self, subject: Subject) -> Found | Awaitable[Found]:
        return self._unknown_domain(subject.sender, "Sender address", "1.8", (550, "5.7.27"))

    def reject_unknown_recipient_domain(self, subject: Subject) -> Found | Awaitable[Found]:
        return self._unknown_domain(subject.recipient, "Recipient address", "1.2", (556, "5.1.10"))

    def _unknown_domain(self, address: str, kind: str, code: str, null_mx: tuple[int, str]) -> Found | Awaitable[Found]:
        domain = _domain(address).rstrip(".").lower()
        if not domain or _LITERAL.fullmatch(domain) or self._is_ours(domain):
            return None
        text = f"Domain {domain} does not accept mail (nullMX)"
        nobody: Decision = (
            "now",
            Verdict(Action.REJECT, Reply(*null_mx, f"<{address}>: {kind} rejected: {text}")),
        )
        unknown = self._config.unknown_address_reject_code
        return self._has_mail_host(domain, self._refuse(unknown, code, address, kind, "Domain not found"), nobody)

    async def _has_mail_host(self, name: str, refusal: Decision, nobody: Decision | None) -> Found:
        resolver = self._parts.resolver
        try:
            records = await resolver.mx(name)
            return nobody if all(not host for _, host in records) else None
        except NotFound as absence:
            if not absence.name_exists:
                return refusal
        except LookupTrouble:
            return "if_permit", _for_now(refusal)
        try:
            await resolver.addresses(name)
        except NotFound:
            return refusal
        except LookupTrouble:
            return "if_permit", _for_now(refusal)
        return None

    def _is_ours(self, domain: str) -> bool:
        config = self._config
        return any(
            domain in names
            for names in (
                config.mydestination,
                config.virtual_mailbox_domains,
                config.virtual_alias_domains,
                config.relay_domains,
            )
        )

    # --- destinations ---

    def permit_auth_destination(self, subject: Subject) -> Found:
        return None if not subject.recipient or self._relays(subject) else _PERMIT

    def reject_unauth_destination(self, subject: Subject) -> Found:
        code = self._config.relay_domains_reject_code
        return self._unauth_destination(subject, code, f"{code // 100}.7.1")

    def defer_unauth_destination(self, subject: Subject) -> Found:
        return self._unauth_destination(subject, 454, "4.7.1")

    def _unauth_destination(self, subject: Subject, code: int, enhanced: str) -> Found:
        reply = self._relays(subject) if subject.recipient else None
        return None if reply is None else ("now", _refusal(code, enhanced, reply.text))

    def reject_unlisted_sender(self, subject: Subject) -> Found:
        refusal = self._resolution(subject.context.sender or b"") if subject.sender else None
        if refusal is None or refusal.enhanced != "5.1.1":
            return None
        text = refusal.text.replace(": Recipient address rejected: ", ": Sender address rejected: ")
        return "now", Verdict(Action.REJECT, Reply(refusal.code, "5.1.0", text))

    def reject_unlisted_recipient(self, subject: Subject) -> Found:
        refusal = self._resolution(subject.context.recipient) if subject.recipient else None
        return None if refusal is None or refusal.enhanced != "5.1.1" else ("now", Verdict(Action.REJECT, refusal))

    def reject_sender_login_mismatch(self, subject: Subject) -> Found:
        return self._mismatch(subject)

    def reject_authenticated_sender_login_mismatch(self, subject: Subject) -> Found:
        return self._mismatch(subject, of_others=False)

    def reject_unauthenticated_sender_login_mismatch(self, subject: Subject) -> Found:
        return self._mismatch(subject, of_logins=False)

    def reject_known_sender_login_mismatch(self, subject: Subject) -> Found:
        return self._mismatch(subject, only_listed=True)

    def _mismatch(
        self, subject: Subject, *, of_logins: bool = True, of_others: bool = True, only_listed: bool = False
    ) -> Found:
        login, sender = subject.context.login, subject.context.sender
        if not sender or not (of_logins if login else of_others):
            return None
        directory = self._parts.directory
        try:
            if only_listed and directory.senders.listed(sender) is None:
                return None
            if directory.sender_allowed(login, sender) if login else not directory.senders.owned(sender):
                return None
        except TemporaryFailure:
            return "now", Verdict(Action.DEFER, UNREADABLE, reason="a table of senders cannot be read")
        text = f"not owned by user {login}" if login else "not logged in"
        return self._refuse(553, "7.1", subject.sender, "Sender address", text)

    def reject_unverified_sender(self, subject: Subject) -> Found | Awaitable[Found]:
        sender = subject.context.sender
        return self._unverified(sender, subject.sender, "sender", "1.7") if sender else None

    def reject_unverified_recipient(self, subject: Subject) -> Found | Awaitable[Found]:
        recipient = subject.context.recipient
        return self._unverified(recipient, subject.recipient, "recipient", "1.1") if recipient else None

    async def _unverified(self, address: bytes, shown: str, whose: str, detail: str) -> Found:
        known = await self._parts.verifier.status(address)
        if known.status == "ok":
            return None
        given: str = getattr(self._config, f"unverified_{whose}_reject_reason")
        is_final = known.status == "bounced"
        code: int = getattr(self._config, f"unverified_{whose}_{'reject' if is_final else 'defer'}_code")
        said = given or _clean(known.text, 250) or known.status
        text = f"{'undeliverable' if code >= 500 else 'unverified'} address: {said}"
        kind, verdict = self._refuse(code, detail, shown, f"{whose.capitalize()} address", text)
        tempfail = not is_final and self._config.reject_tempfail_action == "defer_if_permit"
        return ("if_permit" if tempfail else kind), verdict

    def _relays(self, subject: Subject) -> Reply | None:
        """The refusal of a recipient who is nobody's of ours."""
        refusal = self._resolution(subject.context.recipient)
        return refusal if refusal is not None and refusal.enhanced == "5.7.1" else None

    def _resolution(self, address: bytes) -> Reply | None:
        refusal: Reply | None = self._parts.directory.resolve(address, may_relay=False).refusal
        return refusal

    def reject_multi_recipient_bounce(self, subject: Subject) -> Found:
        if subject.context.sender or len(subject.context.recipients) < 2:
            return None
        code = self._config.multi_recipient_bounce_reject_code
        return self._refuse(code, "5.3", subject.shown, subject.kind, "Multi-recipient bounce")

    def _refuse(self, code: int, detail: str, what: str, kind: str, text: str) -> Decision:
        return "now", _refusal(code, f"{code // 100}.{detail}", f"<{_clean(what)}>: {kind} rejected: {text}")


def _refusal(code: int, enhanced: str, text: str) -> Verdict:
    return Verdict(Action.DEFER if code < 500 else Action.REJECT, Reply(code, enhanced, text))


def _for_now(refusal: Decision) -> Verdict:
    """A refusal for want of an answer, which is 450 whatever code the key gives an answer."""
    reply = refusal[1].reply
    assert reply is not None
    return _refusal(450, f"4{reply.enhanced[1:]}", reply.text)


def _known(name: str) -> tuple[str, str]:
    """A client's name to be looked up, "" where it has none, and as replies have it."""
    return "" if name == "unknown" else name, name


def _domain(address: str) -> str:
    return address.rpartition("@")[2] if "@" in address else ""


def _is_host(name: str) -> bool:
    """Whether a name can be a host's: digits and dots alone cannot."""
    return bool(_HOST.fullmatch(name)) and not name.replace(".", "").isdigit()


def _clean(text: str, characters: int = 320) -> str:
    """A name, or what a server has said, as a reply may carry it."""
    return "".join(c if 32 <= ord(c) < 127 else "?" for c in text[:characters])
