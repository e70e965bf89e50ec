"""One module for each IMAP command."""
