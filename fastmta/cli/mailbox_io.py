"""Mail in and out of accounts as mbox files and Maildirs: `fastmta mailbox export / import`.

mbox is mboxrd ("From " lines quoted reversibly) with LF line ends and the Status fields that mail readers share;
Maildir is Maildir++ with Dovecot's `dovecot-keywords` file. Links are not followed and only regular files are read,
since a Maildir may be its user's and the command root's. Bare newlines become CRLF; beside that, bytes are kept.

Left to others: which account and which store (cli/mailbox.py).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from fastmta.cli.failures import EX_CANTCREAT, EX_NOINPUT, CommandFailed
from fastmta.cli.mailbox_export import export_maildir, export_mbox
from fastmta.cli.mailbox_import import import_maildir, import_mbox

if TYPE_CHECKING:
    from fastmta.store import Account, MailStore


async def export_mailboxes(
    store: "MailStore", account: "Account", path: Path, *, format: str, mailbox: str | None
) -> int:
    """Writes all mailboxes of an account, or one; how many messages. `format`: "mbox", "maildir", or "auto" for Maildir
    where `path` is a directory. An mbox file must not exist yet; a Maildir is added to.
    """
    boxes = store.mailboxes.list(account.id)
    boxes.sort(key=lambda each: (each.name != "INBOX", each.name))
    if mailbox is not None:
        one = store.mailboxes.get(account.id, mailbox)
        if one is None:
            raise CommandFailed(f"no such mailbox: {mailbox}", EX_NOINPUT)
        boxes = [one]
    from fastmta.store.pace import Pace

    pace = Pace(store.path)
    directory = _is_directory(path)
    if format == "maildir" or (format == "auto" and directory):
        return export_maildir(store.mailboxes, boxes, path, pace, flat=mailbox is not None)
    if directory:
        raise CommandFailed(f"{path} is a directory", EX_CANTCREAT)
    return export_mbox(store.mailboxes, boxes, path, pace)


async def import_mailboxes(
    store: "MailStore", account: "Account", path: Path, *, format: str, mailbox: str | None
) -> int:
    """Reads an mbox file or a Maildir with its folders into `mailbox` (None: INBOX, folders to their own names); how
    many messages. Mailboxes are made where they are missing.
    """
    directory = _is_directory(path)
    if format == "maildir" or (format == "auto" and directory):
        if not directory:
            raise CommandFailed(f"{path} is not a directory", EX_NOINPUT)
        return await import_maildir(store, account, path, mailbox)
    if directory:
        raise CommandFailed(f"{path} is a directory", EX_NOINPUT)
    return await import_mbox(store, account, path, mailbox or "INBOX")


def _is_directory(path: Path) -> bool:
    """CommandFailed for a symbolic link: what it leads to may be another's choice than the caller's."""
    if path.is_symlink():
        raise CommandFailed(f"{path} is a symbolic link", EX_NOINPUT)
    return path.is_dir()
