"""Domain objects over the LMDB environment: blobs, queue, mailboxes, accounts, aliases."""
