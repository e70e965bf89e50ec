"""`sendmail`: how programs hand in mail, with Postfix's flags, outcomes and exit codes.

A message is left in the spool, with the server up or down, by root or anybody: one way, so one outcome. What is wrong
with a recipient is told by a report to the sender. No shell is ever involved, options that mean nothing here are
ignored as Postfix does, and control characters in addresses or names are refused, so that nothing on the command line
can add a command or a header.

Scripts run this program once a message: it loads neither the store nor the schema (docs/operations.md).
"""

import gc
import os
import pwd
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import BinaryIO, Final

from fastmta.cli.failures import EX_DATAERR, EX_TEMPFAIL, EX_UNAVAILABLE, CommandFailed, guarded
from fastmta.config.brief import Brief, read_brief
from fastmta.model.limits import SENDMAIL_RECIPIENTS, SMTP_ENVID_BYTES, SPOOL_LINE_BYTES
from fastmta.pickup.address_list import lenient_addresses
from fastmta.pickup.letter import READ_BYTES, BadLetter, Letter
from fastmta.pickup.spool import Drop, NoSpool, Ticket, TooBig, deposit, make_spool

_WITH_VALUE: Final = frozenset("ABCFLNORVXbefhopr")
_ALONE: Final = frozenset("GIUcimntvx")
_NOTIFY: Final = {"never": 1, "success": 2, "failure": 4, "delay": 8}  # model/envelope's NOTIFY_* bits
# Postfix's program ends with this code whatever is wrong with its command line: who called it tries again.
EX_CALL: Final = EX_TEMPFAIL
USAGE: Final = "usage: sendmail [-t] [-i] [-f sender] [-F name] [-N notify] [-R ret] [-V envid] [-C file] recipient..."
HELP: Final = f"""\
U{USAGE[1:]}

Submits the message on standard input. -t takes recipients from its header, -i does not end it at a line with a dot
alone. -bp lists the queue, -q has it tried now, -bs speaks SMTP, -bv mails a report on recipients, -bi compiles the
alias files. Flags that mean nothing here are ignored.
"""


class Options:
    """The command line, taken apart."""

    def __init__(self) -> None:
        self.mode = "m"
        self.from_header = False  # -t
        self.dot_ends = True
        self.sender: str | None = None
        self.full_name: str | None = None
        self.config_path: str | None = None
        self.notify = 0
        self.ret = ""
        self.envid = ""
        self.recipients: list[str] = []


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of the program `sendmail`; called by its other names it is those."""
    if argv is None:
        gc.disable()  # what goes round in circles goes with the process, which is short
    name = os.path.basename(sys.argv[0])
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and name in ("mailq", "newaliases"):
        arguments.insert(0, "-bp" if name == "mailq" else "-bi")
    return guarded("sendmail", lambda: run(arguments))


def run(arguments: Sequence[str], config_path: str | None = None) -> int:
    """Does what the arguments say; the exit code, or CommandFailed."""
    if list(arguments) == ["--help"]:
        print(HELP, end="")
        return 0
    options = parse(arguments)
    brief = read_brief(options.config_path or config_path)
    if options.mode == "p":
        from fastmta.cli.mailq import show

        show(brief, as_json=False)
        return 0
    if options.mode == "i":
        from fastmta.cli.postmap import compile_aliases
        from fastmta.config.load import load

        return compile_aliases(load(brief.config_file))
    if options.mode == "q":
        from fastmta.cli.queue_listing import flush

        flush(brief)
        return 0
    if options.mode == "s":
        from fastmta.cli.sendmail_session import serve
        from fastmta.config.load import load

        full_name = _full_name(options, _user())
        source, sink = sys.stdin.buffer, sys.stdout.buffer
        return serve(load(brief.config_file), full_name, lambda t, lines: _leave(brief, t, lines), source, sink)
    _submit(brief, options)
    return 0


def parse(arguments: Sequence[str]) -> Options:
    """Takes the flags apart as getopt(3) does; CommandFailed for what is no flag of sendmail."""
    options = Options()
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            options.recipients += left
            break
        if not argument.startswith("-") or argument == "-":
            options.recipients.append(argument)
            continue
        at = 1
        while at < len(argument):
            letter = argument[at]
            at += 1
            if letter == "q":  # -q, -qIid, -q30m: whatever follows belongs to it
                options.mode = "q"
                break
            if letter in _ALONE:
                _set_flag(options, letter)
                continue
            if letter not in _WITH_VALUE:
                raise CommandFailed(f"unknown option -{letter!a}; {USAGE}".replace("'", ""), EX_CALL)
            value = argument[at:]
            if not value and letter != "f":
                if not left:
                    raise CommandFailed(f"-{letter} needs a value; {USAGE}", EX_CALL)
                value = left.pop(0)
            elif not value:
                value = left.pop(0) if left else ""
            _set_value(options, letter, value)
            break
    return options


def _set_flag(options: Options, letter: str) -> None:
    if letter == "t":
        options.from_header = True
    elif letter == "i":
        options.dot_ends = False
    elif letter == "I":
        options.mode = "i"


def _set_value(options: Options, letter: str, value: str) -> None:
    if letter == "b":
        if value not in {"m", "p", "i", "s", "v"}:
            hint = "the server is started by fastmta serve" if value in {"d", "l"} else USAGE
            raise CommandFailed(f"-b{value}: not supported; {hint}", EX_CALL)
        options.mode = value
    elif letter in "fr":
        options.sender = value
    elif letter == "F":
        options.full_name = value
    elif letter == "C":
        options.config_path = value
    elif letter == "o" and value == "i":
        options.dot_ends = False
    elif letter == "N":
        options.notify = _notify(value)
    elif letter == "R":
        if value.upper() in {"FULL", "HDRS"}:
            options.ret = value.upper()
        else:
            _warn(f"bad -R option value {value!a} -- ignored")
    elif letter == "V":
        envid = _clean("the envelope id", value)
        if envid.isascii() and len(envid) <= SMTP_ENVID_BYTES:
            options.envid = envid
        else:
            _warn("bad -V option value -- ignored")
    # -A -B -L -O -X -e -h -p and other -o: taken and without effect, as in Postfix


def _notify(value: str) -> int:
    words = value.lower().split(",")
    if not all(word in _NOTIFY for word in words) or (len(words) > 1 and "never" in words):
        _warn(f"bad -N option value {value!a} -- ignored")
        return 0
    return sum({_NOTIFY[word] for word in words})


def _warn(text: str) -> None:
    print(f"sendmail: warning: {text}", file=sys.stderr)


def _submit(brief: Brief, options: Options) -> None:
    verify = options.mode == "v"
    if verify and options.from_header:
        raise CommandFailed("-t cannot be used with -bv", EX_CALL)
    if not options.recipients and not options.from_header:
        raise CommandFailed("recipients must be given on the command line or by -t", EX_CALL)
    user = _user()
    sender = _sender(options, user.pw_name)
    full_name = _full_name(options, user)
    recipients = [each for argument in options.recipients for each in _addresses(argument)]
    content: Iterator[bytes] = iter(())
    if not verify:
        content = _content(sys.stdin.buffer, options.dot_ends)
    if options.from_header:
        if sys.stdin.isatty():
            print("sendmail: reading the message from the terminal, up to a line with a dot alone", file=sys.stderr)
        try:
            letter = Letter(content)
            recipients += letter.recipients()
        except BadLetter as error:
            raise CommandFailed(str(error), EX_DATAERR) from error
        content = chain(letter.head, letter.rest)
    if not recipients:
        raise CommandFailed("no recipient addresses found", EX_CALL)
    if len(recipients) > SENDMAIL_RECIPIENTS:
        raise CommandFailed(f"more than {SENDMAIL_RECIPIENTS} recipients", EX_DATAERR)
    drops = [Drop(_bounded(address), options.notify) for address in recipients]
    ticket = Ticket(sender, drops, full_name, options.envid, options.ret, verify)
    try:
        _leave(brief, ticket, content)
    except TooBig as error:
        raise CommandFailed(str(error), EX_UNAVAILABLE) from error
    except OSError as error:
        raise CommandFailed(f"queue file write error: {error.strerror}", EX_TEMPFAIL) from error
    except NoSpool as error:
        hint = "the server makes it when it starts; is this the right configuration?"
        raise CommandFailed(f"no mail can be left here: {error}; {hint}", EX_TEMPFAIL) from error
    if verify:
        print(f"Mail Delivery Status Report will be mailed to <{sender}>.")


def _leave(brief: Brief, ticket: Ticket, content: Iterator[bytes]) -> None:
    """Leaves a message in the spool, which who may do so makes where no server has run yet."""
    if not os.path.isdir(f"{brief.data_directory}/public/maildrop"):
        _make_spool(brief.data_directory)
    deposit(brief.data_directory, ticket, content, brief.message_size_limit)


def _make_spool(data_directory: str) -> None:
    from contextlib import nullcontext

    from fastmta.runtime.identity import acting_as

    try:
        owner = os.stat(data_directory)
        as_owner = nullcontext()
        if os.geteuid() == 0 and owner.st_uid:
            as_owner = acting_as(owner.st_uid, owner.st_gid, [owner.st_gid])  # type: ignore[assignment]
        with as_owner:
            os.close(make_spool(data_directory))
    except OSError:
        return  # told by what follows


def _content(stream: BinaryIO, dot_ends: bool) -> Iterator[bytes]:
    """Lines with their ends, long ones in pieces, until the end of the stream or the lone dot."""
    at_start = True
    while line := stream.readline(READ_BYTES):
        if dot_ends and at_start and line in (b".\n", b".\r\n", b"."):
            return
        at_start = line.endswith(b"\n")
        yield line


def _user() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        raise CommandFailed(f"no login name for user id {os.getuid()}", EX_TEMPFAIL) from None


def _sender(options: Options, login: str) -> str:
    """The envelope's sender; a bare name gets its domain from the server. Anybody may be anybody, as in Postfix."""
    text = _clean("the sender", login if options.sender is None else options.sender.strip())
    if text in {"", "<>"}:
        return ""
    found = lenient_addresses(text)
    return _bounded(found[0] if found else text)


def _full_name(options: Options, user: pwd.struct_passwd) -> str:
    """-F, else $NAME, else what the system knows, as Postfix's fullname() does."""
    name = options.full_name if options.full_name is not None else os.environ.get("NAME")
    if name is not None:
        return _bounded(_clean("the full name", name))
    known = user.pw_gecos.partition(",")[0].replace("&", user.pw_name.capitalize())
    return "".join(character for character in known if character.isprintable())


def _addresses(argument: str) -> list[str]:
    """A recipient argument may be a list, as in Postfix; what is no address is left to be reported."""
    return lenient_addresses(_clean("the recipient", argument))


def _bounded(text: str) -> str:
    if len(text.encode("utf-8", "surrogateescape")) > SPOOL_LINE_BYTES - 2:
        raise CommandFailed("an address or name is too long", EX_DATAERR)
    return text


def _clean(what: str, text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise CommandFailed(f"{what} holds control characters", EX_DATAERR)
    return text
