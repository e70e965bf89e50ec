"""sendmail: flags, recipients, what is added to a message, and what is refused."""

import os
import pwd
import re
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from fastmta.cli.failures import EX_DATAERR, EX_NOUSER, EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE
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
    assert b'From: "My Name" <me@example.test>' in lines
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


def test_unknown_recipients_alone_fail_and_beside_others_bounce(home):
    done = home.sendmail("nobody", "none@example.test")
    assert done.code == EX_NOUSER
    assert "5.1.1 <nobody@example.test>" in done.err
    assert home.sendmail("nobody", "bill").code == 0
    (queued,) = home.ok("queue", "list", "--json").json
    assert queued["recipient"] == "nobody@example.test"
    assert queued["next_hop"].startswith("error:5.1.1")


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
    assert 'From: "Mail Delivery System" <MAILER-DAEMON@example.test>' in content


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
        ((), "", EX_USAGE),
        (("-Z", "bill"), "", EX_USAGE),
        (("-bd",), "", EX_USAGE),
        (("-bz",), "", EX_USAGE),
        (("-F",), "", EX_USAGE),
        (("-N", "sometimes", "bill"), "", EX_USAGE),
        (("-R", "half", "bill"), "", EX_USAGE),
        (("-t",), "Subject: x\n\n", EX_DATAERR),
        (("--", "-oQ/tmp"), "", EX_DATAERR),
        (("-t",), "To: -oQ/tmp\n\n", EX_DATAERR),
        (("bill\nann",), "", EX_DATAERR),
        (("bill\r",), "", EX_DATAERR),
        (("-f", "a\nb", "bill"), "", EX_DATAERR),
        (("-F", "Name\r\nBcc: x@y", "bill"), "", EX_DATAERR),
        (("-V", "a\nb", "bill"), "", EX_DATAERR),
        (("-t",), "To: bill\0x\n\n", EX_DATAERR),
        (("-t",), "To: bill\r x\n\n", EX_DATAERR),
        (("-t",), "To: two words\n\n", EX_DATAERR),
        (("-t",), 'To: "open\n\n', EX_DATAERR),
        (("",), "", EX_DATAERR),
        (("bill",), "Received: x\n" * 51 + "\n", EX_DATAERR),
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
    assert home.sendmail("--", address).code in (EX_NOUSER, EX_DATAERR)


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


class SmtpStub:
    """One SMTP session on loopback: refuses recipients that hold "bad", notes the rest."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lines = []
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rwb", buffering=0) as stream:
            stream.write(b"220 stub\r\n")
            in_data = False
            while line := stream.readline():
                self.lines.append(line)
                if in_data:
                    in_data = line != b".\r\n"
                    if not in_data:
                        stream.write(b"250 taken\r\n")
                    continue
                in_data = line.upper().startswith(b"DATA")
                refused = b"bad" in line
                stream.write(b"354 go\r\n" if in_data else b"550 5.1.1 no\r\n" if refused else b"250 ok\r\n")

    def close(self):
        self.listener.close()
        self.thread.join(5)


@pytest.fixture
def stub():
    made = SmtpStub()
    yield made
    made.close()


def test_who_may_not_open_the_store_goes_to_the_smtp_port(home, stub, monkeypatch):
    home.change('smtp = ["0.0.0.0:25", "[::]:25"]', f'smtp = ["0.0.0.0:{stub.port}"]')
    monkeypatch.setattr("fastmta.cli.sendmail._may_open_store", lambda config: False)
    assert home.sendmail("-f", "me", "bill", stdin="Subject: s\n\n..dots\n").code == 0
    stub.close()
    assert b"mail FROM:<me@example.test>" in b"".join(stub.lines)
    assert b"...dots\r\n" in stub.lines


def test_a_refusal_of_the_smtp_port_is_told(home, stub, monkeypatch):
    home.change('smtp = ["0.0.0.0:25", "[::]:25"]', f'smtp = ["0.0.0.0:{stub.port}"]')
    monkeypatch.setattr("fastmta.cli.sendmail._may_open_store", lambda config: False)
    assert home.sendmail("bad@away.test").code == EX_NOUSER


def test_no_store_and_no_server_is_temporary(home, monkeypatch):
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    home.change('smtp = ["0.0.0.0:25", "[::]:25"]', f'smtp = ["127.0.0.1:{port}"]')
    monkeypatch.setattr("fastmta.cli.sendmail._may_open_store", lambda config: False)
    assert home.sendmail("bill").code == EX_TEMPFAIL


def test_bs_carries_a_session_after_the_greeting(home, stub, tmp_path):
    home.change('smtp = ["0.0.0.0:25", "[::]:25"]', f'smtp = ["127.0.0.1:{stub.port}"]')
    program = "import sys; from fastmta.cli.sendmail import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "-bs"],
        input=b"EHLO x\r\nQUIT\r\n",
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"220 stub\r\n250 ok\r\n250 ok\r\n"), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acts for another user")
def test_root_acts_as_the_owner_of_the_data_directory(tmp_path):
    owner = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        directory = Path(name) / "conf"
        path = initialise(directory, domain="example.test")
        os.chown(directory / "data", owner.pw_uid, owner.pw_gid)
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
        made = list((directory / "data").iterdir())
        assert made
        assert {entry.stat().st_uid for entry in made} == {owner.pw_uid}
