"""Postfix's restriction lists: its words, its order, its replies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastmta.config.load import parse
from fastmta.config.schema import Config
from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.envelope import QueuedTarget, Resolution
from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import RESTRICTIONS_ASKED
from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action, Verdict
from fastmta.policy.check import Context
from fastmta.policy.checks.access import AccessTables
from fastmta.policy.checks.restrictions import build
from fastmta.policy.contents import parse_action
from fastmta.policy.verification import IN_PROGRESS, Answer
from fastmta.runtime.clock import ManualClock


class FakeResolver:
    """Answers from a dict of (name, type); "?" is trouble."""

    def __init__(self, **zone: Any) -> None:
        self.zone: dict[tuple[str, str], Any] = {}

    def _find(self, name: str, kind: str) -> Any:
        found = self.zone.get((name, kind))
        if found == "?":
            raise LookupTrouble("no answer")
        if found is None:
            raise NotFound(name, kind, name_exists=any(each == name for each, _ in self.zone))
        return found

    async def a(self, name: str) -> Any:
        return self._find(name, "A")

    async def txt(self, name: str) -> Any:
        return self._find(name, "TXT")

    async def mx(self, name: str) -> Any:
        return self._find(name, "MX")

    async def ns(self, name: str) -> Any:
        return self._find(name, "NS")

    async def ptr(self, name: str) -> Any:
        return self._find(name, "PTR")

    async def addresses(self, name: str) -> Any:
        return self._find(name, "A")


class FakeSenders:
    """ann@sender.test is ann's; sales@sender.test is ann's by smtpd_sender_login_maps."""

    trouble = False

    def owned(self, reverse_path: bytes) -> bool:
        return reverse_path == b"ann@sender.test" or self.listed(reverse_path) is not None

    def listed(self, reverse_path: bytes) -> frozenset[str] | None:
        if self.trouble:
            raise TemporaryFailure(Reply(451, "4.3.0", "x"))
        return frozenset({"ann@sender.test"}) if reverse_path == b"sales@sender.test" else None


class FakeDirectory:
    def __init__(self) -> None:
        self.senders = FakeSenders()

    def sender_allowed(self, login: str, reverse_path: bytes) -> bool:
        return login == "ann@sender.test" and self.senders.owned(reverse_path)

    def resolve(self, forward_path: bytes, *, may_relay: bool) -> Resolution:
        if forward_path.endswith(b"@example.test"):
            return Resolution(targets=(QueuedTarget(forward_path, b"smtp:x"),))
        return Resolution(Reply(554, "5.7.1", f"<{forward_path.decode()}>: Relay access denied"))


class Parts:
    def __init__(self) -> None:
        self.resolver = FakeResolver()
        self.directory = FakeDirectory()
        self.clock = ManualClock()
        self.told: list[str] = []
        self.log = self
        self.verifier: Any = None

    def info(self, event: str, **fields: Any) -> None:
        self.told.append(event)


@pytest.fixture
def parts() -> Parts:
    return Parts()


Judge = Callable[..., Any]


@pytest.fixture
def judge(parts: Parts, tmp_path: Path) -> Judge:
    """The verdict of one list on a context that is changed by keywords."""

    async def decide(stage: Stage, restrictions: str, *, keys: str = "", classes: str = "", **changes: Any) -> Verdict:
        key = {
            Stage.CONNECT: "smtpd_client_restrictions",
            Stage.HELO: "smtpd_helo_restrictions",
            Stage.MAIL: "smtpd_sender_restrictions",
            Stage.RCPT: "smtpd_recipient_restrictions",
        }[stage]
        text = f'{key} = "{restrictions}"\nmydestination = ["example.test"]\n{keys}{classes}'
        config = parse(text, base=tmp_path)
        context = Context(
            stage=stage,
            service="smtp",
            session=1,
            client_ip="192.0.2.7",
            client_name="unknown",
            trusted=False,
            tls=False,
            helo="mail.client.test",
            sender=b"ann@sender.test",
            recipient=b"bob@example.test",
        )
        context = msgspec.structs.replace(context, **changes)
        check = next(each for each in build(config, parts) if each.name == key)  # type: ignore[arg-type]
        found = check.check(context)
        return found if isinstance(found, Verdict) else await found

    return decide


async def said(found: Any) -> str:
    verdict = await found
    reply = verdict.reply or verdict.if_permit  # the second is said where nobody refuses (smtp/screening.py)
    return str(reply) if reply is not None else verdict.action.name


def table(tmp_path: Path, text: str) -> str:
    path = tmp_path / "access"
    path.write_text(text)
    return f"texthash:{path}"


def test_without_a_list_nothing_is_asked(parts: Parts) -> None:
    assert build(Config(), parts) == []  # type: ignore[arg-type]


async def test_a_listed_client_is_refused_in_postfix_words(judge: Judge, parts: Parts) -> None:
    parts.resolver.zone["7.2.0.192.bl.test", "A"] = ("127.0.0.2",)
    parts.resolver.zone["7.2.0.192.bl.test", "TXT"] = (b"see http://bl.test",)
    assert await said(judge(Stage.CONNECT, "reject_rbl_client bl.test")) == (
        "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using bl.test; see http://bl.test"
    )
    assert await said(judge(Stage.CONNECT, "reject_rbl_client bl.test", client_ip="192.0.2.8")) == "NONE"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("127.0.0.2", "554"), ("127.0.0.[3..9]", "NONE"), ("127.0.0.[1;2]", "554"), ("127.[0..1].0.2", "554")],
)
async def test_a_filter_says_which_answers_count(judge: Judge, parts: Parts, wanted: str, expected: str) -> None:
    parts.resolver.zone["7.2.0.192.bl.test", "A"] = ("127.0.0.2",)
    assert (await said(judge(Stage.CONNECT, f"reject_rbl_client bl.test={wanted}"))).startswith(expected)


@pytest.mark.parametrize("answer", ["?", ("198.51.100.1",)])
async def test_a_list_that_does_not_answer_or_invents_answers_lists_nobody(
    judge: Judge, parts: Parts, answer: Any
) -> None:
    parts.resolver.zone["7.2.0.192.bl.test", "A"] = answer
    assert await said(judge(Stage.CONNECT, "reject_rbl_client bl.test")) == "NONE"


async def test_ipv6_clients_are_asked_about_by_nibbles(judge: Judge, parts: Parts) -> None:
    name = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test"
    parts.resolver.zone[name, "A"] = ("127.0.0.2",)
    assert (await said(judge(Stage.CONNECT, "reject_rbl_client bl.test", client_ip="2001:db8::1"))).startswith("554")


async def test_names_are_asked_about_in_lists_of_names(judge: Judge, parts: Parts) -> None:
    parts.resolver.zone["sender.test.rh.test", "A"] = ("127.0.0.2",)
    assert await said(judge(Stage.MAIL, "reject_rhsbl_sender rh.test")) == (
        "554 5.7.1 Service unavailable; Sender address [ann@sender.test] blocked using rh.test"
    )
    assert await said(judge(Stage.HELO, "reject_rhsbl_helo rh.test")) == "NONE"


async def test_the_first_word_that_permits_or_rejects_ends_the_list(judge: Judge) -> None:
    assert await said(judge(Stage.CONNECT, "permit_mynetworks, reject", trusted=True)) == "ACCEPT"
    assert await said(judge(Stage.CONNECT, "permit_mynetworks, reject")) == (
        "554 5.7.1 <unknown[192.0.2.7]>: Client host rejected: Access denied"
    )
    assert await said(judge(Stage.MAIL, "permit_sasl_authenticated, reject", login="a@b")) == "ACCEPT"


@pytest.mark.parametrize(
    ("word", "helo", "expected"),
    [
        ("reject_invalid_helo_hostname", "a..b", "501 5.5.2 <a..b>: Helo command rejected: Invalid name"),
        ("reject_invalid_helo_hostname", "[192.0.2.1]", "NONE"),
        (
            "reject_non_fqdn_helo_hostname",
            "localhost",
            "504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname",
        ),
        ("reject_non_fqdn_helo_hostname", "mx.client.test", "NONE"),
        (
            "reject_unknown_helo_hostname",
            "nowhere.test",
            "450 4.7.1 <nowhere.test>: Helo command rejected: Host not found",
        ),
    ],
)
async def test_helo_names(judge: Judge, word: str, helo: str, expected: str) -> None:
    assert await said(judge(Stage.HELO, word, helo=helo)) == expected


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        (b"a@good.test", "NONE"),
        (b"a@only-a.test", "NONE"),
        (b"a@example.test", "NONE"),
        (b"", "NONE"),
        (
            b"a@null.test",
            "550 5.7.27 <a@null.test>: Sender address rejected: Domain null.test does not accept mail (nullMX)",
        ),
        (b"a@none.test", "450 4.1.8 <a@none.test>: Sender address rejected: Domain not found"),
        (b"a@trouble.test", "450 4.1.8 <a@trouble.test>: Sender address rejected: Domain not found"),
    ],
)
async def test_sender_domains(judge: Judge, parts: Parts, sender: bytes, expected: str) -> None:
    parts.resolver.zone |= {
        ("good.test", "MX"): ((10, "mx.good.test"),),
        ("only-a.test", "A"): ("192.0.2.1",),
        ("null.test", "MX"): ((0, ""),),
        ("trouble.test", "MX"): "?",
    }
    assert await said(judge(Stage.MAIL, "reject_unknown_sender_domain", sender=sender)) == expected


async def test_trouble_defers_only_what_would_be_permitted(judge: Judge, parts: Parts) -> None:
    parts.resolver.zone["sender.test", "MX"] = "?"
    assert (await said(judge(Stage.MAIL, "reject_unknown_sender_domain, reject"))).startswith("554")
    assert (await said(judge(Stage.MAIL, "reject_unknown_sender_domain, permit"))).startswith("450")


async def test_addresses_without_a_full_domain(judge: Judge) -> None:
    assert await said(judge(Stage.MAIL, "reject_non_fqdn_sender", sender=b"a@host")) == (
        "504 5.5.2 <a@host>: Sender address rejected: need fully-qualified address"
    )
    assert await said(judge(Stage.MAIL, "reject_non_fqdn_sender", sender=b"")) == "NONE"


async def test_destinations(judge: Judge) -> None:
    assert await said(judge(Stage.RCPT, "reject_unauth_destination", recipient=b"x@other.test")) == (
        "554 5.7.1 <x@other.test>: Relay access denied"
    )
    assert await said(judge(Stage.RCPT, "permit_auth_destination, reject")) == "ACCEPT"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("OK", "ACCEPT"),
        ("1234", "ACCEPT"),
        ("DUNNO", "NONE"),
        ("REJECT", "554 5.7.1 <mail.client.test>: Helo command rejected: Access denied"),
        ("reject Go away", "554 5.7.1 <mail.client.test>: Helo command rejected: Go away"),
        ("REJECT 5.7.9 Go away", "554 5.7.9 <mail.client.test>: Helo command rejected: Go away"),
        ("421 4.3.2 Later", "421 4.3.2 <mail.client.test>: Helo command rejected: Later"),
        ("550", "ACCEPT"),
        ("550 no", "550 5.7.1 <mail.client.test>: Helo command rejected: no"),
        ("REJECT 4.2.1 no", "554 5.2.1 <mail.client.test>: Helo command rejected: no"),
        ("REJECT 5.1.1 no", "554 5.0.0 <mail.client.test>: Helo command rejected: no"),
        (
            "DEFER_IF_PERMIT",
            "450 4.7.1 <mail.client.test>: Helo command rejected: Service unavailable - try again later",
        ),
        ("HOLD", "HOLD"),
        ("DISCARD", "DISCARD"),
        ("REDIRECT a@example.test", "REDIRECT"),
        ("FILTER smtp:x", "NONE"),
        ("FILTER", "451 4.3.5 Server configuration error"),
        ("FILTER local:", "451 4.3.5 Server configuration error"),
    ],
)
async def test_access_tables_have_postfix_actions(judge: Judge, tmp_path: Path, value: str, expected: str) -> None:
    name = table(tmp_path, f"client.test {value}\n")
    assert await said(judge(Stage.HELO, f"check_helo_access {name}")) == expected


async def test_prepend_adds_a_field_and_goes_on(judge: Judge, tmp_path: Path) -> None:
    name = table(tmp_path, "192.0.2 PREPEND X-Seen: yes\n")
    verdict = await judge(Stage.CONNECT, f"check_client_access {name}, permit")
    assert verdict.fields == (b"X-Seen: yes\r\n",)


async def test_octets_that_are_no_utf_8_stay_as_the_table_has_them(judge: Judge, tmp_path: Path) -> None:
    name, path = table(tmp_path, ""), tmp_path / "access"
    path.write_bytes(b"192.0.2 PREPEND X-Seen: caf\xe9\n")
    assert (await judge(Stage.CONNECT, f"check_client_access {name}")).fields == (b"X-Seen: caf\xe9\r\n",)
    path.write_bytes(b"192.0.2 REDIRECT caf\xe9@example.test\n")
    assert (await judge(Stage.CONNECT, f"check_client_access {name}")).target == b"caf\xe9@example.test"


@pytest.mark.parametrize("key", ["ann@sender.test", "sender.test", "ann@", "test"])
async def test_senders_are_found_by_address_domain_and_user(judge: Judge, tmp_path: Path, key: str) -> None:
    name = table(tmp_path, f"{key} REJECT\n")
    assert (await said(judge(Stage.MAIL, f"check_sender_access {name}"))).startswith("554")


async def test_the_null_sender_has_a_key(judge: Judge, tmp_path: Path) -> None:
    name = table(tmp_path, "<> REJECT\n")
    assert (await said(judge(Stage.MAIL, f"check_sender_access {name}", sender=b""))).startswith("554")


async def test_a_table_that_cannot_be_read_defers(judge: Judge, tmp_path: Path) -> None:
    assert await said(judge(Stage.MAIL, f"check_sender_access texthash:{tmp_path}/none")) == (
        "451 4.3.0 Temporary lookup failure"
    )


async def test_warn_if_reject_refuses_nothing_and_is_told(judge: Judge, parts: Parts) -> None:
    assert await said(judge(Stage.CONNECT, "warn_if_reject reject, permit")) == "ACCEPT"
    assert parts.told == ["policy.would_refuse"]


async def test_a_client_is_asked_for_its_name(judge: Judge, parts: Parts) -> None:
    assert await said(judge(Stage.CONNECT, "reject_unknown_client_hostname")) == (
        "450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.7]"
    )
    parts.resolver.zone |= {("192.0.2.7", "PTR"): ("mx.client.test",), ("mx.client.test", "A"): ("192.0.2.7",)}
    assert await said(judge(Stage.CONNECT, "reject_unknown_client_hostname")) == "NONE"


@pytest.mark.parametrize(
    ("key", "code", "restrictions", "changes"),
    [
        ("access_map_defer_code", 451, "check_client_access {table}", {}),
        ("defer_code", 421, "defer", {}),
        ("invalid_hostname_reject_code", 550, "reject_invalid_helo_hostname", {"helo": "a..b"}),
        ("non_fqdn_reject_code", 550, "reject_non_fqdn_helo_hostname", {"helo": "host"}),
        ("non_fqdn_reject_code", 550, "reject_non_fqdn_sender", {"sender": b"a@host"}),
        ("unknown_hostname_reject_code", 550, "reject_unknown_helo_hostname", {"helo": "nowhere.test"}),
        ("unknown_address_reject_code", 550, "reject_unknown_sender_domain", {"sender": b"a@nowhere.test"}),
        ("unknown_client_reject_code", 550, "reject_unknown_client_hostname", {}),
        ("relay_domains_reject_code", 551, "reject_unauth_destination", {"recipient": b"a@other.test"}),
        (
            "multi_recipient_bounce_reject_code",
            551,
            "reject_multi_recipient_bounce",
            {"sender": b"", "recipients": (b"a@b", b"c@d")},
        ),
    ],
)
async def test_each_code_is_a_key(
    judge: Judge, tmp_path: Path, key: str, code: int, restrictions: str, changes: dict[str, Any]
) -> None:
    words = restrictions.format(table=table(tmp_path, "192.0.2.7 DEFER\n"))
    reply = await said(judge(Stage.RCPT, words, keys=f"{key} = {code}\n", **changes))
    assert reply.startswith(f"{code} {code // 100}.")


async def test_a_code_is_for_answers_and_trouble_stays_temporary(judge: Judge, parts: Parts) -> None:
    parts.resolver.zone["sender.test", "MX"] = "?"
    words = "reject_unknown_sender_domain"
    verdict = await judge(Stage.MAIL, words, keys="unknown_address_reject_code = 550\n")
    assert str(verdict.if_permit)[:9] == "450 4.1.8"


# --- classes ---

CLASSES = """
[smtpd_restriction_classes]
strict = "reject_non_fqdn_sender, inner"
inner = ["reject_unauth_destination"]
kind = "permit"
"""


async def test_a_class_is_asked_in_its_place(judge: Judge) -> None:
    assert (await said(judge(Stage.RCPT, "strict, permit", classes=CLASSES, sender=b"a@host"))).startswith("504")
    assert (await said(judge(Stage.RCPT, "strict", classes=CLASSES, recipient=b"a@other.test"))).startswith("554")
    assert (await said(judge(Stage.RCPT, "strict, reject", classes=CLASSES))).startswith("554")
    assert await said(judge(Stage.RCPT, "kind, reject", classes=CLASSES)) == "ACCEPT"


async def test_a_table_may_name_classes_and_restrictions(judge: Judge, tmp_path: Path) -> None:
    name = table(tmp_path, "bob@example.test strict reject_unauth_destination\neve@example.test permit\n")
    words = f"check_recipient_access {name}, reject"
    assert (await said(judge(Stage.RCPT, words, classes=CLASSES, sender=b"a@host"))).startswith("504")
    assert await said(judge(Stage.RCPT, words, classes=CLASSES, recipient=b"eve@example.test")) == "ACCEPT"


async def test_warn_if_reject_covers_a_whole_class(judge: Judge, parts: Parts) -> None:
    changes = {"sender": b"a@host", "recipient": b"a@other.test"}
    assert await said(judge(Stage.RCPT, "warn_if_reject strict, permit", classes=CLASSES, **changes)) == "ACCEPT"
    assert parts.told == ["policy.would_refuse", "policy.would_refuse"]


async def test_classes_and_tables_that_name_each_other_end(judge: Judge, tmp_path: Path) -> None:
    name = table(tmp_path, "bob@example.test round\n")
    classes = f'[smtpd_restriction_classes]\nround = "check_recipient_access {name}"\n'
    assert await said(judge(Stage.RCPT, "round", classes=classes)) == "451 4.3.5 Server configuration error"


@pytest.mark.parametrize(("words", "expected"), [(RESTRICTIONS_ASKED, "NONE"), (RESTRICTIONS_ASKED + 1, "451 4.3.5")])
async def test_a_list_asks_a_bounded_number_of_restrictions(judge: Judge, words: int, expected: str) -> None:
    found = await said(judge(Stage.MAIL, ", ".join(["reject_non_fqdn_sender"] * words)))
    assert found.startswith(expected)


def test_a_list_with_tables_starts_at_rcpt_where_there_are_classes(parts: Parts, tmp_path: Path) -> None:
    text = f'smtpd_client_restrictions = "check_client_access texthash:{tmp_path}/x"\n'
    assert build(parse(text), parts)[0].starts is Stage.CONNECT  # type: ignore[arg-type]
    assert build(parse(text + CLASSES), parts)[0].starts is Stage.RCPT  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('smtpd_restriction_classes = "a, b"', "a table with a line for each class"),
        ('[smtpd_restriction_classes]\na = "b"\nb = "a"', "holds itself"),
        ('[smtpd_restriction_classes]\nreject = "permit"', "is a restriction of Postfix's"),
        ('[smtpd_restriction_classes]\n"a b" = "permit"', "is not the name of a class"),
        ('[smtpd_restriction_classes]\na = "reject_everything"', "reject_everything"),
        ('smtpd_relay_restrictions = ""', "refuses strangers"),
        ('smtpd_relay_restrictions = "permit_mynetworks, warn_if_reject reject"', "refuses strangers"),
        ('smtpd_relay_restrictions = "open"\n[smtpd_restriction_classes]\nopen = "permit"', "refuses strangers"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(text: str, problem: str) -> None:
    from fastmta.model.errors import ConfigError

    with pytest.raises(ConfigError, match=problem):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "reject_everything",
        "check_helo_access",
        "reject_rbl_client",
        "reject_rbl_client bl.test=127.0.0",
        "check_sender_access ldap:x",
    ],
)
def test_a_list_that_cannot_be_obeyed_is_refused(text: str) -> None:
    from fastmta.model.errors import ConfigError

    with pytest.raises(ConfigError, match="smtpd_client_restrictions"):
        parse(f'smtpd_client_restrictions = "{text}"')


def test_a_list_starts_when_what_it_reads_is_known(parts: Parts) -> None:
    config = parse('smtpd_client_restrictions = ["permit_sasl_authenticated", "reject_rbl_client bl.test"]')
    (check,) = build(config, parts)  # type: ignore[arg-type]
    assert (check.stage, check.starts) == (Stage.CONNECT, Stage.MAIL)
    assert Action.NONE == 0


class FakeVerifier:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[bytes] = []

    async def status(self, address: bytes) -> Answer:
        self.asked.append(address)
        return self.answer


BOUNCED = Answer("bounced", "5.1.1", "host mx.test[192.0.2.1] said: 550 5.1.1 unknown")


@pytest.mark.parametrize(
    ("answer", "keys", "expected"),
    [
        (Answer("ok", "2.1.5", "ok"), "", "NONE"),
        (
            BOUNCED,
            "",
            "450 4.1.1 <bob@example.test>: Recipient address rejected: unverified address: " + BOUNCED.text,
        ),
        (
            BOUNCED,
            "unverified_recipient_reject_code = 550\n",
            "550 5.1.1 <bob@example.test>: Recipient address rejected: undeliverable address: " + BOUNCED.text,
        ),
        (
            BOUNCED,
            'unverified_recipient_reject_reason = "no such user"\n',
            "450 4.1.1 <bob@example.test>: Recipient address rejected: unverified address: no such user",
        ),
        (
            Answer("asked", "", IN_PROGRESS),
            "",
            "450 4.1.1 <bob@example.test>: Recipient address rejected: unverified address: " + IN_PROGRESS,
        ),
        (
            Answer("deferred", "4.4.1", "bad\nwords"),
            "unverified_recipient_defer_code = 451\n",
            "451 4.1.1 <bob@example.test>: Recipient address rejected: unverified address: bad?words",
        ),
    ],
)
async def test_unverified_recipients_are_refused(
    judge: Judge, parts: Parts, answer: Answer, keys: str, expected: str
) -> None:
    parts.verifier = FakeVerifier(answer)
    assert await said(judge(Stage.RCPT, "reject_unverified_recipient", keys=keys)) == expected
    assert parts.verifier.asked == [b"bob@example.test"]


async def test_unverified_senders_are_refused_and_the_null_sender_is_none(judge: Judge, parts: Parts) -> None:
    parts.verifier = FakeVerifier(Answer("asked", "", IN_PROGRESS))
    assert await said(judge(Stage.MAIL, "reject_unverified_sender")) == (
        "450 4.1.7 <ann@sender.test>: Sender address rejected: unverified address: " + IN_PROGRESS
    )
    assert await said(judge(Stage.MAIL, "reject_unverified_sender", sender=b"")) == "NONE"
    assert parts.verifier.asked == [b"ann@sender.test"]


@pytest.mark.parametrize(
    ("action", "expected"), [("defer_if_permit", "554 5.7.1"), ("defer", "450 4.1.1 <bob@example.test>: Recipient")]
)
async def test_want_of_an_answer_waits_for_the_rest_of_the_list(
    judge: Judge, parts: Parts, action: str, expected: str
) -> None:
    parts.verifier = FakeVerifier(Answer("asked", "", IN_PROGRESS))
    keys = f'reject_tempfail_action = "{action}"\n'
    assert (await said(judge(Stage.RCPT, "reject_unverified_recipient, reject", keys=keys))).startswith(expected)


ANN, BOB, SALES, OTHER = "ann@sender.test", "bob@sender.test", b"sales@sender.test", b"x@other.test"


@pytest.mark.parametrize(
    ("word", "login", "sender", "refused"),
    [
        ("reject_sender_login_mismatch", "", ANN.encode(), "not logged in"),
        ("reject_sender_login_mismatch", "", SALES, "not logged in"),
        ("reject_sender_login_mismatch", "", OTHER, ""),
        ("reject_sender_login_mismatch", "", b"", ""),
        ("reject_sender_login_mismatch", ANN, SALES, ""),
        ("reject_sender_login_mismatch", BOB, SALES, f"not owned by user {BOB}"),
        ("reject_sender_login_mismatch", ANN, OTHER, f"not owned by user {ANN}"),
        ("reject_authenticated_sender_login_mismatch", "", SALES, ""),
        ("reject_authenticated_sender_login_mismatch", BOB, SALES, f"not owned by user {BOB}"),
        ("reject_unauthenticated_sender_login_mismatch", "", SALES, "not logged in"),
        ("reject_unauthenticated_sender_login_mismatch", BOB, SALES, ""),
        ("reject_known_sender_login_mismatch", "", SALES, "not logged in"),
        ("reject_known_sender_login_mismatch", "", ANN.encode(), ""),
        ("reject_known_sender_login_mismatch", BOB, SALES, f"not owned by user {BOB}"),
        ("reject_known_sender_login_mismatch", BOB, OTHER, ""),
    ],
)
async def test_senders_belong_to_logins(judge: Judge, word: str, login: str, sender: bytes, refused: str) -> None:
    expected = f"553 5.7.1 <{sender.decode()}>: Sender address rejected: {refused}" if refused else "NONE"
    assert await said(judge(Stage.MAIL, word, login=login, sender=sender)) == expected


async def test_owners_that_cannot_be_looked_up_defer(judge: Judge, parts: Parts) -> None:
    parts.directory.senders.trouble = True
    assert (await said(judge(Stage.MAIL, "reject_known_sender_login_mismatch"))).startswith("451 4.3.0")


@pytest.mark.parametrize("text", ["X-A: a\rb", "X-A: a\x00b", "X-A: a\nEvil: b"])
def test_a_field_of_a_table_is_one_line(text: str) -> None:
    tables = AccessTables(Config(), ManualClock())
    found = tables.action(f"PREPEND {text}", "x", "Client host", "x")
    assert isinstance(found, tuple) and str(found[1].reply).startswith("451 4.3.5")
    with pytest.raises(ValueError, match="expected a header field"):
        parse_action(f"PREPEND {text}")


async def test_a_table_may_send_a_copy(judge: Judge, tmp_path: Path) -> None:
    name = table(tmp_path, "ann@sender.test BCC boss@example.test\nsender.test BCC nobody\n")
    verdict = await judge(Stage.MAIL, f"check_sender_access {name}, permit")
    assert verdict.copies == (b"boss@example.test",) and verdict.permits
    refused = await judge(Stage.MAIL, f"check_sender_access {name}", sender=b"x@sender.test")
    assert str(refused.reply).startswith("451 4.3.5")
