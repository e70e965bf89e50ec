"""FastMTA: a whole mail server in one package. The rooms and their layers are described in docs/architecture.md."""

__version__ = "0.1.0"
