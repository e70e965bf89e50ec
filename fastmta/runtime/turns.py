"""The one budget of work that the sessions of a worker draw from; its rules and their code are `_turns.pyx`."""

from fastmta._turns import Course, Share, Turns

__all__ = ["Course", "Share", "Turns"]
