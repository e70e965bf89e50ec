"""Processes, listeners and signals; builds everything and wires it."""
