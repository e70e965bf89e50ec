"""SASL mechanisms, password hashes, and who may log in."""
