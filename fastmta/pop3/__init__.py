"""POP3: the session and its protocol."""
