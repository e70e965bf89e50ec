"""SMTP and LMTP: the server's session and protocol, the client's rules and connection."""
