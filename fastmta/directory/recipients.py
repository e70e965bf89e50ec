"""The recipients' directory: what becomes of one RCPT, by aliases, accounts and routes, in Postfix's order.

virtual_alias_maps and the store's aliases rewrite any recipient, over and over; alias_maps rewrite the local parts of
mydestination; what is left is an account here, a next hop, or a refusal that names the reason. `postmaster` and `abuse`
of our domains always have a home: where aliases and accounts give none, abuse is the postmaster's, and the postmaster
is whoever owns the oldest enabled account, which is the one that `fastmta init` made.

Invariants: nothing outside our domains is accepted from a client that may not relay, whatever its local part says;
every expansion ends (depth, size and loops are bounded); an answer is stale only if `version` has changed since.

Left to others: which hop a foreign domain has (the router), and counting what is refused.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta._intake import Recipient
from fastmta.directory import addresses
from fastmta.directory.addresses import Address
from fastmta.directory.aliases import Target, TargetKind, parse_targets, read_include, split_targets
from fastmta.directory.domains import DomainClass, Domains
from fastmta.directory.maps import TableSet, alias_tables
from fastmta.directory.outgoing import Outgoing
from fastmta.directory.refusals import relay_denied, shown, shown_address, unknown
from fastmta.directory.seams import Account, Router, Store
from fastmta.directory.senders import Senders
from fastmta.directory.srs import Srs, SrsRefused, is_srs, own_srs
from fastmta.directory.tenants import Tenants
from fastmta.model.envelope import LocalTarget, QueuedTarget, Resolution
from fastmta.model.errors import ConfigError, PermanentFailure, StorageFailure, TemporaryFailure
from fastmta.model.reply import Reply
from fastmta.runtime.clock import Clock, SystemClock

if TYPE_CHECKING:
    from fastmta.config.schema import Config

REFRESH_S: Final = 1.0  # how long an edited map or a change by another process may go unseen
_ROLES: Final = ("postmaster", "abuse")  # RFC 5321 §4.5.1, RFC 2142
_HOMELESS_TOLD: Final = 1000  # addresses that are warned of before they are forgotten
_STORED: Final = "an alias of the store"
_LOCAL_HOP: Final = b"local:"
_UNREADABLE: Final = Reply(451, "4.3.0", "Temporary lookup failure")
_NOBODY_YET: Final = Reply(451, "4.3.5", "This server has no account yet")
_NOT_BUILT: Final = Reply(451, "4.3.5", "Mail system configuration error")

Rewriting = tuple[str, str, tuple[str, ...]]  # address, what rewrote it, what it became


class Directory:
    """The directory of one configuration. Look-ups are synchronous: memory, and short reads of the store's map."""

    __slots__ = (
        "_account_domains",
        "_aliases",
        "_checked_at",
        "_clock",
        "_config",
        "_delimiters",
        "_domains",
        "_homeless",
        "_log_homeless",
        "_log_problem",
        "_outgoing",
        "_relay_recipients",
        "_router",
        "_srs_problem",
        "_store",
        "_store_version",
        "_told",
        "_version",
        "_virtual",
        "senders",
        "srs",
        "tenants",
    )

    def __init__(
        self,
        config: "Config",
        store: Store,
        router: Router,
        *,
        clock: Clock | None = None,
        log_problem: Callable[[str], None] | None = None,
        log_homeless: Callable[[str, str], None] | None = None,
    ) -> None:
        """`log_problem` is told, once for each change, of a map that cannot be read; `log_homeless` of a postmaster's
        address that only the oldest account is left for (address, account; "" where there is none), once too.
        """
        self._config = config
        self._store = store
        self._router = router
        self._clock = clock or SystemClock()
        self._log_problem = log_problem
        self._log_homeless = log_homeless
        self._homeless: set[str] = set()  # told already
        self._told: list[Rewriting] | None = None  # while somebody wants each step explained
        self._delimiters = config.recipient_delimiter
        self._account_domains = config.mydestination
        self._srs_problem = ""
        try:
            self.srs: Srs | None = own_srs(config, self._clock.now)
        except ConfigError as error:  # mail for such addresses is put off until it is mended
            self.srs = None
            self._srs_problem = str(error)
        self._virtual = TableSet(config.virtual_alias_maps)
        self._domains = Domains(config, self._virtual)
        self._aliases = alias_tables(config.alias_maps)
        self.senders = Senders(self, TableSet(config.smtpd_sender_login_maps))
        self.tenants = Tenants(TableSet(config.tenant_maps), config.recipient_delimiter, self.is_ours)
        self._relay_recipients = TableSet(config.relay_recipient_maps)
        self._outgoing = Outgoing(config, router)
        self._store_version = self._version_of_store()
        self._checked_at = self._clock.monotonic()
        self._version = 1
        self._tell_problems()

    @property
    def version(self) -> int:
        """Changes whenever an earlier answer may be stale. Looks at the maps' files at most once a second."""
        self._refresh()
        return self._version

    @property
    def version_until(self) -> float:
        """The instant of the monotonic clock before which `version` stays what it was when it was asked last."""
        return self._checked_at + REFRESH_S

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now - self._checked_at >= REFRESH_S:
            self._checked_at = now
            changed = [self._router.refresh(), *[tables.refresh() for tables in self._tables()]]
            if any(changed):
                self._tell_problems()
            store_version = self._version_of_store()
            if any(changed) or store_version != self._store_version:
                self._store_version = store_version
                self._version += 1
                self._homeless.clear()

    def _tables(self) -> Iterable[TableSet]:
        own = (self._virtual, self._aliases, self.senders.logins, self.tenants.names, self._relay_recipients)
        return *own, *self._outgoing.tables

    def _version_of_store(self) -> int:
        """The store's count of changes; that it cannot be read is told by what needs it."""
        try:
            return self._store.directory_version
        except StorageFailure:
            return -1

    def resolve(self, forward_path: bytes, *, may_relay: bool) -> Resolution:
        """What one recipient stands for. `forward_path` is without angle brackets and syntactically valid."""
        self._refresh()
        text = forward_path.decode("utf-8", "surrogateescape")
        try:
            address = self.qualify(f"postmaster@{self._domains.own}" if text.lower() == "postmaster" else text)
            if self._domains.is_of_srs(address.domain) and is_srs(address.local_part):
                address = self._original_sender(address)
            else:
                self._require_ours(address, may_relay)
            address = self._canonical(address)
            resolution = self._with_home(address) if address.local_part.lower() in _ROLES else self._expanded(address)
            if not may_relay and address.is_source_routed:
                self._require_no_relay(address, resolution)
            tenant = self.tenants.of_address(address) if resolution.refusal is None else ""
            return msgspec.structs.replace(resolution, tenant=tenant) if tenant else resolution
        except ValueError:
            return Resolution(Reply(553, "5.1.3", f"<{shown(text)}>: Recipient address rejected: Bad address syntax"))
        except (TemporaryFailure, PermanentFailure) as failure:
            return Resolution(failure.reply)
        except StorageFailure:  # damage is no absence: whoever it is may be there
            return Resolution(_UNREADABLE)

    def _original_sender(self, address: Address) -> Address:
        """Whom an address of SRS's stands for. Whoever knows one may write there, as to the sender himself."""
        if self.srs is None:
            raise TemporaryFailure(_NOT_BUILT)
        try:
            sender = self.srs.reverse(address.local_part)
        except SrsRefused as error:
            text = f"<{shown_address(address)}>: Recipient address rejected: {error}"
            raise PermanentFailure(Reply(550, "5.1.1", text)) from error
        self._tell(address, "SRS", [shown_address(sender)])
        return sender

    def explain(self, forward_path: bytes, *, may_relay: bool) -> tuple[Resolution, Sequence[Rewriting]]:
        """As `resolve`, with each step of it: (address, the table that rewrote it, what it became)."""
        told: list[Rewriting] = []
        self._told = told
        try:
            return self.resolve(forward_path, may_relay=may_relay), told
        finally:
            self._told = None

    def _tell(self, address: Address, table: str, targets: Iterable[str]) -> None:
        if self._told is not None:
            self._told.append((shown_address(address), table, tuple(map(shown, targets))))

    def _with_home(self, address: Address) -> Resolution:
        """As `_expanded`, but never refused for good: an alias may be dead or loop, and an account be disabled."""
        try:
            resolution = self._expanded(address)
            refusal = resolution.refusal
        except PermanentFailure as failure:
            refusal = failure.reply
        if refusal is None or refusal.is_temporary or not self._is_home(address.domain):
            return resolution if refusal is None else Resolution(refusal)
        if address.local_part.lower() != _ROLES[0]:
            return self._with_home(Address(_ROLES[0], address.domain))
        home = self._home(address)
        return Resolution(None, (home,)) if home is not None else Resolution(_NOBODY_YET)

    def _is_home(self, domain: str) -> bool:
        return self.class_of(domain) in (DomainClass.LOCAL, DomainClass.MAILBOX, DomainClass.ALIAS)

    def _home(self, address: Address) -> LocalTarget | None:
        """Who gets the mail of a role that nobody has; None: there is no account at all."""
        account = self._store.accounts.oldest()
        self._tell(address, "the oldest account, since nobody has this role", [account.address] if account else [])
        if self._log_homeless is not None and address.key not in self._homeless:
            if len(self._homeless) >= _HOMELESS_TOLD:
                self._homeless.clear()
            self._homeless.add(address.key)
            self._log_homeless(shown_address(address), account.address if account is not None else "")
        if account is None:
            return None
        return LocalTarget(account.id, account.inbox_id, address.raw, account.address.encode())

    def forget_homeless(self) -> None:
        """Tells again of those that were told."""
        self._homeless.clear()

    def sender_allowed(self, login: str, reverse_path: bytes) -> bool:
        """Whether an account may send as `reverse_path`: its own address, extensions of it, what is an alias of it, and
        what smtpd_sender_login_maps give it; and the null path. One that is closed or gone since may send nothing.
        """
        account = self._store.accounts.lookup(login.lower())
        if account is None or not account.enabled:
            return False
        if not reverse_path:
            return True
        self._refresh()
        return self.senders.allowed(login, account.id, reverse_path)

    def at_home(self, path: bytes) -> Sequence[LocalTarget | QueuedTarget]:
        """Where mail to an address of our own domains goes, whether there is room or not; nowhere, for others.
        ValueError, Permanent- or TemporaryFailure.
        """
        address = self.qualify(path.decode("utf-8", "surrogateescape"))
        if self.class_of(address.domain) in (DomainClass.OTHER, DomainClass.RELAY):
            return ()
        return self._expanded(address, needs_room=False).targets

    def is_ours(self, domain: str) -> bool:
        """Whether mail of a domain is delivered here, or by hosts that we relay to."""
        return self.class_of(domain) is not DomainClass.OTHER

    def class_of(self, domain: str) -> DomainClass:
        """The class of a canonical domain."""
        return self._domains.class_of(domain)

    def qualify(self, text: str) -> Address:
        """A written address as one with a domain. ValueError: not an address."""
        return self._domains.qualify(text)

    def problems(self) -> list[str]:
        """Why maps cannot be used, one line each."""
        found = [problem for tables in self._tables() for problem in tables.problems()] + self._router.problems()
        return [self._srs_problem, *found] if self._srs_problem else found

    def _tell_problems(self) -> None:
        for problem in self.problems() if self._log_problem else ():
            assert self._log_problem is not None
            self._log_problem(problem)

    def _require_ours(self, address: Address, may_relay: bool) -> None:
        if may_relay:
            return
        found = self.class_of(address.domain)
        if found is DomainClass.OTHER or (found is DomainClass.RELAY and address.is_source_routed):
            raise PermanentFailure(relay_denied(address))

    def _require_no_relay(self, address: Address, resolution: Resolution) -> None:
        """A catch-all (`@ours @theirs`) must not hand a stranger's u%h or g!u on to a host that may obey it."""
        for target in resolution.targets:
            if isinstance(target, QueuedTarget):
                passed_on = addresses.parse(target.forward_path.decode("utf-8", "surrogateescape"))
                if passed_on.is_source_routed:
                    raise PermanentFailure(relay_denied(address))

    def _expanded(self, first: Address, *, needs_room: bool = True) -> Resolution:
        """Depth-first through the aliases. An address met again below itself is a loop; elsewhere it is only known."""
        targets: dict[LocalTarget | QueuedTarget, None] = {}
        refusals: list[tuple[Address, Reply]] = []
        above: set[str] = set()
        known: set[str] = set()
        stack: list[tuple[Address, bool]] = [(first, False)]
        while stack:
            address, is_end = stack.pop()
            key = address.key
            if is_end:
                above.discard(key)
                continue
            if key in above or len(above) > self._config.virtual_alias_recursion_limit:
                raise PermanentFailure(Reply(554, "5.4.6", f"<{shown_address(first)}>: Alias loop"))
            if key in known:
                continue
            known.add(key)
            if len(known) > self._config.virtual_alias_expansion_limit:
                raise TemporaryFailure(Reply(451, "4.6.0", f"<{shown_address(first)}>: Alias expansion is too large"))
            inner = self._virtual_targets(address)
            if inner is None:
                inner = self._local_targets(address, targets)
            if inner is None:
                self._finish(address, targets, refusals, stack)
                continue
            above.add(key)
            stack.append((address, True))
            for target in reversed(inner):
                if target.key == key:  # `user: user, other`: the mailbox of that name itself
                    self._finish(address, targets, refusals, None)
                else:
                    stack.append((target, False))
        return self._verdict(first, targets, refusals, needs_room)

    def _verdict(
        self,
        first: Address,
        targets: dict[LocalTarget | QueuedTarget, None],
        refusals: list[tuple[Address, Reply]],
        needs_room: bool,
    ) -> Resolution:
        if not targets:
            if not refusals:  # an alias of nothing but what was dropped
                raise PermanentFailure(unknown(first, "alias table"))
            temporary = [reply for _, reply in refusals if reply.is_temporary]
            return Resolution(temporary[0] if temporary else refusals[0][1])
        for address, reply in refusals:  # the others get it, and the sender is told of this one
            hop = f"error:{reply.enhanced} {reply.text}"[:200].encode("utf-8", "surrogateescape")
            targets[QueuedTarget(address.raw, hop)] = None
        if needs_room and len(targets) == 1 and not refusals:
            (only,) = targets
            if isinstance(only, LocalTarget):
                self._require_room(only, first)
        return Resolution(None, tuple(targets))

    def _require_room(self, target: LocalTarget, first: Address) -> None:
        """A full mailbox is told at RCPT; the commit checks again, with the message's size."""
        account = self._account_of(addresses.parse(target.address.decode("utf-8", "surrogateescape")))
        if account is not None and self._store.accounts.is_full(account.id, account.inbox_id):
            raise TemporaryFailure(Reply(452, "4.2.2", f"<{shown_address(first)}>: Mailbox full"))

    def _virtual_targets(self, address: Address) -> list[Address] | None:
        """What virtual_alias_maps, else the store's aliases make of an address; None: nothing."""
        user, extension = addresses.split_extension(address.local_part, self._delimiters)
        if self._virtual:
            found = self._find_virtual(address, user, extension)
            if found is not None:
                value, unmatched = found
                self._tell(address, "virtual_alias_maps", split_targets(value))
                return [self._rewritten(item, address, unmatched) for item in split_targets(value)]
        lookup = self._store.aliases.lookup
        stored = lookup(address.key)
        if stored is None and extension:
            stored = lookup(f"{user.lower()}@{address.domain}")
            if stored is not None:
                self._tell(address, _STORED, stored)
                return [self._rewritten(item, address, extension) for item in stored]
        if stored is None and self._account_of(address) is None:  # a catch-all takes what nobody else has
            stored = lookup(f"@{address.domain}")
        if stored is None:
            return None
        self._tell(address, _STORED, stored)
        return [self._rewritten(item, address, "") for item in stored]

    def _find_virtual(self, address: Address, user: str, extension: str) -> tuple[str, str] | None:
        """(value, extension that no key matched), in the order of virtual(5)."""
        forms = [(f"{address.local_part}@{address.domain}", "")]
        if extension:
            forms.append((f"{user}@{address.domain}", extension))
        if address.domain == self._config.myorigin or address.domain in self._config.mydestination:
            forms.append((address.local_part, ""))
            if extension:
                forms.append((user, extension))
        forms.append((f"@{address.domain}", extension))
        for form, unmatched in forms:
            value = self._virtual.get(form, whole=form is forms[0][0])
            if value is not None:
                return value, unmatched
        return None

    def _rewritten(self, item: str, original: Address, extension: str) -> Address:
        """A target; `@other` keeps the local part, and an extension that no key matched goes along."""
        if item.startswith("@"):
            return Address(original.local_part, addresses.canonical_domain(item[1:]))
        target = self.qualify(item)
        return Address(target.local_part + extension, target.domain) if extension else target

    def _local_targets(self, address: Address, targets: dict[LocalTarget | QueuedTarget, None]) -> list[Address] | None:
        """What alias_maps make of a local part of mydestination; None: nothing."""
        if not self._aliases or self.class_of(address.domain) is not DomainClass.LOCAL:
            return None
        user, extension = addresses.split_extension(address.local_part, self._delimiters)
        value = self._aliases.get(address.local_part)
        if value is None and extension:
            value = self._aliases.get(user, whole=False)
        if value is None:
            return None
        self._tell(address, "alias_maps", [target.text for target in parse_targets(value)])
        out: list[Address] = []
        pending = parse_targets(value)
        included = 0
        while pending:
            target = pending.pop(0)
            if target.kind is TargetKind.INCLUDE:
                included += 1
                pending += self._included(target, included)
            elif target.kind is TargetKind.FILE and target.text == "/dev/null":
                targets[QueuedTarget(address.raw, b"discard:")] = None
            elif target.kind is not TargetKind.ADDRESS:
                raise TemporaryFailure(_NOT_BUILT)
            elif target.final:
                out.append(address if target.text.lower() == user.lower() else self.qualify(target.text))
            else:
                named = self.qualify(target.text)
                # `user: user, other` where myorigin is another of our names is that mailbox too, not a loop.
                same = named.local_part.lower() == address.local_part.lower()
                out.append(address if same and self.class_of(named.domain) is DomainClass.LOCAL else named)
        return out

    def _included(self, target: Target, count: int) -> list[Target]:
        if count > 100:
            raise TemporaryFailure(_NOT_BUILT)
        try:
            return read_include(target.text)
        except (OSError, ConfigError) as error:
            if self._log_problem is not None:
                self._log_problem(str(error))
            raise TemporaryFailure(_NOT_BUILT) from error

    def _finish(
        self,
        address: Address,
        targets: dict[LocalTarget | QueuedTarget, None],
        refusals: list[tuple[Address, Reply]],
        stack: list[tuple[Address, bool]] | None,
    ) -> None:
        """An address that no alias changes any more becomes a target or a refusal."""
        found = self.class_of(address.domain)
        if found is DomainClass.ALIAS:
            self._unknown(address, "virtual alias table", targets, refusals, stack)
            return
        if found is DomainClass.RELAY and self._relay_recipients and not self._is_relayed_to(address):
            refusals.append((address, unknown(address, "relay recipient table")))
            return
        route = self._router.route(address.raw)
        if route.refusal is not None:
            refusals.append((address, route.refusal))
            if route.refusal.is_temporary:
                self._tell_problems()
        elif route.hop != _LOCAL_HOP or route.held:
            targets[QueuedTarget(address.raw, route.hop, route.held)] = None
        else:
            account = self._account_of(address)
            if account is None:
                table = "local recipient table" if found is DomainClass.LOCAL else "virtual mailbox table"
                self._unknown(address, table, targets, refusals, stack)
            elif not account.enabled:
                refusals.append((address, Reply(550, "5.2.1", f"<{shown_address(address)}>: Mailbox disabled")))
            else:
                targets[LocalTarget(account.id, account.inbox_id, address.raw, account.address.encode())] = None

    def _is_relayed_to(self, address: Address) -> bool:
        """Whether relay_recipient_maps name an address, or all of its domain."""
        user, _ = addresses.split_extension(address.local_part, self._delimiters)
        forms = (address.key, f"{user}@{address.domain}", f"@{address.domain}")
        return any(self._relay_recipients.get(form, whole=not n) is not None for n, form in enumerate(forms))

    # --- what an accepted envelope brings along ---

    @property
    def adjusts(self) -> bool:
        """Whether `adjusted` may change anything."""
        return self._outgoing.changes_any

    def sender_of(self, path: bytes) -> bytes:
        """The reverse path of an accepted envelope, with its addresses rewritten. Raises TemporaryFailure."""
        self._refresh()
        return self._outgoing.canonical.sender(path)

    def _canonical(self, address: Address) -> Address:
        found = self._outgoing.canonical.recipient(address)
        if found != address:
            self._tell(address, "address rewriting", [shown_address(found)])
        return found

    def adjusted(
        self,
        sender: bytes,
        recipients: Sequence[Recipient],
        *,
        copies: bool = True,
        more: Sequence[bytes] = (),
        through: str = "",
    ) -> list[Recipient]:
        """As Outgoing.adjusted. Raises TemporaryFailure."""
        self._refresh()
        return self._outgoing.adjusted(self, sender, recipients, copies, more, through)

    def _unknown(
        self,
        address: Address,
        table: str,
        targets: dict[LocalTarget | QueuedTarget, None],
        refusals: list[tuple[Address, Reply]],
        stack: list[tuple[Address, bool]] | None,
    ) -> None:
        role, origin = address.local_part.lower(), self._config.myorigin
        if role in _ROLES and address.domain != origin and stack is not None:
            at_origin = self.class_of(origin)
            if at_origin is DomainClass.LOCAL or at_origin is DomainClass.MAILBOX:
                stack.append((Address(role, origin), False))
                return
        if role in _ROLES and self._is_home(address.domain):  # somebody's alias for it
            if role != _ROLES[0] and stack is not None:
                stack.append((Address(_ROLES[0], address.domain), False))
                return
            home = self._home(address)
            if home is not None:
                targets[home] = None
                return
        refusals.append((address, unknown(address, table)))

    def _account_of(self, address: Address) -> Account | None:
        """The account of an address: exact, else without its extension; the domains of mydestination share theirs."""
        user, extension = addresses.split_extension(address.local_part, self._delimiters)
        names = (address.local_part, user) if extension else (user,)
        domains: tuple[str, ...] = (address.domain,)
        if len(self._account_domains) > 1 and address.domain in self._account_domains:
            domains += tuple(domain for domain in self._account_domains if domain != address.domain)
        for domain in domains:
            for name in names:
                account = self._store.accounts.lookup(f"{name.lower()}@{domain}")
                if account is not None:
                    return account
        return None
