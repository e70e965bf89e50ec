"""`fastmta check`: 78 for whatever would stop `serve`, warnings with 0 for what an administrator would regret."""

import datetime
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fastmta.cli.failures import EX_CONFIG
from fastmta.runtime.lock import lock_directory
from fastmta.tls.certificate import write_self_signed

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def quiet(cli):
    """A configuration of which nothing is to be said."""
    text = cli.config.read_text()
    before, _, after = text.partition("[listen]")
    cli.config.write_text(before + '[listen]\nsmtp = ["127.0.0.1:0"]\n\n[tls]' + after.partition("[tls]")[2])
    cli.user("postmaster@example.test")
    cli.user("abuse@example.test")
    return cli


def serve_says(config):
    """What `serve` says of a configuration that it cannot start with, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "fastmta.supervisor.main", str(config)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=30,
    )
    return done.returncode, done.stderr


def test_nothing_is_said_of_a_good_configuration(quiet):
    done = quiet("check")
    assert (done.code, done.out, done.err) == (0, f"{quiet.config}: no problem found\n", "")
    assert quiet("check", "--json").json == {
        "file": str(quiet.config),
        "ok": True,
        "problems": [],
        "warnings": [],
    }


def test_every_problem_of_the_text_is_named(cli):
    cli.change("workers = 0", 'workers = "x"\nmynetwork = "y"')
    done = cli("check")
    assert done.code == EX_CONFIG
    assert [line.rpartition("fastmta.toml:")[2].split(":")[1].strip() for line in done.err.splitlines()] == [
        "workers",
        "mynetwork",
    ]
    assert [each["key"] for each in cli("check", "--json").json["problems"]] == ["workers", "mynetwork"]


def test_all_prints_every_key(quiet):
    out = quiet.ok("check", "--all").out
    assert "myhostname = mx.example.test\n" in out
    assert "delivery.maximal_queue_lifetime = 432000s\n" in out


def test_all_gives_every_key_as_json(quiet):
    keys = quiet.ok("check", "--all", "--json").json["keys"]
    assert (keys["myhostname"], keys["delivery.maximal_queue_lifetime"]) == ("mx.example.test", 432000)


def test_a_store_that_may_not_be_read_is_no_store_without_accounts(quiet, monkeypatch):
    def refuse(directory, create):
        raise PermissionError(13, "Permission denied", f"{directory}/open.lock")

    monkeypatch.setattr("fastmta.store.MailStore.open", refuse)
    done = quiet("check")
    assert (done.code, "open.lock: Permission denied" in done.err) == (EX_CONFIG, True)
    assert "no account" not in done.err


STOPPING = {
    "no certificate": ('cert_file = "cert.pem"', 'cert_file = "absent.pem"', "tls.cert_file: ", "No such file"),
    "no key": ('key_file = "key.pem"', 'key_file = "absent.pem"', "tls.key_file: ", "No such file"),
    "exchanged": (
        'cert_file = "cert.pem"\nkey_file = "key.pem"',
        'cert_file = "key.pem"\nkey_file = "cert.pem"',
        "tls.cert_file: ",
        "are cert_file and key_file exchanged?",
    ),
    "no map": ("virtual_alias_maps = []", 'virtual_alias_maps = "hash:absent"', "virtual_alias_maps: ", "No such file"),
    "data in a file": (
        'data_directory = "data"',
        'data_directory = "key.pem/x"',
        "data_directory: ",
        "not a directory",
    ),
    "no authorities": ("[tls]", '[tls]\nsmtp_tls_CAfile = "key.pem"', "tls.smtp_tls_CAfile: ", "damaged"),
    "nobody": ("workers_may_be_root = true", 'default_user = "root" #', "default_user: ", "the user id of root"),
    "a stranger": ("workers_may_be_root = true", 'default_user = "absent" #', "default_user: ", "`useradd --system "),
}


@pytest.mark.parametrize("name", STOPPING)
def test_what_check_refuses_stops_serve_with_the_same_words(quiet, name):
    old, new, key, says = STOPPING[name]
    if key == "default_user: " and os.geteuid() != 0:
        pytest.skip("only root's workers change their user")
    quiet.change(old, new)
    done = quiet("check")
    assert done.code == EX_CONFIG
    assert key in done.err
    assert says in done.err
    code, err = serve_says(quiet.config)
    assert code == EX_CONFIG
    assert says in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's workers change their user")
def test_a_directory_that_the_workers_may_not_enter_is_named(quiet):
    with tempfile.TemporaryDirectory() as closed:  # mode 0700, root's
        quiet.change("workers_may_be_root = true", 'default_user = "nobody"')
        quiet.change('data_directory = "data"', f'data_directory = "{closed}/data"')
        done = quiet("check")
        assert done.code == EX_CONFIG
        assert f"data_directory: {closed}/data: the user nobody may not enter {closed}" in done.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("192.0.2.77:0", "this host does not have the address 192.0.2.77"),
        ("unix:/absent/socket", "there is no directory /absent"),
        ("[2001:db8::77]:0", ""),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_an_error(quiet, text, says):
    quiet.change('smtp = ["127.0.0.1:0"]', f'smtp = ["{text}"]')
    done = quiet("check")
    assert done.code == EX_CONFIG
    assert f"listen.smtp: {text}: {says}" in done.err


def test_a_port_of_another_program_is_an_error_unless_our_server_runs(quiet, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        quiet.change("127.0.0.1:0", f"127.0.0.1:{other.getsockname()[1]}")
        done = quiet("check")
        assert done.code == EX_CONFIG
        assert "another process listens there" in done.err
        lock = lock_directory(tmp_path / "data")  # as a running server does
        assert quiet("check").code == 0
        os.close(lock)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("0.0.0.0/0", "0.0.0.0/0 is everybody: this server is an open relay"),
        ("::/0", "::/0 is everybody"),
        ("128.0.0.0/1", "lets 2^31 addresses relay"),
        ("2000::/3", "lets 2^125 addresses relay"),
        ("10.0.0.0/8", ""),
        ("198.18.0.0/15", ""),
        ("8.8.8.0/24", ""),
    ],
)
def test_networks_that_make_an_open_relay_are_a_warning(quiet, network, says):
    quiet.change('mynetworks = ["127.0.0.0/8", ', f'mynetworks = ["127.0.0.0/8", "{network}", ')
    done = quiet("check")
    assert done.code == 0
    assert (says in done.err) if says else not done.err


def certificate(cli, names, **validity):
    for name in ("cert.pem", "key.pem"):
        (cli.config.parent / name).unlink()
    write_self_signed(cli.config.parent / "cert.pem", cli.config.parent / "key.pem", names, **validity)


def test_a_certificate_for_other_names_is_a_warning(quiet):
    certificate(quiet, ["other.test", "*.test"])
    assert "cert.pem is for other.test, *.test and not for myhostname, mx.example.test" in quiet.ok("check").err
    certificate(quiet, ["*.example.test"])
    assert quiet.ok("check").err == ""


@pytest.mark.parametrize(("days", "says"), [(-1, "expired on "), (5, ", in 4 days: renew it"), (60, "")])
def test_a_certificate_that_runs_out_is_a_warning(quiet, days, says):
    certificate(quiet, ["mx.example.test"], until=datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days))
    done = quiet("check")
    assert done.code == 0
    assert (says in done.err) if says else not done.err


def test_a_key_that_everybody_may_read_is_a_warning(quiet):
    (quiet.config.parent / "key.pem").chmod(0o644)
    assert "key.pem is open to every user of this machine" in quiet.ok("check").err


def test_aliases_that_lead_nowhere_are_a_warning(quiet, tmp_path):
    (tmp_path / "virtual").write_text(
        "sales@example.test postmaster, nobody@example.test\n"
        "far@example.test x@elsewhere.test\n@example.net @example.test\n"
    )
    (tmp_path / "aliases").write_text("root: postmaster, ghost\nrobot: |cmd\nvoid: /dev/null\n")
    quiet.change("virtual_alias_maps = []", 'virtual_alias_maps = "hash:virtual"')
    quiet.change("alias_maps = []   ", 'alias_maps = "hash:aliases"')
    quiet.ok("alias", "add", "team", "postmaster,gone@example.test")
    said = quiet.ok("check").err
    assert f"virtual_alias_maps: {tmp_path}/virtual:1: sales@example.test: nobody@example.test is nobody here\n" in said
    assert f"alias_maps: {tmp_path}/aliases:1: root: ghost is nobody here\n" in said
    assert f"alias_maps: {tmp_path}/aliases:2: robot: FastMTA does not deliver to commands\n" in said
    assert "alias team@example.test: gone@example.test is nobody here\n" in said
    assert said.count("\n") == 4


def test_a_postmaster_without_a_home_is_a_warning(quiet):
    quiet.ok("user", "delete", "postmaster", "--yes")
    assert (
        "postmaster@example.test, postmaster@mx.example.test have no mailbox, and the oldest account, "
        "abuse@example.test, gets that mail: "
        "`fastmta alias add postmaster@example.test ADDRESS`" in quiet.ok("check").err
    )


def test_a_server_without_any_account_is_a_warning(cli, tmp_path):
    cli.ok("init", str(tmp_path / "new"), "--domain", "other.test")
    cli.ok("alias", "list")  # makes no difference to the other one
    path = tmp_path / "new/fastmta.toml"
    text = path.read_text().partition("[listen]")[0] + '[listen]\nsmtp = ["127.0.0.1:0"]\n'
    path.write_text("workers_may_be_root = true\n" + text)
    assert "there is no account yet" in cli.ok("check", "-c", str(path)).err


def test_a_map_with_a_bad_line_is_a_warning_since_the_server_starts_with_it(quiet, tmp_path):
    (tmp_path / "virtual").write_text("novalue\n")
    quiet.change("virtual_alias_maps = []", 'virtual_alias_maps = "hash:virtual"')
    done = quiet.ok("check")
    assert "virtual:1: novalue: no value" in done.err
    assert "temporary failure" in done.err


def test_a_table_that_looks_into_messages_and_cannot_be_obeyed_is_a_warning(quiet, tmp_path):
    table = tmp_path / "checks"
    text = quiet.config.read_text()
    quiet.config.write_text(f'header_checks = "pcre:{table}"\n' + text)
    table.write_text("/^X-Internal:/ IGNORE\n/^Subject: (.*)/ REPLACE Subject: [ad] $1\n")
    assert quiet("check").err == ""
    table.write_text("/a/ FILTER local:\n")
    assert f'header_checks: pcre:{table}: "local:": a filter is reached by smtp:' in quiet("check").err
    table.write_text("/ok/ REJECT\n/a(?=b)/ REJECT\n")
    assert f"header_checks: {table}:2: /a(?=b)/: RE2 cannot do this" in quiet("check").err
    table.write_text("/a/ IGNORE\n")
    quiet.config.write_text(f'body_checks = "pcre:{table}"\n' + text)
    assert "body_checks: " in quiet("check").err


def test_what_keeps_outgoing_mail_waiting_is_a_warning(quiet, tmp_path):
    (tmp_path / "passwords").write_text("[relay.test]:587 bill:secret\nother.test justauser\n")
    (tmp_path / "passwords").chmod(0o644)
    (tmp_path / "policy").write_text("a.test secure match=nexthop\nb.test secured\nc.test may match=x\n")
    quiet.change(
        "[delivery]",
        '[delivery]\nsmtp_sasl_auth_enable = true\nsmtp_sasl_password_maps = "hash:passwords"\n'
        'smtp_tls_policy_maps = "hash:policy"',
    )
    said = quiet.ok("check").err
    assert f"{tmp_path}/policy:2: b.test:" in said and f"{tmp_path}/policy:3: c.test:" in said
    assert f"{tmp_path}/passwords is open to every user" in said and f"{tmp_path}/passwords:2: other.test:" in said
    assert "noplaintext forbids PLAIN" in said and "secret" not in said and "justauser" not in said
    assert said.count("\n") == 5


def test_a_password_map_that_is_not_there_is_an_error(quiet):
    quiet.change("[delivery]", '[delivery]\nsmtp_sasl_auth_enable = true\nsmtp_sasl_password_maps = "hash:nowhere"')
    done = quiet("check")
    assert done.code == EX_CONFIG and "delivery.smtp_sasl_password_maps" in done.err


def test_words_about_certificates_that_nobody_is_asked_for_are_a_warning(quiet):
    words = '"permit_mynetworks", "permit_tls_clientcerts", "reject_unauth_destination"'
    quiet.config.write_text(f"smtpd_relay_restrictions = [{words}]\n" + quiet.config.read_text())
    done = quiet("check")
    assert done.code == 0
    assert "smtpd_relay_restrictions: permit_tls_clientcerts: no client is asked" in done.err
    quiet.change("[tls]", "[tls]\nsmtpd_tls_req_ccert = true")
    done = quiet("check")
    assert "relay_clientcerts is empty" in done.err and "no client is asked" not in done.err
    assert "tls.smtpd_tls_req_ccert: no authority is set" in done.err


def test_tables_of_what_milters_have_made_are_looked_at_too(quiet, tmp_path):
    table = tmp_path / "checks"
    table.write_text("/a/ FILTER local:\n")
    quiet.config.write_text(f'milter_header_checks = "pcre:{table}"\n' + quiet.config.read_text())
    assert f'milter_header_checks: pcre:{table}: "local:": a filter is reached by smtp:' in quiet("check").err


@pytest.mark.parametrize("text", [None, "rate-limited 4 [\n", "nonsense * x\n"])
def test_a_file_of_reply_classes_that_cannot_be_used_stops_serve(quiet, text):
    own = quiet.config.parent / "replies"
    if text is not None:
        own.write_text(text)
    quiet.change("[delivery]", f'[delivery]\nreply_class_file = "{own}"')
    done = quiet("check")
    assert done.code == EX_CONFIG and "delivery.reply_class_file" in done.err and str(own) in done.err
    code, said = serve_says(quiet.config)
    assert code == EX_CONFIG and "reply_class_file" in said
