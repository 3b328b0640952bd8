"""The recipes of a soup by name; a module of its own, since the command line needs no more."""

from __future__ import annotations

from enum import StrEnum


class Method(StrEnum):
    """How a soup is mixed."""

    UNIFORM = "uniform"
    """All parents alike."""
    GREEDY = "greedy"
    """From the best parent on, each next best is added when the held-out metric does not fall."""
    LEARNED = "learned"
    """Weights with the smallest held-out loss."""
