"""One module per way to score. Each has `opened`, which starts what the way needs and gives a function that scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol

from tests.benchmarks.cases import Case, Way
from tests.benchmarks.places import Places

Score = Callable[[str, Path], Mapping[str, float]]
"""Scores one partition into a folder, from listing its files to the last byte written; returns details, if any."""
JOBS: Final = {Way.LIMIT: "empty_job", Way.SCORING: "score_job"}
"""Ways of cases that measure whole commands."""


class Opened(Protocol):
    """The function `opened` of a way."""

    def __call__(self, case: Case, places: Places, cores: int) -> AbstractContextManager[Score]:
        """Start the way's session for the time inside.

        Args:
            case: what is scored.
            places: where data and models are.
            cores: how many cores may be used.
        """
        ...


def opened(case: Case, way: Way) -> Opened:
    """Return what opens a way; imports its libraries."""
    module = JOBS[way] if case.is_job else way
    found: Opened = import_module(f"{__name__}.{module}").opened
    return found
