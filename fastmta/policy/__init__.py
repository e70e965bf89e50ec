"""What may refuse a client, a sender, a recipient or a message."""
