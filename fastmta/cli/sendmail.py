"""`sendmail`: how programs hand in mail, with Postfix's flags and sysexits codes.

The message goes straight into the store, with the server up or down; a user who may not open the store hands it to the
server's SMTP port instead. No shell is ever involved, options that mean nothing here are ignored as Postfix does, and
control characters in addresses or names are refused, so nothing on the command line can add a command or a header.
"""

import os
import pwd
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Final

import click
import msgspec

from fastmta.cli.failures import EX_DATAERR, EX_TEMPFAIL, EX_USAGE, CommandFailed
from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.model.envelope import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS
from fastmta.model.limits import SENDMAIL_RECIPIENTS

_WITH_VALUE: Final = frozenset("ABCFLNORVXbefhopr")
_ALONE: Final = frozenset("GIUcimntvx")
_NOTIFY: Final = {"success": NOTIFY_SUCCESS, "failure": NOTIFY_FAILURE, "delay": NOTIFY_DELAY}
USAGE: Final = "usage: sendmail [-t] [-i] [-f sender] [-F name] [-N notify] [-R ret] [-V envid] [-C file] recipient..."


class Options(msgspec.Struct):
    """The command line, taken apart."""

    mode: str = "m"
    from_header: bool = False  # -t
    dot_ends: bool = True
    sender: str | None = None
    full_name: str | None = None
    config_path: str | None = None
    notify: int = 0
    ret: str = ""
    envid: str = ""
    recipients: list[str] = []


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of the program `sendmail`; called by its other names it is those."""
    from fastmta.cli.main import guarded

    name = os.path.basename(sys.argv[0])
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and name in ("mailq", "newaliases"):
        arguments.insert(0, "-bp" if name == "mailq" else "-bi")
    return guarded("sendmail", lambda: run(arguments))


@click.command(
    "sendmail",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
    add_help_option=True,
    options_metavar="[FLAGS]",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="RECIPIENT...")
@click.pass_context
def command(ctx: click.Context, arguments: tuple[str, ...]) -> int:
    """Submit the message on standard input, as sendmail(1) does: -t -f -F -i -oi -bp -bs -q -N -R -V."""
    return run(arguments, ctx.find_root().obj)


def run(arguments: Sequence[str], config_path: str | None = None) -> int:
    """Does what the arguments say; the exit code, or CommandFailed."""
    options = parse(arguments)
    config = load(options.config_path or config_path)
    if options.mode == "p":
        from fastmta.cli.mailq import show

        show(config, as_json=False)
        return 0
    if options.mode == "i":
        from fastmta.cli.postmap import compile_aliases

        return compile_aliases(config)
    if options.mode == "q":
        from fastmta.cli.queue import flush_all

        flush_all(config)
        return 0
    if options.mode == "s":
        from fastmta.cli.bridge import bridge

        return bridge(config)
    _submit(config, options)
    return 0


def parse(arguments: Sequence[str]) -> Options:
    """Takes the flags apart as getopt(3) does; CommandFailed with EX_USAGE for what is no flag of sendmail."""
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
                raise CommandFailed(f"unknown option -{letter!a}; {USAGE}".replace("'", ""), EX_USAGE)
            value = argument[at:]
            if not value and letter != "f":
                if not left:
                    raise CommandFailed(f"-{letter} needs a value; {USAGE}", EX_USAGE)
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
        if value not in {"m", "p", "i", "s"}:
            hint = "the server is started by fastmta serve" if value in {"d", "l"} else USAGE
            raise CommandFailed(f"-b{value}: not supported; {hint}", EX_USAGE)
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
        if value.upper() not in {"FULL", "HDRS"}:
            raise CommandFailed(f"-R {value}: expected full or hdrs", EX_USAGE)
        options.ret = value.upper()
    elif letter == "V":
        options.envid = _clean("the envelope id", value)
    # -A -B -L -O -X -e -h -p and other -o: taken and without effect, as in Postfix


def _notify(value: str) -> int:
    words = value.lower().split(",")
    if words == ["never"]:
        return NOTIFY_NEVER
    if not all(word in _NOTIFY for word in words):
        raise CommandFailed(f"-N {value}: expected never, or some of success,failure,delay", EX_USAGE)
    return sum({_NOTIFY[word] for word in words})


def _submit(config: Config, options: Options) -> None:
    from fastmta.cli.letter import Letter
    from fastmta.cli.submit import Submission, date_text

    user = _user()
    sender = _sender(config, options, user.pw_name)
    full_name = _clean("the full name", options.full_name) if options.full_name is not None else _gecos(user)
    if not options.recipients and not options.from_header:
        raise CommandFailed("recipients must be given on the command line or by -t", EX_USAGE)
    for recipient in options.recipients:
        _require_address("recipient", recipient)
    if sys.stdin.isatty() and options.from_header:
        print("sendmail: reading the message from the terminal, up to a line with a dot alone", file=sys.stderr)
    letter = Letter(sys.stdin.buffer, dot_ends=options.dot_ends)
    recipients = [item for argument in options.recipients for item in _split(argument)]
    if options.from_header:
        recipients += letter.recipients()
        if not recipients:
            raise CommandFailed("no recipient addresses in the message's header", EX_DATAERR)
    for recipient in recipients:
        _require_address("recipient", recipient)
    if len(recipients) > SENDMAIL_RECIPIENTS:
        raise CommandFailed(f"more than {SENDMAIL_RECIPIENTS} recipients", EX_DATAERR)
    if letter.count(b"received") > config.hopcount_limit:
        raise CommandFailed("too many hops", EX_DATAERR)
    address = sender.decode("utf-8", "surrogateescape") or f"MAILER-DAEMON@{config.myorigin}"
    unique = f"{time.strftime('%Y%m%d%H%M%S', time.gmtime())}.{secrets.token_hex(8)}@{config.myhostname}"
    header = letter.header(
        [
            (b"From", _from_value(full_name if sender else "Mail Delivery System", address)),
            (b"Date", date_text().encode()),
            (b"Message-ID", f"<{unique}>".encode()),
        ]
    )
    submission = Submission(
        reverse_path=sender,
        recipients=recipients,
        header=header,
        body=letter.body(),
        client=f"from userid {user.pw_uid}",
        envid=options.envid.encode(),
        ret=options.ret,
        notify=options.notify,
    )
    _hand_in(config, submission)


def _hand_in(config: Config, submission: "object") -> None:
    from fastmta.cli.opened import run_with
    from fastmta.cli.submit import Submission, submit

    assert isinstance(submission, Submission)
    if not _may_open_store(config):
        from fastmta.cli.bridge import hand_over

        hand_over(config, submission)
        return
    run_with(config, lambda opened, store: submit(opened, store, submission))


def _may_open_store(config: Config) -> bool:
    if os.geteuid() == 0:
        return True
    directory = config.data_directory
    while not os.path.exists(directory):  # a data directory that is not there yet is made by whoever may
        directory = os.path.dirname(directory) or "."
    return os.access(directory, os.W_OK | os.X_OK)


def _user() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        raise CommandFailed(f"no login name for user id {os.getuid()}", EX_TEMPFAIL) from None


def _sender(config: Config, options: Options, login: str) -> bytes:
    from fastmta.local import addresses

    text = login if options.sender is None else options.sender.strip()
    if text in {"", "<>"}:
        return b""
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    _require_address("sender", text)
    try:
        return addresses.parse(text if "@" in text else f"{text}@{config.myorigin}").raw
    except ValueError as error:
        raise CommandFailed(f"sender {text!a}: {error}", EX_DATAERR) from error


def _split(argument: str) -> list[str]:
    """A recipient argument may be a list, as in Postfix."""
    from fastmta.cli.address_list import parse_addresses

    try:
        return parse_addresses(argument)
    except ValueError as error:
        raise CommandFailed(f"recipient {argument!a}: {error}", EX_DATAERR) from error


def _require_address(what: str, text: str) -> None:
    _clean(f"the {what}", text)
    if text.startswith("-"):
        raise CommandFailed(f"{what} {text!a}: an address does not begin with a minus sign here", EX_DATAERR)
    if not text.strip() or len(text) > 100_000:
        raise CommandFailed(f"the {what} is empty or too long", EX_DATAERR)


def _clean(what: str, text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise CommandFailed(f"{what} holds control characters", EX_DATAERR)
    return text


def _gecos(user: pwd.struct_passwd) -> str:
    name = user.pw_gecos.partition(",")[0].replace("&", user.pw_name.capitalize())
    return "".join(character for character in name if character.isprintable())


def _from_value(name: str, address: str) -> bytes:
    """`"Full Name" <address>` (RFC 5322 §3.4), the name encoded where it isn't ASCII (RFC 2047)."""
    if not name:
        return address.encode("utf-8", "surrogateescape")
    if name.isascii():
        quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    else:
        import base64

        raw = name.encode("utf-8", "replace")[:200].decode("utf-8", "ignore").encode()
        words = _whole_characters(raw, 45)
        quoted = "\r\n ".join(f"=?utf-8?B?{base64.b64encode(word).decode()}?=" for word in words)
    return f"{quoted} <{address}>".encode("utf-8", "surrogateescape")


def _whole_characters(raw: bytes, size: int) -> list[bytes]:
    """Pieces of at most `size` bytes that split no character (RFC 2047 §5)."""
    out = [b""]
    for character in raw.decode():
        encoded = character.encode()
        if len(out[-1]) + len(encoded) > size:
            out.append(b"")
        out[-1] += encoded
    return out
