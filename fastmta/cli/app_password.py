"""`fastmta app-password`: passwords for one program each."""

import click

from fastmta.cli.derived import add_missing, command
from fastmta.operations import app_passwords


@click.group(
    "app-password",
    epilog="\b\nExamples:\n  fastmta app-password add bill@example.org phone --protocol imap --protocol smtp\n"
    "  fastmta app-password list bill@example.org\n  fastmta app-password delete bill@example.org phone",
)
def app_password() -> None:
    """Passwords for one program each, beside the account's own: named, limited to protocols, deleted one by one."""


def _show(made: app_passwords.Made) -> None:
    print(made.password)


app_password.add_command(command(app_passwords.add, show=_show))
add_missing(app_password, "app-password")
