"""The exclusive lock on a maildrop (RFC 1939 §4): one POP3 session an account, over all workers."""

from pathlib import Path
from typing import Final

from fastmta.runtime.account_locks import AccountLocks

FILE_NAME: Final = "pop3.lock"


class MaildropLocks(AccountLocks):
    """The locks that one process holds."""

    __slots__ = ()

    def __init__(self, data_directory: str | Path) -> None:
        super().__init__(Path(data_directory) / FILE_NAME)
