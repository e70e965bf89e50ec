"""Which login a relay host gets: Postfix's smtp_sasl_password_maps, and what a mechanism must have to be used.

Looked up are, as Postfix does, the sender (where smtp_sender_dependent_authentication is on: user+extension@domain,
user@domain, @domain), the host that was connected to, the next hop as it is written ("[host]:port"), and beyond
Postfix the name in it. An entry is "user:password"; where tokens are configured, "user:oauth:REFRESH-TOKEN" stands for
an access token. No entry: no login, as between strangers.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fastmta.auth.sasl_client import Login, Place, Secret, choose
from fastmta.auth.tokens import Tokens
from fastmta.directory.addresses import parse, split_extension
from fastmta.directory.maps import TableSet

if TYPE_CHECKING:
    from fastmta.config.delivery_keys import DeliveryConfig

_OAUTH: Final = "oauth:"
_NONCE_BYTES: Final = 18


class RelayCredentials:
    """Who logs in at one server, with what may be used there. A Credentials of auth/sasl_client.py."""

    __slots__ = ("_place", "_secret", "_settings", "refresh_token")

    def __init__(self, settings: "DeliveryConfig", secret: Secret, place: Place, refresh_token: str = "") -> None:
        self._settings = settings
        self._secret = secret
        self._place = place
        self.refresh_token = refresh_token

    @property
    def user(self) -> str:
        return self._secret.user

    def choose(self, offered: Sequence[str], *, tls: bool) -> Login:
        settings = self._settings
        return choose(
            offered,
            self._secret,
            self._place,
            options=settings.smtp_sasl_tls_security_options if tls else settings.smtp_sasl_security_options,
            wanted=settings.smtp_sasl_mechanism_filter,
            nonce=lambda: os.urandom(_NONCE_BYTES),
        )


class RelayLogins:
    """The logins of one configuration. `by_sender`: whether a message's sender decides about its connection."""

    __slots__ = ("_delimiters", "_settings", "_tables", "_tokens", "by_sender", "is_enabled")

    def __init__(self, settings: "DeliveryConfig", tokens: Tokens, recipient_delimiter: str = "") -> None:
        self._settings = settings
        self._tokens = tokens
        self._delimiters = recipient_delimiter
        self.is_enabled = settings.smtp_sasl_auth_enable
        self.by_sender = self.is_enabled and settings.smtp_sender_dependent_authentication
        self._tables = TableSet(settings.smtp_sasl_password_maps if self.is_enabled else ())

    def refresh(self) -> None:
        """Reads maps again that have changed; for once a second."""
        self._tables.refresh()

    def problems(self) -> list[str]:
        return self._tables.problems()

    def of_sender(self, reverse_path: bytes) -> str:
        """The entry of a sender, "" where he has none of his own. TemporaryFailure: the map cannot be read."""
        if not self.by_sender or not reverse_path:
            return ""
        try:
            sender = parse(reverse_path.decode("utf-8", "surrogateescape"))
        except ValueError:
            return ""
        user, extension = split_extension(sender.local_part, self._delimiters)
        keys = [f"{sender.local_part}@{sender.domain}", f"@{sender.domain}"]
        if extension:
            keys.insert(1, f"{user}@{sender.domain}")
        return self._first(keys)

    def of_host(self, host: str, next_hop: str) -> str:
        """The entry of a server: `host` as it was connected to, `next_hop` as written. Errors as in of_sender."""
        if not self.is_enabled:
            return ""
        return self._first(list(dict.fromkeys((host, next_hop, bare_name(next_hop)))))

    async def credentials(self, entry: str, host: str, port: int) -> RelayCredentials | None:
        """Who logs in, by an entry; None: nobody. TemporaryFailure: a token cannot be had now."""
        user, _, password = entry.partition(":")
        if not user:
            return None
        place = Place(host, port)
        if password.startswith(_OAUTH) and self._tokens.is_configured:
            refresh_token = password.removeprefix(_OAUTH)
            token = await self._tokens.token(user, refresh_token, host)
            return RelayCredentials(self._settings, Secret(user, token, token=True), place, refresh_token)
        return RelayCredentials(self._settings, Secret(user, password), place)

    def refused(self, credentials: RelayCredentials) -> None:
        """A server did not take them: a token is fetched anew next time."""
        self._tokens.forget(credentials.user, credentials.refresh_token)

    def _first(self, keys: Sequence[str]) -> str:
        for key in keys:
            value = self._tables.get(key)
            if value is not None:
                return value
        return ""


def bare_name(next_hop: str) -> str:
    """The name or address in "[host]:port", "[host]", "domain:port" or "domain"."""
    if next_hop.startswith("["):
        return next_hop[1:].partition("]")[0]
    return next_hop.partition(":")[0]
