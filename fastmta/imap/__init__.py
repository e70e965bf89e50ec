"""IMAP4rev1: the session, its protocol, and one module a command."""
