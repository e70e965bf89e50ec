"""What `check` says of keys about logins that do not fit together."""

import pytest

from fastmta.config.consistency import inconsistencies
from fastmta.config.schema import Config
from fastmta.config.tables import AuthConfig, TlsConfig


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"mechanisms": ("PLAIN", "XOAUTH2")}, "auth.mechanisms"),
        ({"oauth2_jwks_url": "http://issuer.test/keys"}, "auth.oauth2_jwks_url"),
        (
            {"oauth2_jwks_file": "/k", "oauth2_introspection_url": "https://issuer.test/i"},
            "auth.oauth2_introspection_url",
        ),
        ({"auth_master_user_separator": "*"}, "auth.auth_master_user_separator"),
        ({"auth_master_user_separator": "@", "auth_master_users": ("a@b.test",)}, "auth.auth_master_user_separator"),
    ],
)
def test_what_does_not_fit_is_named(settings, key):
    assert key in dict(inconsistencies(Config(auth=AuthConfig(**settings))))


def test_what_fits_is_not():
    auth = AuthConfig(
        mechanisms=("PLAIN", "XOAUTH2", "SCRAM-SHA-256"),
        oauth2_jwks_file="/k",
        auth_master_users=("a@b.test",),
        auth_master_user_separator="*",
    )
    assert not [key for key, _ in inconsistencies(Config(auth=auth)) if key.startswith("auth.")]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"pop3_delete_type": "flag"}, "pop3_delete_type"),
        ({"pop3_deleted_flag": "\\Deleted"}, "pop3_deleted_flag"),
        ({"pop3_deleted_flag": "two words"}, "pop3_deleted_flag"),
        ({"pop3_deleted_flag": "$POP3Deleted", "pop3_delete_type": "flag"}, ""),
        ({}, ""),
    ],
)
def test_the_keyword_of_what_pop3_deletes(settings, key):
    assert [name for name, _ in inconsistencies(Config(**settings)) if name.startswith("pop3_")] == [key] * bool(key)


@pytest.mark.parametrize(
    ("tls", "keys"),
    [
        ({}, {"auth.mechanisms"}),
        ({"ssl_verify_client_cert": True, "auth_ssl_username_from_cert": True}, {"tls.ssl_verify_client_cert"}),
        ({"ssl_verify_client_cert": True, "ssl_ca": "/a"}, {"auth.mechanisms"}),
        ({"ssl_verify_client_cert": True, "ssl_ca": "/a", "auth_ssl_username_from_cert": True}, set()),
    ],
)
def test_external_needs_certificates_that_name_somebody(tls, keys):
    config = Config(auth=AuthConfig(mechanisms=("EXTERNAL",)), tls=TlsConfig(**tls))
    assert {key for key, _ in inconsistencies(config) if key.startswith(("auth.", "tls."))} == keys
