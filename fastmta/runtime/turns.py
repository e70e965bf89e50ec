"""The budget of work that a worker's sessions and deliveries draw from; its rules and their code are `_turns.pyx`."""

from fastmta._turns import Course, Pace, Share, Turns

__all__ = ["Course", "Pace", "Share", "Turns"]
