"""The message trace: what happened to each recipient, kept beside the store for some days."""
