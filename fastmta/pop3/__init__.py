"""POP3: the session's rules, the maildrop, and the sockets."""
