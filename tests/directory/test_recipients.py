"""What becomes of a recipient: aliases, accounts, classes of domains, and what is never relayed."""

import os
from dataclasses import dataclass, field

import msgspec
import pytest

from fastmta.config.schema import Config
from fastmta.delivery.routing import Router
from fastmta.directory.domains import DomainClass
from fastmta.directory.recipients import Directory
from fastmta.model.envelope import LocalTarget, QueuedTarget
from fastmta.model.errors import TemporaryFailure
from fastmta.runtime.clock import ManualClock


@dataclass(frozen=True)
class Account:
    id: int
    inbox_id: int
    quota_bytes: int = 0
    enabled: bool = True
    address: str = ""


@dataclass
class Accounts:
    known: dict = field(default_factory=dict)
    used: dict = field(default_factory=dict)

    def lookup(self, address):
        return self.known.get(address)

    def oldest(self):
        return next((account for account in self.known.values() if account.enabled), None)

    def is_full(self, account_id, mailbox_id):
        quotas = [each.quota_bytes for each in self.known.values() if each.id == account_id]
        return bool(quotas[0]) and self.used.get(account_id, 0) >= quotas[0]


@dataclass
class Aliases:
    known: dict = field(default_factory=dict)

    def lookup(self, address):
        return self.known.get(address)


@dataclass
class Store:
    accounts: Accounts = field(default_factory=Accounts)
    aliases: Aliases = field(default_factory=Aliases)
    directory_version: int = 1


CONFIG = Config(
    myhostname="mx.example.test",
    mydomain="example.test",
    myorigin="example.test",
    mydestination=("example.test", "localhost"),
    virtual_mailbox_domains=("boxes.test",),
    virtual_alias_domains=("aliases.test",),
    relay_domains=("relay.test",),
    recipient_delimiter="+",
)


class World:
    def __init__(self, tmp_path, virtual="", local="", **changes):
        self.virtual, self.local = tmp_path / "virtual", tmp_path / "aliases"
        self.virtual.write_text(virtual)
        self.local.write_text(local)
        self.store = Store()
        for number, address in enumerate(
            ["user@example.test", "other@example.test", "box@boxes.test", "a%b@example.test", "full@example.test"], 1
        ):
            self.store.accounts.known[address] = Account(number, number * 10)
        self.store.accounts.known["full@example.test"] = Account(5, 50, quota_bytes=100)
        self.store.accounts.known["off@example.test"] = Account(6, 60, enabled=False)
        self.clock = ManualClock()
        self.logged = []
        self.homeless = []
        self.config = config = msgspec.structs.replace(
            CONFIG, virtual_alias_maps=(f"hash:{self.virtual}",), alias_maps=(f"hash:{self.local}",), **changes
        )
        self.directory = Directory(
            config,
            self.store,
            Router(config),
            clock=self.clock,
            log_problem=self.logged.append,
            log_homeless=lambda address, account: self.homeless.append(address),
        )

    def resolve(self, address, may_relay=False):
        return self.directory.resolve(address.encode(), may_relay=may_relay)

    def targets(self, address, may_relay=False):
        """Short forms: an account's id, or the path under its hop."""
        found = self.resolve(address, may_relay)
        assert found.refusal is None, found.refusal
        return [
            t.account_id if isinstance(t, LocalTarget) else f"{t.hop.decode()} {t.forward_path.decode()}"
            for t in found.targets
        ]

    def refusal(self, address, may_relay=False):
        found = self.resolve(address, may_relay)
        assert found.refusal is not None
        assert found.targets == ()
        return f"{found.refusal.code} {found.refusal.enhanced}"


@pytest.fixture
def make(tmp_path):
    return lambda *texts, **changes: World(tmp_path, *texts, **changes)


@pytest.mark.parametrize(
    ("address", "account"),
    [
        ("user@example.test", 1),
        ("USER@Example.TEST", 1),
        ("user@example.test.", 1),
        ('"user"@example.test', 1),
        ("user+tag@example.test", 1),
        ("user+@example.test", 1),
        ("user@localhost", 1),
        ("user", 1),
        ("box@boxes.test", 3),
        ("box+x+y@boxes.test", 3),
        ("a%b@example.test", 4),
    ],
)
def test_a_local_recipient_is_found(make, address, account):
    assert make().targets(address) == [account]


def test_the_final_address_is_what_goes_into_delivered_to(make):
    (target,) = make().resolve("User+Tag@Example.Test").targets
    assert target == LocalTarget(1, 10, b"User+Tag@example.test")


@pytest.mark.parametrize(
    ("address", "refusal"),
    [
        ("nobody@example.test", "550 5.1.1"),
        ("+tag@example.test", "550 5.1.1"),
        ("user@boxes.test", "550 5.1.1"),
        ("box@example.test", "550 5.1.1"),
        ("any@aliases.test", "550 5.1.1"),
        ("x@elsewhere.test", "554 5.7.1"),
        ("user@example.test.elsewhere.test", "554 5.7.1"),
        ("user@sub.example.test", "554 5.7.1"),
        ("user%elsewhere.test@example.test", "550 5.1.1"),
        ("elsewhere.test!user@example.test", "550 5.1.1"),
        ('"user@elsewhere.test"@example.test', "550 5.1.1"),
        ("user%elsewhere.test@relay.test", "554 5.7.1"),
        ("elsewhere.test!user@relay.test", "554 5.7.1"),
        ('"user@elsewhere.test"@relay.test', "554 5.7.1"),
        ("user%example.test@elsewhere.test", "554 5.7.1"),
        ("user@[192.0.2.1]", "554 5.7.1"),
        ("|cmd@example.test", "550 5.1.1"),
        ("/etc/passwd@example.test", "550 5.1.1"),
        ("${run}@example.test", "550 5.1.1"),
        ("-f@example.test", "550 5.1.1"),
        ("off@example.test", "550 5.2.1"),
    ],
)
def test_a_stranger_is_refused(make, address, refusal):
    assert make().refusal(address) == refusal


def test_who_may_relay_sends_anywhere(make):
    world = make()
    assert world.targets("X@Elsewhere.test", may_relay=True) == ["smtp:elsewhere.test X@elsewhere.test"]
    assert world.targets("a%b@relay.test", may_relay=True) == ["smtp:relay.test a%b@relay.test"]
    assert world.refusal("nobody@example.test", may_relay=True) == "550 5.1.1"


@pytest.mark.parametrize("domain", ["relay.test", "sub.relay.test", "a.b.relay.test"])
def test_relay_domains_and_their_subdomains_are_relayed_for_anybody(make, domain):
    assert make().targets(f"x@{domain}") == [f"smtp:{domain} x@{domain}"]


def test_a_bare_postmaster_is_ours_where_myorigin_is_not(make):
    world = make("", "postmaster: user@example.test\n", myorigin="elsewhere.test")
    assert world.targets("postmaster") == [1]


@pytest.mark.parametrize("role", ["postmaster", "Abuse"])
@pytest.mark.parametrize("domain", ["example.test", "boxes.test", "aliases.test", "localhost"])
def test_a_role_without_a_home_is_the_oldest_accounts_and_is_warned_of_once(make, role, domain):
    world = make()
    assert world.targets(f"{role}@{domain}") == [1] == world.targets(f"{role}@{domain}")
    assert len(world.homeless) == 1 and world.homeless[0].startswith("postmaster@")


@pytest.mark.parametrize(
    "aliases",
    ["postmaster: gone\nabuse: off\n", "postmaster: loop\nloop: postmaster\n", "abuse: a\na: b\nb: a\n"],
)
@pytest.mark.parametrize(
    "address", ["postmaster@example.test", "abuse@example.test", "postmaster", "abuse@aliases.test"]
)
def test_a_dead_alias_of_a_role_leaves_it_to_the_oldest_account(make, aliases, address):
    assert make("", aliases).targets(address) == [1]


def test_a_role_whose_account_is_disabled_goes_to_the_oldest_enabled_one(make):
    world = make()
    accounts = world.store.accounts.known
    world.store.accounts.known = {
        "postmaster@example.test": Account(8, 80, enabled=False),
        "off@example.test": accounts["off@example.test"],
        "other@example.test": accounts["other@example.test"],
    }
    assert world.targets("postmaster@example.test") == [2]
    assert world.targets("abuse@example.test") == [2]


def test_an_alias_of_a_role_without_a_home_reaches_the_oldest_account(make):
    assert make("", "root: postmaster\nhost: abuse, other\n").targets("root@example.test") == [1]
    assert make("", "root: postmaster\nhost: abuse, other\n").targets("host@example.test") == [1, 2]


def test_abuse_is_the_postmasters_where_it_has_no_home_of_its_own(make):
    assert make("", "postmaster: other\n").targets("abuse@example.test") == [2]


def test_a_role_of_a_server_without_accounts_is_put_off_and_of_a_foreign_domain_refused(make):
    world = make()
    world.store.accounts.known = {}
    assert world.refusal("postmaster@example.test") == "451 4.3.5"
    assert world.refusal("postmaster@elsewhere.test") == "554 5.7.1"
    assert world.targets("postmaster@relay.test") == ["smtp:relay.test postmaster@relay.test"]


def test_a_full_mailbox_of_a_role_is_told_as_of_any_other(make):
    world = make("", "postmaster: full\n")
    world.store.accounts.used[5] = 100
    assert world.refusal("postmaster@example.test") == "452 4.2.2"


def test_postmaster_and_abuse_fall_back_to_our_own_domain(make):
    world = make("", "postmaster: user\nabuse: other\n")
    assert world.targets("postmaster") == [1]
    assert world.targets("Postmaster@boxes.test") == [1]
    assert world.targets("abuse@aliases.test") == [2]
    assert world.refusal("hostmaster@boxes.test") == "550 5.1.1"


def test_virtual_aliases_are_looked_up_as_address_then_user_then_domain(make):
    world = make(
        "sales@example.test user@example.test, other\nbare user\n@catch.test other@example.test\n"
        "one@catch.test user\n@moved.test @example.test\naliases.test anything\ninfo@aliases.test user\n",
        virtual_alias_domains=("catch.test", "moved.test"),
    )
    assert world.targets("SALES@example.test") == [1, 2]
    assert world.targets("bare@example.test") == [1]
    assert world.targets("bare@localhost") == [1]
    assert world.refusal("bare@boxes.test") == "550 5.1.1"
    assert world.targets("one@catch.test") == [1]
    assert world.targets("anyone@catch.test") == [2]
    assert world.targets("user+x@moved.test") == [1]
    assert world.refusal("nobody@moved.test") == "550 5.1.1"
    assert world.targets("info@aliases.test") == [1]
    assert world.refusal("else@aliases.test") == "550 5.1.1"


def test_an_unmatched_extension_goes_along(make):
    world = make("list@example.test far@elsewhere.test\nlist+own@example.test user\n")
    assert world.targets("list+tag@example.test") == ["smtp:elsewhere.test far+tag@elsewhere.test"]
    assert world.targets("list+own@example.test") == [1]


def test_an_alias_leads_out_of_our_domains_without_being_a_relay(make):
    world = make("away@example.test far@elsewhere.test\n@ours.test @relay.test\n", virtual_alias_domains=("ours.test",))
    assert world.targets("away@example.test") == ["smtp:elsewhere.test far@elsewhere.test"]
    assert world.targets("x@ours.test") == ["smtp:relay.test x@relay.test"]
    assert world.refusal("x%elsewhere.test@ours.test") == "554 5.7.1"
    assert world.refusal("x@elsewhere.test") == "554 5.7.1"


def test_aliases_of_aliases_end_and_name_each_target_once(make):
    world = make("a@example.test b, c\nb@example.test d\nc@example.test d, user\nd@example.test other\n")
    assert world.targets("a@example.test") == [2, 1]


def test_an_alias_to_itself_is_the_mailbox(make):
    world = make("user@example.test user@example.test, far@elsewhere.test\n", "other: other, user\n")
    assert world.targets("user@example.test") == [1, "smtp:elsewhere.test far@elsewhere.test"]
    assert world.targets("other@localhost") == [2, 1, "smtp:elsewhere.test far@elsewhere.test"]


@pytest.mark.parametrize(
    "virtual", ["a@example.test b\nb@example.test a\n", "a@example.test b\nb@example.test c\nc@example.test user, b\n"]
)
def test_a_loop_of_aliases_is_refused_at_once(make, virtual):
    assert make(virtual).refusal("a@example.test") == "554 5.4.6"


def test_a_loop_through_alias_maps_is_refused(make):
    assert make("", "a: b\nb: a\n").refusal("a@example.test") == "554 5.4.6"
    assert make("a@example.test b\n", "b: a\n").refusal("a@example.test") == "554 5.4.6"


def chain(length):
    return "".join(f"n{n}@example.test n{n + 1}\n" for n in range(length)) + f"n{length}@example.test user\n"


@pytest.mark.parametrize(("length", "found"), [(8, True), (9, True), (10, False)])
def test_the_depth_of_aliases_is_bounded(make, length, found):
    world = make(chain(length), virtual_alias_recursion_limit=10)
    assert (world.resolve("n0@example.test").refusal is None) is found


def test_the_depth_at_its_largest_is_not_the_interpreters(make):
    world = make(chain(990))
    assert world.targets("n0@example.test") == [1]


@pytest.mark.parametrize(("count", "found"), [(8, True), (9, True), (10, False)])
def test_the_size_of_an_expansion_is_bounded(make, count, found):
    members = ", ".join(f"x{n}@elsewhere.test" for n in range(count))
    resolution = make(f"all@example.test {members}\n", virtual_alias_expansion_limit=10).resolve("all@example.test")
    assert (resolution.refusal is None) is found
    assert found or str(resolution.refusal).startswith("451 4.6.0")


def test_alias_maps_hold_for_mydestination_only(make):
    world = make("", 'root: user, "other"\n  , far@elsewhere.test\nadmin: root # not a comment inside\nbox: user\n')
    assert world.targets("root@example.test") == [1, 2, "smtp:elsewhere.test far@elsewhere.test"]
    assert world.targets("ROOT+x@localhost") == [1, 2, "smtp:elsewhere.test far@elsewhere.test"]
    assert world.targets("box@boxes.test") == [3]


def test_a_backslash_ends_the_aliasing(make):
    assert make("", "user: \\user, other\n").targets("user@example.test") == [1, 2]


def test_includes_are_read_and_must_be_readable(make, tmp_path):
    (tmp_path / "members").write_text("# the list\nuser\nother@example.test, far@elsewhere.test\n")
    world = make("", f"list: :include:{tmp_path}/members\nbroken: :include:{tmp_path}/absent\n")
    assert world.targets("list@example.test") == [1, 2, "smtp:elsewhere.test far@elsewhere.test"]
    assert world.refusal("broken@example.test") == "451 4.3.5"
    assert "absent" in str(world.logged) or "No such file" in str(world.logged)


@pytest.mark.parametrize("target", ['"|/usr/bin/procmail"', "|cmd", "/var/mail/x", '"/var/mail/x y"'])
def test_pipes_and_files_of_alias_maps_wait_rather_than_bounce(make, target):
    assert make("", f"robot: {target}\n").refusal("robot@example.test") == "451 4.3.5"


def test_the_null_device_discards(make):
    assert make("", "nothing: /dev/null\n").targets("nothing@example.test") == ["discard: nothing@example.test"]


@pytest.mark.parametrize("target", ["|cmd", "/var/mail/x", '"|cmd"', ":include:/etc/passwd"])
def test_virtual_maps_and_the_store_never_name_pipes_or_files(make, target):
    world = make(f"robot@example.test {target}\n")
    world.store.aliases.known["other2@example.test"] = (target,)
    for address in ("robot@example.test", "other2@example.test"):
        assert world.refusal(address) == "550 5.1.1"


def test_aliases_of_the_store(make):
    world = make()
    world.store.aliases.known = {
        "info@example.test": ("user@example.test", "far@elsewhere.test"),
        "@boxes.test": ("other@example.test",),
    }
    assert world.targets("Info+x@example.test") == [1, "smtp:elsewhere.test far+x@elsewhere.test"]
    assert world.targets("anyone@boxes.test") == [2]
    assert world.targets("box@boxes.test") == [3]


def test_one_dead_member_of_a_list_is_bounced_and_the_others_get_it(make):
    world = make("list@example.test user, gone\n")
    targets = world.resolve("list@example.test").targets
    assert targets[0].account_id == 1
    assert isinstance(targets[1], QueuedTarget)
    assert targets[1].hop.startswith(b"error:5.1.1 <gone@example.test>: ")
    assert make("list@example.test gone, too\n").refusal("list@example.test") == "550 5.1.1"


@pytest.mark.parametrize(("used", "full"), [(99, False), (100, True), (101, True)])
def test_a_full_mailbox_is_told_at_once(make, used, full):
    world = make()
    world.store.accounts.used[5] = used
    resolution = world.resolve("full+x@example.test")
    assert (str(resolution.refusal)[:9] == "452 4.2.2") is full


def test_transport_overrides_a_local_domain(make):
    world = make("", transport={"boxes.test": "lmtp:[127.0.0.1]:24", "parked.test": "hold:", "dead.test": "error:gone"})
    assert world.targets("anybody@boxes.test") == ["lmtp:[127.0.0.1]:24 anybody@boxes.test"]
    held = world.resolve("x@parked.test", True).targets[0]
    assert held.held
    assert world.refusal("x@dead.test", True).startswith("550")


@pytest.mark.parametrize("address", ["@example.test", "user@", "", "x@\udce9"])
def test_what_is_no_address_is_refused(make, address):
    resolution = make().directory.resolve(address.encode("utf-8", "surrogateescape"), may_relay=True)
    assert str(resolution.refusal).startswith(("553 5.1.3", "550 5.1.1"))


def test_a_reply_never_carries_control_or_foreign_characters(make):
    resolution = make().resolve("x\u00e9\x7f@example.test")
    assert resolution.refusal.text.isascii()
    assert resolution.refusal.text.isprintable()


def test_version_changes_with_the_store_and_with_the_maps_at_most_once_a_second(make):
    world = make("new@example.test user\n")
    first = world.directory.version
    world.store.directory_version += 1
    assert world.directory.version == first
    assert world.directory.version_until == world.clock.monotonic() + 1.0
    world.clock.advance(1)
    second = world.directory.version
    assert second != first
    world.virtual.write_text("newer@example.test user\n")
    os.utime(world.virtual, ns=(1, 1))
    assert world.refusal("newer@example.test") == "550 5.1.1"
    world.clock.advance(1)
    assert world.targets("newer@example.test") == [1]
    assert world.directory.version not in (first, second)


def test_a_map_that_cannot_be_read_defers_and_a_good_one_is_kept(make):
    world = make("info@example.test user\n")
    world.virtual.unlink()
    world.clock.advance(1)
    assert world.targets("info@example.test") == [1]
    assert "No such file" in world.logged[0]
    reread = Directory(world.config, world.store, Router(world.config), clock=world.clock)  # as at a reload
    assert reread.resolve(b"info@example.test", may_relay=False).refusal is None
    config = msgspec.structs.replace(CONFIG, virtual_alias_maps=(f"hash:{world.virtual}.never",))
    directory = Directory(config, world.store, Router(config), clock=world.clock)
    assert str(directory.resolve(b"user@example.test", may_relay=False).refusal).startswith("451 4.3.0")
    assert directory.problems()


@pytest.mark.parametrize(
    ("sender", "allowed"),
    [
        ("", True),
        ("user@example.test", True),
        ("User+news@EXAMPLE.test", True),
        ("user@localhost", True),
        ("sales@example.test", True),
        ("list@example.test", True),
        ("other@example.test", False),
        ("nobody@example.test", False),
        ("user@elsewhere.test", False),
        ("brand@elsewhere.test", True),
        ("any@brand.test", True),
        ("x@", False),
    ],
)
def test_who_may_send_as_whom(make, tmp_path, sender, allowed):
    (tmp_path / "logins").write_text("brand@elsewhere.test other, user\n@brand.test user@example.test\n")
    world = make(
        "sales@example.test user\n", "list: other, user\n", smtpd_sender_login_maps=(f"hash:{tmp_path}/logins",)
    )
    assert world.directory.sender_allowed("user@example.test", sender.encode()) is allowed


def test_classes_of_domains(make):
    directory = make().directory
    assert directory.class_of("example.test") is DomainClass.LOCAL
    assert directory.class_of("boxes.test") is DomainClass.MAILBOX
    assert directory.class_of("aliases.test") is DomainClass.ALIAS
    assert directory.class_of("x.relay.test") is DomainClass.RELAY
    assert directory.class_of("xrelay.test") is DomainClass.OTHER


# --- literals of our own addresses ---


def listening(**services):
    return msgspec.structs.replace(Config().listen, **services)


LISTENING = listening(smtp=("127.0.0.1:2525", "[::1]:2525"), lmtp=("unix:/run/lmtp",), imap=("192.0.2.9:143",))


@pytest.mark.parametrize(
    "literal", ["[127.0.0.1]", "[IPv6:::1]", "[ipv6:0:0::1]", "[203.0.113.5]", "[::ffff:127.0.0.1]"]
)
def test_a_literal_of_our_own_address_is_our_own_domain(tmp_path, literal):
    world = World(tmp_path, local="root: user\n", listen=LISTENING, proxy_interfaces=("203.0.113.5",))
    assert world.targets(f"user@{literal}") == [1]
    assert world.targets(f"User+x@{literal}") == [1]
    assert world.targets(f"root@{literal}") == [1]
    assert world.refusal(f"nobody@{literal}") == "550 5.1.1"
    assert world.targets(f"postmaster@{literal}"), "RFC 5321 §4.5.1"
    assert world.directory.sender_allowed("user@example.test", f"user@{literal}".encode())
    assert not world.directory.sender_allowed("other@example.test", f"user@{literal}".encode())


def test_a_literal_of_another_address_is_relayed_there_without_mx(tmp_path):
    world = World(tmp_path, listen=LISTENING)
    for literal in ("[192.0.2.9]", "[IPv6:2001:db8::9]"):  # IMAP alone listens on one
        assert world.refusal(f"user@{literal}") == "554 5.7.1"
        assert world.targets(f"user@{literal}", may_relay=True) == [f"smtp:{literal.lower()} user@{literal.lower()}"]


def test_listening_on_every_address_makes_this_machines_literals_ours(tmp_path):
    world = World(tmp_path, listen=listening(smtp=("0.0.0.0:25",)))
    assert world.targets("user@[127.0.0.1]") == world.targets("user@[127.8.8.8]") == [1]
    assert world.refusal("user@[192.0.2.9]") == "554 5.7.1"


def test_a_literal_that_is_named_as_a_domain_stays_one(tmp_path):
    world = World(tmp_path, listen=LISTENING, virtual_alias_domains=("[127.0.0.1]",), virtual="x@[127.0.0.1] other\n")
    assert world.targets("x@[127.0.0.1]") == [2]
    assert world.refusal("user@[127.0.0.1]") == "550 5.1.1"


@pytest.mark.parametrize("may_relay", [True, False])
def test_an_address_without_brackets_is_none_but_with_resolve_numeric_domain(tmp_path, may_relay):
    world = World(tmp_path, listen=LISTENING)
    assert world.refusal("user@127.0.0.1", may_relay) == "553 5.1.3"
    assert world.targets("user@host1", True) == ["smtp:host1 user@host1"]
    world = World(tmp_path, listen=LISTENING, resolve_numeric_domain=True)
    assert world.targets("user@127.0.0.1", may_relay) == [1]
    assert world.targets("user@192.0.2.9", True) == ["smtp:[192.0.2.9] user@[192.0.2.9]"]


def test_each_rewriting_is_told_in_order_to_whoever_asks(make):
    world = make("info@example.test team, far@elsewhere.test\n", "team: user, other\n")
    world.store.aliases.known["old@example.test"] = ("info@example.test",)
    resolution, told = world.directory.explain(b"old@example.test", may_relay=False)
    assert told == [
        ("old@example.test", "an alias of the store", ("info@example.test",)),
        ("info@example.test", "virtual_alias_maps", ("team", "far@elsewhere.test")),
        ("team@example.test", "alias_maps", ("user", "other")),
    ]
    assert resolution == world.resolve("old@example.test")
    assert world.directory.explain(b"far@elsewhere.test", may_relay=False)[0].refusal is not None


@pytest.mark.parametrize(
    ("sender", "owned", "listed"),
    [
        ("user@example.test", True, False),
        ("sales@example.test", True, False),
        ("nobody@example.test", False, False),
        ("brand@elsewhere.test", True, True),
        ("any@brand.test", True, True),
        ("x@elsewhere.test", False, False),
        ("x@", False, False),
        ("", False, False),
    ],
)
def test_which_senders_belong_to_somebody(make, tmp_path, sender, owned, listed):
    (tmp_path / "logins").write_text("brand@elsewhere.test other, user, @\n@brand.test user@example.test\n")
    world = make("sales@example.test user\n", "", smtpd_sender_login_maps=(f"hash:{tmp_path}/logins",))
    senders = world.directory.senders
    assert senders.owned(sender.encode()) is owned
    assert (senders.listed(sender.encode()) is not None) is listed
    if listed:
        assert "user@example.test" in senders.listed(sender.encode())


def test_senders_of_a_table_that_was_never_read_are_trouble(make, tmp_path):
    world = make("", "", smtpd_sender_login_maps=(f"hash:{tmp_path}/absent",))
    with pytest.raises(TemporaryFailure):
        world.directory.senders.owned(b"x@elsewhere.test")
    assert not world.directory.sender_allowed("user@example.test", b"user@example.test")


@pytest.mark.parametrize("sender", ["full@example.test", "full+x@example.test", "alias@boxes.test"])
def test_whoever_has_a_full_mailbox_may_still_send(make, sender):
    world = make("alias@boxes.test full@example.test\n")
    world.store.accounts.used[5] = 100
    assert str(world.directory.resolve(b"full@example.test", may_relay=False).refusal).startswith("452 4.2.2 ")
    assert world.directory.sender_allowed("full@example.test", sender.encode())
    assert world.directory.senders.owned(sender.encode())
    assert not world.directory.sender_allowed("user@example.test", sender.encode())
