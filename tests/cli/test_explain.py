"""`fastmta explain`: each step of a message's way, and why a queued one waits."""

import asyncio
import time
from pathlib import Path

import pytest

from fastmta.cli.failures import EX_DATAERR, EX_USAGE
from fastmta.config.load import load
from fastmta.model.envelope import RecipientState
from fastmta.store import MailStore
from fastmta.store.queue import Outcome


def steps(done):
    found = {}
    for each in done.json["steps"]:
        found.setdefault(each["step"], []).append(each)
    return found


@pytest.fixture
def site(cli):
    cli.user()
    lines = (
        '"r.test" = "smtp:[127.0.0.1]:2526"\n".sub.test" = "lmtp:unix:/run/x"\n"h.test" = "hold:smtp:[127.0.0.1]:25"\n'
        '"e.test" = "error:5.7.1 not there"\n"d.test" = "discard:"\n'
    )
    cli.change("[transport] ", f"[transport]\n{lines}# ")
    text = cli.config.read_text()
    if "[dns]" not in text:
        cli.config.write_text(f'{text}\n[dns]\nnameservers = ["127.0.0.1:1"]\n')
    return cli


def test_a_stranger_reaches_a_mailbox_through_an_alias(site):
    site.ok("alias", "add", "info@example.test", "bill@example.test", "x@r.test")
    done = site.ok("explain", "ann@a.example", "Info@example.test", "--client", "192.0.2.1", "--json")
    found = steps(done)
    assert done.json["outcome"] == "accepted"
    assert not found["client"][0]["may_relay"] and found["sender"][0]["class"] == "other"
    assert found["limits"][0]["smtpd_client_connection_count_limit"] == 50
    assert [(each["check"], each["asked"]) for each in found["policy"]] == [
        ("forged_results", False),
        ("authentication", False),
    ]
    assert found["alias"][0]["targets"] == ["bill@example.test", "x@r.test"]
    assert found["mailbox"][0]["mailbox"] == "bill@example.test"
    assert found["route"][0]["next_hop"] == "smtp:[127.0.0.1]:2526" and found["route"][0]["key"] == "r.test"
    assert (found["address"][0]["ip"], found["address"][0]["port"]) == ("127.0.0.1", 2526)
    assert found["tls"][0]["level"] == "may"
    assert found["state"][0]["running"] is False
    assert "info@example.test" not in site.ok("queue", "list").out  # nothing was queued by asking


@pytest.mark.parametrize(
    ("sender", "recipient", "client", "reply"),
    [
        ("ann@a.example", "x@r.test", "192.0.2.1", "Relay access denied"),
        ("<>", "nobody@example.test", "192.0.2.1", "User unknown"),
        ("ann@a.example", "nobody@example.test", None, "User unknown"),
        ("ann@a.example", "@example.test", None, "Bad address syntax"),
        ("a@b@c@", "bill@example.test", None, "501 5.1.7"),
        ("ann@a.example", "x@e.test", "127.0.0.1", "not there"),
    ],
)
def test_what_would_be_refused_is_told_with_the_reply(site, sender, recipient, client, reply):
    arguments = ("explain", sender, recipient, *(("--client", client) if client else ()))
    done = site.ok(*arguments, "--json")
    assert done.json["outcome"] == "refused" and reply in done.json["reply"]
    assert "mailbox" not in steps(done) and "queue" not in steps(done)
    assert reply in site.ok(*arguments).out


def test_every_transport_is_explained(site):
    def one(recipient):
        return steps(site.ok("explain", "bill@example.test", recipient, "--json"))

    assert one("x@a.sub.test")["address"][0]["path"] == "/run/x"
    assert one("x@a.sub.test")["route"][0]["key"] == ".sub.test"
    assert one("x@h.test")["route"][0]["held"]
    assert "250 2.0.0" in one("x@d.test")["transport"][0]["reply"]
    site.change('relayhost = ""', 'relayhost = "[192.0.2.7]:587"') if 'relayhost = ""' in site.config.read_text() else (
        site.config.write_text('relayhost = "[192.0.2.7]:587"\n' + site.config.read_text())
    )
    found = one("x@elsewhere.test")
    assert found["route"][0]["setting"] == "relayhost" and found["address"][0]["ip"] == "192.0.2.7"


def test_lists_tls_policy_and_login_are_shown_without_the_password(site, tmp_path):
    (tmp_path / "tls").write_text("[127.0.0.1]:2526 secure match=relay.test\n")
    (tmp_path / "logins").write_text("[127.0.0.1]:2526 mark:sesame\n")
    site.config.write_text(
        'smtpd_recipient_restrictions = ["permit_mynetworks", "reject_rbl_client bl.test"]\n' + site.config.read_text()
    )
    keys = (
        f'smtp_tls_policy_maps = ["hash:{tmp_path}/tls"]\nsmtp_sasl_auth_enable = true\n'
        f'smtp_sasl_password_maps = ["hash:{tmp_path}/logins"]\n'
    )
    text = site.config.read_text()
    site.config.write_text(
        text.replace("[delivery]\n", f"[delivery]\n{keys}")
        if "[delivery]\n" in text
        else (f"{text}\n[delivery]\n{keys}")
    )
    done = site.ok("explain", "bill@example.test", "x@r.test", "--json")
    found = steps(done)
    words = {each["check"]: each["words"] for each in found["policy"]}
    assert words["smtpd_recipient_restrictions"] == "permit_mynetworks, reject_rbl_client bl.test"
    assert words["smtpd_relay_restrictions"].endswith("reject_unauth_destination")
    assert found["client"][0]["relay_list"] == "smtpd_relay_restrictions" and found["client"][0]["may_relay"] is None
    assert found["tls"][0]["level"] == "secure" and "relay.test" in found["tls"][0]["text"]
    assert found["login"][0]["user"] == "mark" and "sesame" not in done.out


def test_checks_are_asked_in_order_and_their_verdicts_told(site, tmp_path):
    (tmp_path / "clients").write_text("192.0.2.1 PREPEND X-Known: yes\n192.0.2.9 450 4.2.0 later\n")
    (tmp_path / "helos").write_text("evil.test REJECT not from there\n")
    site.config.write_text(
        f'smtpd_client_restrictions = "check_client_access texthash:{tmp_path}/clients"\n'
        f'smtpd_helo_restrictions = "check_helo_access texthash:{tmp_path}/helos"\n'
        'smtpd_recipient_restrictions = "reject_non_fqdn_sender, check_policy_service unix:/run/none"\n'
        + site.config.read_text()
    )

    def asked(client, *more):
        return site.ok("explain", "ann@a.example", "bill@example.test", "--client", client, *more, "--json")

    found = {each["check"]: each for each in steps(asked("192.0.2.1", "--helo", "good.test"))["policy"]}
    assert "adds X-Known: yes" in found["smtpd_client_restrictions"]["text"]
    assert found["smtpd_helo_restrictions"]["verdict"] == "none"
    assert not found["smtpd_recipient_restrictions"]["asked"], "a policy service would count it"
    refused = asked("192.0.2.9")
    assert refused.json["outcome"] == "refused" and refused.json["reply"].startswith("450 4.2.0 ")
    assert [each["check"] for each in steps(refused)["policy"]] == ["smtpd_client_restrictions"]
    assert "not from there" in asked("192.0.2.1", "--helo", "evil.test").json["reply"]


def test_who_may_relay_is_said_by_the_list(site, tmp_path):
    (tmp_path / "partners").write_text("192.0.2.1 OK\n")
    site.config.write_text(
        f'smtpd_relay_restrictions = "check_client_access texthash:{tmp_path}/partners, reject_unauth_destination"\n'
        + site.config.read_text()
    )
    arguments = ("explain", "ann@a.example", "x@r.test", "--json", "--client")
    assert site.ok(*arguments, "192.0.2.1").json["outcome"] == "accepted"
    assert "Relay access denied" in site.ok(*arguments, "192.0.2.2").json["reply"]


def test_a_sender_who_is_rewritten_and_a_filter_are_told(site):
    site.config.write_text(
        'srs_domain = "example.test"\ncontent_filter = "smtp:[127.0.0.1]:10025"\n' + site.config.read_text()
    )
    site.ok("alias", "add", "away@example.test", "x@r.test")
    found = steps(site.ok("explain", "ann@a.example", "away@example.test", "--client", "192.0.2.1", "--json"))
    assert found["filter"][0]["filter"] == "smtp:[127.0.0.1]:10025"
    assert found["srs"][0]["text"].startswith("it is passed on: its sender ")


def test_a_map_that_cannot_be_read_is_told(site, tmp_path):
    site.change("virtual_alias_maps = []", f'virtual_alias_maps = ["hash:{tmp_path}/absent"]')
    found = steps(site.ok("explain", "bill@example.test", "bill@example.test", "--json"))
    assert "absent" in found["problem"][0]["text"]


def test_wrong_calls(site):
    for arguments in ((), ("a@b.test",), ("a@b.test", "c@d.test", "--client", "nonsense"), ("a@b.test", "--id", "1")):
        assert site("explain", *arguments).code == EX_USAGE
    done = site("explain", "--id", "000000000001")
    assert done.code == EX_DATAERR and "no message" in done.err


# --- in the queue ---


def queued(site, sender="bill@example.test"):
    site.sendmail("-f", sender, "x@r.test")
    return site.ok("queue", "list", "--json").json[0]["queue_id"]


def waiting(site, queue_id):
    (found,) = site.ok("explain", "--id", queue_id, "--json").json["recipients"]
    return found


def test_why_a_new_message_waits(site):
    queue_id = queued(site)
    found = waiting(site, queue_id)
    assert (found["state"], found["until"], found["hop"]) == ("active", None, None)
    assert "no server is running" in found["why"]
    assert "no server is running" in site.ok("explain", "--id", queue_id).out


def test_why_a_held_or_suspended_one_waits_and_what_ends_it(site):
    queue_id = queued(site)
    site.ok("queue", "suspend", "r.test")
    assert "fastmta queue resume r.test" in waiting(site, queue_id)["why"]
    assert steps(site.ok("explain", "bill@example.test", "y@r.test", "--json"))["suspended"]
    site.ok("queue", "hold", "--all")
    assert f"fastmta queue release --id {queue_id}" in waiting(site, queue_id)["why"]


def test_why_a_deferred_one_waits_until_when_and_what_was_said(site):
    queue_id = queued(site)
    due_ms = int(time.time() * 1000) + 600_000
    store = MailStore.open(Path(load(site.config).data_directory))
    (row,) = store.queue.recipients(int(store.queue.walk()[0][0][0].queue_id))
    move = Outcome(row.queue_id, row.n, row.state, int(RecipientState.DEFERRED), 3, due_ms, b"451 4.7.1 greylisted")
    asyncio.run(store.queue.finish([move]))
    store.close()
    found = waiting(site, queue_id)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(due_ms / 1000))
    assert (found["state"], found["attempts"], found["until"]) == ("deferred", 3, stamp)
    assert found["last_reply"] == "451 4.7.1 greylisted" and "greylisted" in site.ok("explain", "--id", queue_id).out


def test_a_route_that_has_changed_is_told(site):
    queue_id = queued(site)
    assert waiting(site, queue_id)["route_today"] is None
    site.change('"smtp:[127.0.0.1]:2526"', '"smtp:[127.0.0.1]:2527"')
    assert waiting(site, queue_id)["route_today"] == "smtp:[127.0.0.1]:2527"
    assert f"requeue --id {queue_id}" in site.ok("explain", "--id", queue_id).out
