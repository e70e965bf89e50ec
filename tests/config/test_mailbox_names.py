"""autocreated_mailbox_names: what the first mailboxes of an account are called."""

import pytest

from fastmta.config.consistency import inconsistencies
from fastmta.config.schema import Config
from fastmta.config.values import parse_mailbox_names


def test_names_in_another_language() -> None:
    words = ("Sent=Gesendet", "Trash=Papierkorb", "Drafts=Entw\u00fcrfe")
    assert parse_mailbox_names(words) == {"Sent": "Gesendet", "Trash": "Papierkorb", "Drafts": "Entw\u00fcrfe"}
    assert "autocreated_mailbox_names" not in dict(inconsistencies(Config(autocreated_mailbox_names=words)))
    assert parse_mailbox_names(("Sent=Trash", "Trash=Sent")) == {"Sent": "Trash", "Trash": "Sent"}


@pytest.mark.parametrize(
    "words",
    [
        ("INBOX=x",),
        ("Sent",),
        ("Sent=",),
        ("Sent=a/b",),
        ("Sent=a*",),
        ("Sent=..",),
        ("Sent=a\n",),
        ("Sent=" + "x" * 201,),
        ("Sent=inbox",),
        ("Sent=Junk",),
        ("Sent=a", "Junk=A"),
        ("Sent=a", "Sent=b"),
        ("Other=a",),
    ],
)
def test_what_cannot_be_made_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="name"):
        parse_mailbox_names(words)
    assert "autocreated_mailbox_names" in dict(inconsistencies(Config(autocreated_mailbox_names=words)))
