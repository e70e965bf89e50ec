"""The SASL mechanisms that clients may log in with: their names, which the configuration and the protocols share."""

from typing import Final

# Whoever sees the messages of these can log in himself, so they are offered only where a plain login is allowed.
PLAIN_TEXT: Final = ("PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2")
TOKENS: Final = ("OAUTHBEARER", "XOAUTH2")
SCRAM: Final = ("SCRAM-SHA-1", "SCRAM-SHA-256")
EXTERNAL: Final = "EXTERNAL"  # by the certificate of the TLS handshake
MECHANISMS: Final = (*PLAIN_TEXT, *SCRAM, EXTERNAL)
