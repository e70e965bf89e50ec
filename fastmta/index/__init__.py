"""The full-text index: which messages of a mailbox may hold a word (docs/adr/0200)."""
