import asyncio

import pytest

from fastmta._store import TABLE_CREDENTIAL
from fastmta.model.credentials import ScramKeys
from fastmta.model.errors import Refused
from fastmta.model.limits import APP_PASSWORDS_OF_ACCOUNT
from fastmta.store import MailStore

KEYS = {"SCRAM-SHA-256": ScramKeys(b"salt", 4096, b"stored", b"server")}


run = asyncio.run


@pytest.fixture
def mail(tmp_path):
    store = MailStore.open(tmp_path, sync=False, map_size_bytes=1 << 28)
    yield store
    store.close()


@pytest.fixture
def account(mail):
    return run(mail.accounts.add("user@example.test", "hash"))


def test_scram_keys_belong_to_one_password(mail, account):
    assert mail.credentials.scram_keys(account.id, "hash") == {}
    run(mail.credentials.keep_scram_keys(account.id, "hash", KEYS))
    assert mail.credentials.scram_keys(account.id, "hash") == KEYS
    assert mail.credentials.scram_keys(account.id, "another hash") == {}
    assert mail.credentials.scram_keys(account.id + 1, "hash") == {}


def test_the_secret_comes_with_the_first_keys_and_stays(mail, account):
    assert mail.credentials.login_secret() == b""
    run(mail.credentials.keep_scram_keys(account.id, "hash", KEYS))
    secret = mail.credentials.login_secret()
    assert len(secret) == 32
    run(mail.credentials.keep_scram_keys(account.id, "another hash", KEYS))
    assert mail.credentials.login_secret() == secret


def test_an_app_password_is_found_however_it_was_typed(mail, account):
    password = run(mail.credentials.add_app_password(account.id, "phone", ("imap", "smtp")))
    assert len(password) == 29
    for typed in (password, password.replace("-", ""), password.replace("-", " ").upper()):
        found = mail.credentials.app_password(account.id, typed)
        assert (found.name, found.protocols) == ("phone", ("imap", "smtp"))
    assert mail.credentials.app_password(account.id, password[:-1]) is None
    assert mail.credentials.app_password(account.id + 1, password) is None
    assert password.encode() not in b"".join(value for _, value in mail.raw.scan(TABLE_CREDENTIAL, b"", b"", 10))


def test_app_passwords_have_names_and_can_be_revoked(mail, account):
    first = run(mail.credentials.add_app_password(account.id, "phone", ()))
    run(mail.credentials.add_app_password(account.id, "desk", ()))
    with pytest.raises(Refused) as refused:
        run(mail.credentials.add_app_password(account.id, "phone", ()))
    assert refused.value.code == "exists"
    assert [entry.name for entry in mail.credentials.app_passwords(account.id)] == ["desk", "phone"]
    run(mail.credentials.delete_app_password(account.id, "phone"))
    assert mail.credentials.app_password(account.id, first) is None
    with pytest.raises(Refused) as refused:
        run(mail.credentials.delete_app_password(account.id, "phone"))
    assert refused.value.code == "missing"


def test_an_account_has_a_bounded_number_of_them(mail, account):
    for number in range(APP_PASSWORDS_OF_ACCOUNT):
        run(mail.credentials.add_app_password(account.id, f"program {number}", ()))
    with pytest.raises(Refused) as refused:
        run(mail.credentials.add_app_password(account.id, "one more", ()))
    assert refused.value.code == "full"


def test_credentials_go_with_their_account(mail, account):
    run(mail.credentials.keep_scram_keys(account.id, "hash", KEYS))
    run(mail.credentials.add_app_password(account.id, "phone", ()))
    run(mail.accounts.delete("user@example.test"))
    assert mail.raw.scan(TABLE_CREDENTIAL, b"", b"", 10) == []
