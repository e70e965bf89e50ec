"""pipe(8)'s rules: arguments from macros, what the flags do to the mail, what an exit code means."""

import pytest

from fastmta.config.pipes import parse_argv
from fastmta.config.tables import PipeConfig
from fastmta.delivery.pipe_command import (
    Unsafe,
    converted,
    expand,
    opening,
    quoted,
    recipient_values,
    sender_value,
    unescaped,
    verdict,
)


def pipe(flags: str = "", **fields) -> PipeConfig:
    return PipeConfig(argv=("/bin/true",), user="nobody", flags=flags, **fields)


def values(address: str, flags: str = "", delimiters: str = "+") -> dict[str, str]:
    return recipient_values(pipe(flags), address, address, delimiters)


def test_a_recipients_macro_makes_one_argument_for_each() -> None:
    each = [values("Ann+x@A.test"), values("bob@b.test")]
    made = expand(("/p", "-f", "$sender", "--", "${recipient}", "$(user)/${extension}"), {"sender": "s@s.test"}, each)
    assert made == ["/p", "-f", "s@s.test", "--", "Ann+x@A.test", "bob@b.test", "Ann/x", "bob/"]


def test_a_dollar_is_written_twice() -> None:
    assert expand(("/p", "$$5 $size"), {"size": "7"}, []) == ["/p", "$5 7"]


def test_what_came_with_the_mail_is_never_a_template() -> None:
    assert expand(("/p", "$sender"), {"sender": "$recipient;`id`|x"}, []) == ["/p", "$recipient;`id`|x"]


def test_an_argument_whose_user_is_empty_is_left_out() -> None:
    assert expand(("/p", "$user"), {}, [values("+x@a.test", delimiters="")]) == ["/p", "+x"]
    empty = {**values("a@a.test"), "user": ""}
    assert expand(("/p", "$user", "$mailbox"), {}, [empty]) == ["/p", "a"]


@pytest.mark.parametrize("bad", ["-oQ/x@a.test", "--", "-"])
def test_mail_cannot_bring_an_option(bad: str) -> None:
    with pytest.raises(Unsafe, match="begins with -"):
        expand(("/p", "$sender"), {"sender": bad}, [])
    assert expand(("/p", "-f$sender"), {"sender": bad}, []) == ["/p", f"-f{bad}"]  # the administrator's own dash


def test_mail_cannot_bring_a_nul() -> None:
    with pytest.raises(Unsafe, match="NUL"):
        expand(("/p", "$sender"), {"sender": "a\0b@c.test"}, [])


def test_folding_and_quoting_follow_the_flags() -> None:
    assert values("Ann Lee@A.Test", "h")["recipient"] == "Ann Lee@a.test"
    assert values("Ann Lee@A.Test", "u")["recipient"] == "ann lee@A.Test"
    assert values("Ann Lee@A.Test", "huq")["recipient"] == '"ann lee"@a.test'
    folded = values("Ann+X@A.Test", "hu")
    assert (folded["user"], folded["extension"], folded["mailbox"], folded["domain"]) == ("ann", "x", "ann+x", "a.test")
    assert quoted('a"b\\c@d.test') == '"a\\"b\\\\c"@d.test'
    assert quoted("a.b@d.test") == "a.b@d.test"
    assert sender_value(pipe("q"), "a b@c.test") == '"a b"@c.test'
    assert sender_value(pipe(null_sender=""), "") == ""
    assert sender_value(pipe(), "") == "MAILER-DAEMON"


def test_the_flags_put_lines_in_front_in_postfixs_order() -> None:
    made = opening(pipe("DFOR"), "s@s.test", "r@r.test", "o@o.test", 0.0).decode().split("\r\n")
    assert made[0].startswith("From s@s.test  Thu Jan  1 ")
    assert made[1:] == ["Return-Path: <s@s.test>", "X-Original-To: o@o.test", "Delivered-To: r@r.test", ""]
    assert opening(pipe(), "s@s.test", "r@r.test", "o@o.test", 0.0) == b""


MAIL = b"Subject: x\r\n\r\nFrom here\r\n.\r\n..two\r\nnot From \r\n"


@pytest.mark.parametrize(
    ("flags", "eol", "expected"),
    [
        ("", "\\n", b"Subject: x\n\nFrom here\n.\n..two\nnot From \n"),
        ("", "\\r\\n", MAIL),
        ("B", "\\n", b"Subject: x\n\nFrom here\n.\n..two\nnot From \n\n"),
        (".>", "\\n", b"Subject: x\n\n>From here\n..\n...two\nnot From \n"),
    ],
)
def test_the_mail_is_the_same_however_it_is_read(flags: str, eol: str, expected: bytes) -> None:
    for size in (1, 2, 3, 5, 7, len(MAIL)):
        pieces = [MAIL[at : at + size] for at in range(0, len(MAIL), size)]
        assert b"".join(converted(pipe(flags, eol=eol), pieces)) == expected


def test_a_last_line_is_ended() -> None:
    assert b"".join(converted(pipe(), [b"a\r\nb"])) == b"a\nb\n"
    assert b"".join(converted(pipe(), [])) == b""


def test_a_line_of_a_megabyte_is_passed_on_in_pieces() -> None:
    made = list(converted(pipe(".>"), [b"x" * 65_536] * 16))
    assert b"".join(made) == b"x" * 2**20 + b"\n"
    assert max(map(len, made)) <= 65_541


def test_c_escapes() -> None:
    assert unescaped("\\r\\n\\t\\\\\\101\\x") == b"\r\n\t\\Ax"


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [
        (0, b"fine", "250 2.0.0 delivered via p service"),
        (67, b"", "554 5.1.1 user unknown"),
        (67, b"no\tsuch\nuser\x01", "554 5.1.1 user unknown. Command output: no such user_"),
        (71, b"", "451 4.3.0 system resource problem"),
        (75, b"", "451 4.3.0 temporary failure"),
        (77, b"", "554 5.7.0 permission denied"),
        (1, b"oh", '554 5.3.0 Command died with status 1: "/bin/x". Command output: oh'),
        (-9, b"", '451 4.3.0 Command died with signal 9: "/bin/x"'),
        (75, b"5.7.1 refused by rule", "554 5.7.1 refused by rule"),  # what it says counts before its code, as pipe(8)
        (64, b"4.2.2 over quota", "451 4.2.2 over quota"),
        (64, b"2.0.0 fine", "554 5.3.0 command line usage error. Command output: 2.0.0 fine"),
    ],
)
def test_an_end_is_a_reply(status: int, output: bytes, expected: str) -> None:
    assert str(verdict("p", "/bin/x", status, output)) == expected


def test_a_command_that_is_late_returns_the_mail() -> None:
    assert str(verdict("p", "/bin/x", -9, b"", late=True)) == '554 5.3.0 Command time limit exceeded: "/bin/x"'


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        ([], "program"),
        ("maildrop -d x", "absolute"),
        (["/p", "${who}"], "not who"),
        (["/p", "${client_helo}"], "client_helo"),
        (["/p", "5 $"], r"\$\$"),
        (["/${user}"], "without macros"),
        (["/p", "a\nb"], "control"),
    ],
)
def test_wrong_arguments_are_refused(argv: object, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        parse_argv(argv)


def test_one_string_is_divided_by_white_space() -> None:
    assert parse_argv("/usr/bin/maildrop -d ${recipient}") == ("/usr/bin/maildrop", "-d", "${recipient}")
