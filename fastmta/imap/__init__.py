"""IMAP4rev1: the session's rules, its sockets, and one module a command."""
