"""The queue's rules: ownership of next hops, scheduling, retry, delivery status notifications."""
