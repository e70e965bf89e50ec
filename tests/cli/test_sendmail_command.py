"""sendmail: flags, recipients, what is added to a message, and what is refused."""

import json
import os
import pwd
import re
import subprocess
import sys
import tempfile
from email import message_from_bytes
from pathlib import Path

import pytest

from fastmta.cli.failures import EX_DATAERR, EX_TEMPFAIL, EX_UNAVAILABLE
from fastmta.cli.init import initialise

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def home(cli):
    cli.user("bill")
    cli.user("ann")
    return cli


def header_and_body(raw):
    header, _, body = raw.partition(b"\r\n\r\n")
    return header, body


def test_a_message_reaches_the_mailbox_completed(home):
    assert home.sendmail("-f", "me@example.test", "-F", "My Name", "bill").code == 0
    (raw,) = home.mail()
    header, body = header_and_body(raw)
    lines = header.split(b"\r\n")
    assert lines[0] == b"Return-Path: <me@example.test>"
    assert lines[1] == b"Delivered-To: bill@example.test"
    assert re.match(rb"Received: by mx\.example\.test \(FastMTA, from userid \d+\)$", lines[2])
    assert re.match(rb"\tid \w{12}; \w{3}, \d+ \w{3} \d{4} [\d:]{8} [+-]\d{4}$", lines[3])
    assert lines[4] == b"Subject: x"
    assert b"From: My Name <me@example.test>" in lines
    assert any(line.startswith(b"Date: ") for line in lines)
    assert any(re.match(rb"Message-ID: <[^>@]+@mx\.example\.test>$", line) for line in lines)
    assert body == b"body\r\n"


def test_what_is_there_is_not_added(home):
    home.sendmail("bill", stdin="From: a@b\nDate: then\nMessage-Id: <x@y>\nReturn-Path: <z>\nContent-Length: 3\n\nx\n")
    (raw,) = home.mail()
    for name in (b"from", b"date", b"message-id", b"return-path"):
        assert len(re.findall(rb"(?im)^" + name + rb":", raw)) == 1
    assert b"Content-Length" not in raw


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ('A "B" \\C', rb'From: "A \"B\" \\C" <me@example.test>'),
        ("\u00dcn\u00ef", b"From: =?utf-8?B?w5xuw68=?= <me@example.test>"),
        ("", b"From: me@example.test"),
    ],
)
def test_the_full_name_is_quoted_or_encoded(home, name, field):
    home.sendmail("-fme@example.test", f"-F{name}" if name else "-F", *([] if name else [""]), "bill")
    assert field + b"\r\n" in home.mail()[0]


def test_a_long_full_name_is_folded_between_characters(home):
    home.sendmail("-fme@example.test", "-F", "\u00fc" * 150, "bill")
    header, _ = header_and_body(home.mail()[0])
    start = header.index(b"From: ")
    words = re.findall(rb"=\?utf-8\?B\?[A-Za-z0-9+/=]+\?=", header[start:])
    assert len(words) > 1
    assert all(len(word) <= 75 for word in words)


def test_recipients_come_from_the_header_and_bcc_goes(home):
    text = 'To: "Bill, the first" <bill@example.test>,\n  others: far@away.test;\nCc: (nobody) bill\nBcc: ann\n\nx\n'
    assert home.sendmail("-t", "third@away.test", stdin=text).code == 0
    assert len(home.mail()) == 1
    assert b"Bcc" not in home.mail("ann@example.test")[0]
    queued = [each["recipient"] for each in home.ok("queue", "list", "--json").json]
    assert sorted(queued) == ["far@away.test", "third@away.test"]


def test_resent_fields_come_before_the_others(home):
    home.sendmail("-t", stdin="To: far@away.test\nResent-To: bill\nFrom: a@b\nDate: x\nMessage-ID: <x@y>\n\nx\n")
    assert len(home.mail()) == 1
    assert home.ok("queue", "list", "--json").json == []


@pytest.mark.parametrize(
    ("flags", "text", "body"),
    [
        ((), "\na\n.\nb\n", b"a\r\n"),
        (("-i",), "\na\n.\nb\n", b"a\r\n.\r\nb\r\n"),
        (("-oi",), "\n.\nb\n", b".\r\nb\r\n"),
        (("-ti",), "To: bill\n\n.\n", b".\r\n"),
        ((), "\n..\n .\n.x\n", b"..\r\n .\r\n.x\r\n"),
        ((), "\r\na\r\n.\r\nb\r\n", b"a\r\n"),
        ((), "\nno end", b"no end\r\n"),
        ((), "\na\rb\r\n\r\r\nc\n", b"a b\r\n \r\nc\r\n"),
        ((), "no header\nat all\n", b"no header\r\nat all\r\n"),
        ((), "", b""),
        ((), "From someone Mon Jan  1\nX: y\n\nb\n", b"b\r\n"),
        ((), "X: y\n \n z\n", b" \r\n z\r\n"),
    ],
)
def test_line_ends_and_dots(home, flags, text, body):
    assert home.sendmail(*flags, "bill", stdin=text).code == 0
    (raw,) = home.mail()
    assert header_and_body(raw)[1] == body
    assert b"\n" not in raw.replace(b"\r\n", b"")


def test_a_large_message_is_streamed_and_whole(home):
    home.change('message_size_limit = "50M"', 'message_size_limit = "5M"')
    line = "x" * 70 + "\n"
    text = "Subject: big\n\n" + line * 40_000
    assert home.sendmail("bill", stdin=text).code == 0
    listed = {each["name"]: each for each in home.ok("mailbox", "list", "bill", "--json").json}
    assert listed["INBOX"]["size"] > 72 * 40_000
    done = home.sendmail("bill", stdin="\n" + line * 80_000)
    assert done.code == EX_UNAVAILABLE
    assert "too big" in done.err
    assert len(home.mail()) == 1


@pytest.mark.parametrize(
    ("recipients", "delivered", "refused"),
    [
        (["nosuch"], 0, ["nosuch@example.test"]),
        (["nosuch", "none@example.test"], 0, ["none@example.test", "nosuch@example.test"]),
        (["nosuch", "bill"], 1, ["nosuch@example.test"]),
        (["bill", "a@b@", "nosuch"], 1, ["a@b@", "nosuch@example.test"]),
        (["-oQ/tmp"], 0, ["-oQ/tmp@example.test"]),
        (["two words"], 0, ["two words@example.test"]),
    ],
)
@pytest.mark.parametrize("way", ["arguments", "header"])
def test_a_bad_recipient_is_reported_and_keeps_nobody_else_from_the_mail(home, recipients, delivered, refused, way):
    """Postfix's outcome: the program has done its part, a report tells the sender."""
    if way == "arguments":
        done = home.sendmail("-f", "ann", "--", *recipients)
    else:
        done = home.sendmail("-f", "ann", "-t", stdin=f"To: {', '.join(recipients)}\n\nx\n")
    assert done.code == 0, done.err
    assert len(home.mail()) == delivered
    queued = home.ok("queue", "list", "--json").json
    assert sorted(each["recipient"].replace('"', "") for each in queued) == refused
    assert all(each["next_hop"].startswith("error:5.1.") for each in queued)


def test_aliases_of_the_store_and_of_maps_count_and_a_mailbox_gets_one_copy(home, tmp_path):
    (tmp_path / "virtual").write_text("staff@example.test bill, ann, far@away.test\n")
    home.change("virtual_alias_maps = []", 'virtual_alias_maps = "hash:virtual"')
    home.ok("alias", "add", "all", "staff", "bill")
    assert home.sendmail("all", "bill").code == 0
    assert len(home.mail()) == len(home.mail("ann@example.test")) == 1
    (queued,) = home.ok("queue", "list", "--json").json
    assert (queued["recipient"], queued["original_recipient"]) == ("far@away.test", "all@example.test")


@pytest.mark.parametrize("sender", ["", "<>"])
def test_the_null_sender(home, sender):
    assert home.sendmail("-f", sender, "far@away.test").code == 0
    assert home.ok("queue", "list", "--json").json[0]["sender"] == ""
    number = home.ok("queue", "list", "--json").json[0]["queue_id"]
    content = home.ok("queue", "show", number, "--content").out
    assert "From: Mail Delivery System <MAILER-DAEMON@example.test>" in content


def test_delivery_notification_flags_are_kept(home):
    assert home.sendmail("-N", "success,delay", "-R", "hdrs", "-V", "id-1", "far@away.test").code == 0
    number = home.ok("queue", "list", "--json").json[0]["queue_id"]
    assert home.ok("queue", "show", number, "--json").json["envid"] == "id-1"


def test_a_held_route_holds(home):
    home.change("[transport] ", '[transport]\n"parked.test" = "hold:"\n# ')
    assert home.sendmail("x@parked.test").code == 0
    assert home.ok("queue", "list", "--json").json[0]["state"] == "held"


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        ((), "", EX_TEMPFAIL),
        (("-Z", "bill"), "", EX_TEMPFAIL),
        (("-bd",), "", EX_TEMPFAIL),
        (("-bz",), "", EX_TEMPFAIL),
        (("-F",), "", EX_TEMPFAIL),
        (("-t",), "Subject: x\n\n", EX_TEMPFAIL),
        (("-t", "-bv", "bill"), "To: bill\n\n", EX_TEMPFAIL),
        (("",), "", EX_TEMPFAIL),
        (("bill\nann",), "", EX_DATAERR),
        (("bill\r",), "", EX_DATAERR),
        (("-f", "a\nb", "bill"), "", EX_DATAERR),
        (("-F", "Name\r\nBcc: x@y", "bill"), "", EX_DATAERR),
        (("-V", "a\nb", "bill"), "", EX_DATAERR),
        (("-t",), "To: bill\0x\n\n", EX_DATAERR),
        (("-t",), "To: bill\r x\n\n", EX_DATAERR),
        (("-t",), f"X: {'y' * 96}\n" * 30_000, EX_DATAERR),
        (("x" * 70_000,), "", EX_DATAERR),
    ],
)
def test_what_is_refused_leaves_nothing_behind(home, arguments, stdin, code):
    done = home.sendmail(*arguments, stdin=stdin)
    assert done.code == code, done.err
    assert done.err.startswith("sendmail: ")
    assert done.err.count("\n") == 1
    assert home.mail() == []
    assert home.ok("queue", "list", "--json").json == []


@pytest.mark.parametrize(
    "address", ["|touch /tmp/x", "/etc/passwd", "${run{id}}", "`id`", ":include:/etc/passwd", "$(id)"]
)
def test_nothing_is_a_command_or_a_file(home, address):
    assert home.sendmail("--", address).code == 0
    (queued,) = home.ok("queue", "list", "--json").json
    assert queued["next_hop"].startswith("error:5.1.")


@pytest.mark.parametrize("flag", [("-N", "sometimes"), ("-N", "never,success"), ("-R", "half"), ("-V", "x" * 101)])
def test_a_wrong_dsn_flag_is_told_and_ignored(home, flag):
    """As Postfix does: the mail matters more."""
    done = home.sendmail(*flag, "bill")
    assert done.code == 0
    assert "ignored" in done.err
    assert len(home.mail()) == 1


def test_too_many_hops_and_loops_are_reported(home):
    assert home.sendmail("-f", "ann", "bill", stdin="Received: x\n" * 51 + "\n").code == 0
    assert home.sendmail("-f", "ann", "bill", stdin="Delivered-To: bill@example.test\n\n").code == 0
    assert home.mail() == []
    hops = [each["next_hop"] for each in home.ok("queue", "list", "--json").json]
    assert [hop[:11] for hop in hops] == ["error:5.4.6", "error:5.4.6"]


def test_bv_mails_a_report_and_no_message(home):
    done = home.sendmail("-f", "ann", "-bv", "bill", "nosuch", "far@away.test", stdin="unread")
    assert done.code == 0
    assert done.out == "Mail Delivery Status Report will be mailed to <ann>.\n"
    assert home.mail() == []
    (raw,) = home.mail("ann@example.test")
    report = message_from_bytes(raw)
    fields = report.get_payload()[1].get_payload()
    verdicts = [(str(f["Final-Recipient"]), str(f["Action"])) for f in fields if f["Final-Recipient"]]
    assert verdicts == [
        ("rfc822; bill@example.test", "deliverable"),
        ("rfc822; nosuch@example.test", "undeliverable"),
        ("rfc822; far@away.test", "relayed"),
    ]
    assert home.ok("queue", "list", "--json").json == []


def test_the_header_is_completed_as_postfix_completes_it(home):
    text = (
        "To: root\nFrom: joe (Cron)\nCc: a b <ann>, (c) bob,\n\tx@y.test\nReply-To: grp: x, y;\nSubject: to bill\n\nx\n"
    )
    home.sendmail("bill", stdin=text)
    header, _ = header_and_body(home.mail()[0])
    for line in (
        b"To: root@example.test",
        b"From: joe@example.test (Cron)",
        b"Cc: a b <ann@example.test>, (c) bob@example.test,\r\n\tx@y.test",
        b"Reply-To: grp: x@example.test, y@example.test;",
        b"Subject: to bill",
    ):
        assert line + b"\r\n" in header + b"\r\n"


def test_a_resent_message_gets_the_resent_fields(home):
    home.sendmail("-f", "ann", "-F", "", "bill", stdin="Resent-To: q@r.test\nFrom: a@b.c\nTo: d@e.f\n\nhello\n")
    header, _ = header_and_body(home.mail()[0])
    names = [line.partition(b":")[0] for line in header.split(b"\r\n")[4:]]
    assert names == [b"Resent-To", b"From", b"To", b"Resent-Message-ID", b"Resent-Date", b"Resent-From"]


def test_a_message_counts_and_is_logged_as_all_others(home):
    home.sendmail("-f", "ann", "bill", "far@away.test")
    (received,) = home.log.named("pickup.received")
    assert received["to"] == ["bill@example.test", "far@away.test"]
    assert received["from"] == "ann@example.test"
    (delivered,) = home.log.named("delivery.delivered")
    assert (delivered["recipient"], delivered["queue_id"]) == ("bill@example.test", received["queue_id"])


def test_the_name_comes_from_the_environment_and_then_from_the_system(home, monkeypatch):
    monkeypatch.setenv("NAME", "Env Name")
    home.sendmail("-f", "me", "bill")
    assert b"From: Env Name <me@example.test>\r\n" in home.mail()[0]


def test_flags_without_effect_are_ignored(home):
    flags = (
        "-v",
        "-n",
        "-m",
        "-U",
        "-G",
        "-oem",
        "-oQ/tmp/x",
        "-odb",
        "-em",
        "-B8BITMIME",
        "-L",
        "tag",
        "-X",
        "/tmp/x.log",
    )
    assert home.sendmail(*flags, "-O", "QueueDirectory=/tmp", "-h", "3", "bill").code == 0
    assert len(home.mail()) == 1


def test_bp_is_mailq_and_q_flushes(home):
    assert home.sendmail("-bp").out == "Mail queue is empty\n"
    assert home.sendmail("-q").code == home.sendmail("-q30m").code == 0


def test_the_configuration_may_be_named(home, tmp_path, monkeypatch):
    monkeypatch.delenv("FASTMTA_CONFIG")
    assert home.sendmail("-C", str(home.config), "bill").code == 0
    assert len(home.mail()) == 1


def test_bs_speaks_smtp_with_any_line_ends_and_takes_what_a_report_will_answer(home):
    """As Postfix's: recipients are taken if their syntax is right."""
    commands = (
        "RCPT TO:<bill>\nEHLO x\r\nMAIL FROM:<ann@example.test> ENVID=q RET=HDRS\nRCPT TO:<bill@example.test>\n"
        "RCPT TO:<nosuch> NOTIFY=NEVER\nRCPT TO:<@@>\nDATA\nSubject: bs\n\n..stuffed\n.\r\nSTARTTLS\nNONSENSE\n"
        "MAIL FROM:<>\nRCPT TO:<ann@example.test>\nDATA\n\nsecond\n.\nQUIT\nNOOP\n"
    )
    done = home.sendmail("-bs", stdin=commands)
    assert done.code == 0
    codes = [line[:3] for line in done.out.splitlines() if line[3:4] == " "]
    expected = "220 503 250 250 250 250 501 354 250 502 500 250 250 354 250 221"
    assert codes == expected.split()
    assert header_and_body(home.mail()[0])[1] == b".stuffed\r\n"
    assert header_and_body(home.mail("ann@example.test")[0])[1] == b"second\r\n"
    (queued,) = home.ok("queue", "list", "--json").json
    assert queued["recipient"] == "nosuch@example.test"
    assert home.ok("queue", "show", queued["queue_id"], "--json").json["envid"] == "q"


def test_bs_that_ends_inside_a_message_leaves_nothing(home):
    done = home.sendmail("-bs", stdin="EHLO x\nMAIL FROM:<a@b>\nRCPT TO:<bill>\nDATA\nSubject: half\n")
    assert "421 4.4.2" in done.out
    assert home.mail() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acts for another user")
def test_root_acts_as_the_owner_of_the_data_directory(tmp_path):
    owner = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        directory = Path(name) / "conf"
        path = initialise(directory, domain="example.test")
        os.chown(directory / "data", owner.pw_uid, owner.pw_gid)
        before = set((directory / "data").iterdir())
        program = "import sys; from fastmta.cli.main import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program, "user", "add", "bill", "--password-stdin", "-c", str(path)],
            input=b"secret\n",
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        made = set((directory / "data").iterdir()) - before
        assert made
        assert {entry.stat().st_uid for entry in made} == {owner.pw_uid}


def test_mailq_shows_what_waits_for_the_server_to_come_up(home):
    home.leave("-f", "ann", "bill", "far@away.test")
    listed = home.mailq().out
    assert listed.count("bill") == listed.count("far@away.test") == 1
    assert listed.endswith("-- 1 Kbytes in 1 Request.\n")
    assert [each["address"] for each in json.loads(home.mailq("--json").out)["recipients"]] == ["bill", "far@away.test"]


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_no_argument_puts_a_field_into_the_header(home, end):
    """A line end in a name, an address or an envelope id is refused: nothing is left in the spool."""
    hostile = f"x{end}X-Evil: 1{end}{end}body"
    for arguments in (
        ("-F", hostile, "bill"),
        ("-f", f"ann@example.test{end}X-Evil: 1", "bill"),
        ("-f", "ann", f"bill@example.test{end}X-Evil: 1"),
        ("-V", hostile, "-f", "ann", "bill"),
    ):
        done = home.leave(*arguments)
        assert (done.code, done.out) == (EX_DATAERR, "")
        assert "holds control characters" in done.err
    assert home.mailq().out.startswith("Mail queue is empty")
