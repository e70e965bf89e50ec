"""Mail in and out of accounts as mbox files and Maildirs: the acts `mailbox.export` and `import`.

mbox is mboxrd ("From " lines quoted reversibly) with LF line ends and the Status fields that mail readers share;
Maildir is Maildir++ with Dovecot's `dovecot-keywords` file. Links are not followed and only regular files are read,
since a Maildir may be its user's and the command root's. Bare newlines become CRLF; beside that, bytes are kept.

Both are done in the caller's process, whose rights the files ask for.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from fastmta.model.errors import ActFailed
from fastmta.operations.acts import act
from fastmta.operations.desk import Desk
from fastmta.operations.users import required
from fastmta.operations.values import account_address

if TYPE_CHECKING:
    from fastmta.store import MailStore
    from fastmta.store.accounts import Account

Format = Annotated[
    str,
    msgspec.Meta(description="auto: a directory is a Maildir.", extra={"choices": ["auto", "mbox", "maildir"]}),
]


class ExportMail(msgspec.Struct, forbid_unknown_fields=True):
    user: str
    path: str
    format: Format = "auto"
    mailbox: Annotated[str | None, msgspec.Meta(description="This mailbox only.")] = None


class ImportMail(msgspec.Struct, forbid_unknown_fields=True):
    user: str
    path: str
    format: Format = "auto"
    mailbox: Annotated[
        str | None, msgspec.Meta(description="Into this mailbox, which is made if need be; default: INBOX.")
    ] = None


class Carried(msgspec.Struct):
    """So many messages were written or read."""

    messages: int
    path: str


@act("mailbox.export", changes=True, caller=True)
async def export(desk: Desk, asked: ExportMail) -> Carried:
    """Write an account's mail to an mbox file or a Maildir."""
    account = required(desk, account_address(asked.user, desk.config))
    path = Path(asked.path)
    count = await export_mailboxes(desk.store, account, path, format=asked.format, mailbox=asked.mailbox)
    desk.note(address=account.address, path=asked.path, messages=count)
    return Carried(count, asked.path)


@act("mailbox.import", changes=True, caller=True)
async def import_(desk: Desk, asked: ImportMail) -> Carried:
    """Read an mbox file or a Maildir into an account."""
    path = Path(asked.path)
    if not path.exists():  # noqa: ASYNC240 - in the caller's own process
        raise ActFailed(f"{path}: No such file or directory", "no_input")
    account = required(desk, account_address(asked.user, desk.config))
    count = await import_mailboxes(desk.store, account, path, format=asked.format, mailbox=asked.mailbox)
    desk.note(address=account.address, path=asked.path, messages=count)
    return Carried(count, asked.path)


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
            raise ActFailed(f"no such mailbox: {mailbox}", "no_input")
        boxes = [one]
    from fastmta.operations.exporting import export_maildir, export_mbox
    from fastmta.store.pace import Pace

    pace = Pace(store.path)
    directory = _is_directory(path)
    if format == "maildir" or (format == "auto" and directory):
        return export_maildir(store.mailboxes, boxes, path, pace, flat=mailbox is not None)
    if directory:
        raise ActFailed(f"{path} is a directory", "cannot_create")
    return export_mbox(store.mailboxes, boxes, path, pace)


async def import_mailboxes(
    store: "MailStore", account: "Account", path: Path, *, format: str, mailbox: str | None
) -> int:
    """Reads an mbox file or a Maildir with its folders into `mailbox` (None: INBOX, folders to their own names); how
    many messages. Mailboxes are made where they are missing.
    """
    from fastmta.operations.importing import import_maildir, import_mbox

    directory = _is_directory(path)
    if format == "maildir" or (format == "auto" and directory):
        if not directory:
            raise ActFailed(f"{path} is not a directory", "no_input")
        return await import_maildir(store, account, path, mailbox)
    if directory:
        raise ActFailed(f"{path} is a directory", "no_input")
    return await import_mbox(store, account, path, mailbox or "INBOX")


def _is_directory(path: Path) -> bool:
    """ActFailed for a symbolic link: what it leads to may be another's choice than the caller's."""
    if path.is_symlink():
        raise ActFailed(f"{path} is a symbolic link", "no_input")
    return path.is_dir()
