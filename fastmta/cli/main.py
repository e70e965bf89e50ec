"""`fastmta`: one program, its commands imported only when they are called.

Errors are one plain line on standard error and an exit code of sysexits(3); a traceback is a bug of ours. The names
that scripts know (sendmail, mailq, newaliases, postmap) are programs of their own, in modules of those names.
"""

import importlib
import sys
from collections.abc import Sequence

import click

from fastmta import __version__
from fastmta.cli.failures import EX_USAGE, CommandFailed, guarded

# name: (module, attribute, one line of help); the line stands here so that `--help` imports nothing.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("fastmta.cli.init", "init", "Write a configuration, a certificate and the data directory."),
    "check": ("fastmta.cli.check", "check", "Say what is wrong with the configuration."),
    "serve": ("fastmta.cli.server", "serve", "Run the server in the foreground."),
    "reload": ("fastmta.cli.server", "reload", "Let the server read its configuration again."),
    "stop": ("fastmta.cli.server", "stop", "Stop the server gracefully."),
    "status": ("fastmta.cli.server", "status", "Show processes, connections and the queue."),
    "app-password": ("fastmta.cli.app_password", "app_password", "Passwords for one program each: add, list, delete."),
    "user": ("fastmta.cli.user", "user", "Accounts: add, list, passwd, rename, disable, enable, delete, quota."),
    "alias": ("fastmta.cli.alias", "alias", "Aliases kept in the store: add, list, delete."),
    "mailbox": ("fastmta.cli.mailbox", "mailbox", "Mailboxes: list, export, import, purge."),
    "index": ("fastmta.cli.index", "index", "Full-text indexes: status, rebuild."),
    "queue": ("fastmta.cli.queue", "queue", "The queue: list, show, flush, hold, stats, shape, top, suspend and more."),
    "explain": ("fastmta.cli.explain", "explain", "Say each step of a message's way, or why a queued one waits."),
    "trace": ("fastmta.cli.trace", "trace", "Say what happened to a message: each recipient, each attempt."),
    "simulate": ("fastmta.cli.simulate", "simulate", "Say what a changed configuration would have done with mail."),
    "store": ("fastmta.cli.store", "store", "The store: check, backup, compact, salvage, upgrade."),
    "sendmail": ("fastmta.cli.classic", "sendmail", "Submit a message, as sendmail(1) does."),
    "mailq": ("fastmta.cli.classic", "mailq", "Show the queue as mailq(1) does."),
    "newaliases": ("fastmta.cli.classic", "newaliases", "Compile the alias files."),
    "postmap": ("fastmta.cli.classic", "postmap", "Compile or query a map file."),
    "session": ("fastmta.cli.session", "session", "Who is connected now: list, kill."),
    "ban": ("fastmta.cli.ban", "ban", "Addresses that this server does not talk to: list, add, remove."),
    "verified": ("fastmta.cli.verified", "verified", "What next hops have said of addresses: list, clear."),
    "policy": ("fastmta.cli.policy", "policy", "The site's own policy module: test."),
    "quarantine": ("fastmta.cli.quarantine", "quarantine", "Mail that checks have put aside: list, release, delete."),
    "dkim": ("fastmta.cli.dkim", "dkim", "Signing keys: add, list, rotate, publish, delete."),
    "dns": ("fastmta.cli.dns", "dns", "The records that a domain needs, and what is wrong with those it has."),
    "dmarc": ("fastmta.cli.dmarc", "dmarc", "DMARC reports: report (received ones), pending and send (ours)."),
    "tlsrpt": ("fastmta.cli.tlsrpt", "tlsrpt", "TLS reports: report (received ones), show and send (ours)."),
    "verify": ("fastmta.cli.authentication", "verify", "Verify SPF, DKIM, ARC and DMARC of a message."),
    "sign": ("fastmta.cli.authentication", "sign", "Sign a message with DKIM, or add an ARC set."),
}

EPILOG = """\b
Examples:
  fastmta init /etc/fastmta
  fastmta user add bill@example.org
  fastmta serve -c /etc/fastmta/fastmta.toml
  fastmta queue list --domain example.net
  fastmta check

The configuration is -c FILE, else $FASTMTA_CONFIG, else ./fastmta.toml, else /etc/fastmta/fastmta.toml.
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run or asked for their own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"; did you mean {close[0]}?" if close else "; fastmta --help lists them"
            ctx.fail(f"no such command: {args[0]}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EPILOG,
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name="fastmta", message="%(prog)s %(version)s")
@click.option("-c", "--config", type=click.Path(), help="The configuration file.")
@click.pass_context
def fastmta(ctx: click.Context, config: str | None) -> None:
    """FastMTA, a whole mail server: SMTP, a durable queue, mailboxes, IMAP and POP3."""
    ctx.obj = config


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; gives the exit code."""
    return run(fastmta, "fastmta", argv)


def run(command: click.Command, name: str, argv: Sequence[str] | None = None) -> int:
    """Runs a click command and turns whatever it raises into a line and a code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(name, lambda: _clicked(command, name, arguments))


def _clicked(command: click.Command, name: str, arguments: list[str]) -> object:
    """Runs the command, click's own ways out made ours."""
    try:
        return command.main(arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as usage:
        print(usage.format_message())
        return EX_USAGE
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except click.UsageError as error:
        hint = f" ({error.ctx.command_path} --help)" if error.ctx is not None else ""
        raise CommandFailed(error.format_message().rstrip(".") + hint, EX_USAGE) from error
    except click.ClickException as error:
        raise CommandFailed(error.format_message(), error.exit_code) from error
