"""The keys of those who read mail: IMAP, POP3, and what mailboxes are to them. config/schema.py says what a key is."""

from typing import Annotated, Final

import msgspec

from fastmta.config.kinds import Key

QUOTA_RULES: Final = ("quota_rule", "quota_rule2", "quota_rule3", "quota_rule4", "quota_rule5")
_STEPS: Final = tuple(f"{percent}%" for percent in range(5, 101, 5))


class ReadingKeys(msgspec.Struct, frozen=True, kw_only=True):
    """At the top of the file."""

    imap_idle_notify_interval: Annotated[
        float, Key("time", default="2m", about="a word to each client in IDLE, so that its connection stays; 0: none")
    ] = 120.0
    mail_max_userip_connections: Annotated[int, Key("int", about="of IMAP, and of POP3; 0: no limit")] = 10
    login_max_connections: Annotated[
        int, Key("int", about="IMAP and POP3 connections that have not logged in, in all; 0: no limit")
    ] = 1000
    login_max_ip_connections: Annotated[int, Key("int", about="such connections of one address")] = 50
    acl_anyone: Annotated[
        str, Key("choice", choices=("", "allow"), about="whether users may share with `anyone` and `authenticated`")
    ] = ""
    imap_public_account: Annotated[
        str,
        Key("text", about="whose mailboxes others have under Shared/; empty: nobody's"),
    ] = ""
    trash_autoexpunge: Annotated[
        float, Key("time", unit="d", default="0", about="after which mail leaves mailboxes of use \\Trash; 0: never")
    ] = 0.0
    junk_autoexpunge: Annotated[float, Key("time", unit="d", default="0", about="the same of \\Junk")] = 0.0
    inbox_autoexpunge: Annotated[
        float, Key("time", unit="d", default="0", about="the same of INBOX; POP3 tells it as EXPIRE")
    ] = 0.0
    mail_undelete_time: Annotated[
        float,
        Key(
            "time", unit="d", default="0", about="for which `mailbox undelete` brings expunged mail back; 0: not at all"
        ),
    ] = 0.0
    mail_undelete_size: Annotated[
        int, Key("size", default="1G", about="of an account's mail that can be undeleted; over it the oldest goes")
    ] = 1 << 30
    pop3_delete_type: Annotated[
        str,
        Key(
            "choice",
            choices=("default", "expunge", "flag"),
            about="what DELE does; default: flag where pop3_deleted_flag is set, else expunge",
        ),
    ] = "default"
    pop3_deleted_flag: Annotated[
        str, Key("text", about="keyword of what DELE deletes: POP3 hides it, IMAP shows it; empty: none")
    ] = ""
    pop3_login_delay: Annotated[
        float, Key("time", default="0", about="from a POP3 login of an account to its next (LOGIN-DELAY); 0: none")
    ] = 0.0
    autocreated_mailbox_names: Annotated[
        tuple[str, ...],
        Key("list", about="of accounts that are made from now on: Sent=Gesendet, Trash=Papierkorb"),
    ] = ()
    quota_rule: Annotated[
        str,
        Key("text", about='what accounts may hold that have no quota of their own: "*:storage=1G:messages=1000"'),
    ] = ""
    quota_rule2: Annotated[
        str, Key("text", about='what a mailbox of this name may take beyond it: "Trash:storage=+100M", "Spam:ignore"')
    ] = ""
    quota_rule3: Annotated[str, Key("text", about="another such rule")] = ""
    quota_rule4: Annotated[str, Key("text", about="another such rule")] = ""
    quota_rule5: Annotated[str, Key("text", about="another such rule")] = ""
    quota_mail_warnings: Annotated[
        tuple[str, ...],
        Key("options", choices=_STEPS, default="80%, 95%", about="of a quota: a mail when one is passed; empty: none"),
    ] = ("80%", "95%")
