"""SMTP and LMTP: rules and sockets, of the server and of the client."""
