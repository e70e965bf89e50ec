"""The id of a message, the same in all mailboxes that it is copied or moved to (RFC 8474)."""


def email_id(blob_id: int, prefix_digest: int) -> bytes:
    """Of the body and of what the prefix says, so that two recipients of one body do not share it."""
    return b"M%x-%x" % (blob_id, prefix_digest)
