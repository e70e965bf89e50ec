"""`fastmta session`: who is connected, and an end to it."""

import click

from fastmta.cli.derived import add_missing, command
from fastmta.cli.output import print_table, size
from fastmta.operations import sessions


@click.group(
    epilog="\b\nExamples:\n  fastmta session list\n  fastmta session list --login bill@example.org --json\n"
    "  fastmta session kill 4711-imaps-12\n  fastmta session kill --login bill@example.org --protocol imap"
)
def session() -> None:
    """Sessions of all workers: who is connected, and an end to it."""


def _show(found: list[sessions.Session]) -> None:
    rows = [
        (
            each.id,
            each.login or "-",
            each.address or "-",
            each.since,
            each.mailbox,
            "TLS" if each.tls else "",
            size(each.received_bytes),
            size(each.sent_bytes),
        )
        for each in found
    ]
    print_table(("ID", "LOGIN", "ADDRESS", "SINCE", "MAILBOX", "TLS", "IN", "OUT"), rows, right=(6, 7))


def _killed(done: sessions.Killed) -> None:
    print(f"{done.sessions} session{'' if done.sessions == 1 else 's'} ended")


session.add_command(command(sessions.list_, show=_show))
session.add_command(command(sessions.kill, show=_killed))
add_missing(session, "session")
