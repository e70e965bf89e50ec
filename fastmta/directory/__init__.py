"""Aliases, virtual maps and the directory of recipients."""
