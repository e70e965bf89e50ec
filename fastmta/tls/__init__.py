"""TLS contexts, certificates, and the upgrade of a connection."""
