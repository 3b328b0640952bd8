"""The limit of a job: `spark-submit` of a script that starts a session and stops it; Java with its own defaults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scoring.java import LOGGING_OPTION
from tests.benchmarks.cases import Case
from tests.benchmarks.places import Places
from tests.benchmarks.submit import submit
from tests.benchmarks.ways import Score

SCRIPT = Path(__file__).with_name("empty_script.py")


@contextmanager
def opened(case: Case, places: Places, cores: int) -> Iterator[Score]:
    """Need no session: the job has its own."""

    def score(value: str, _: Path) -> dict[str, float]:
        submit(SCRIPT, cores=cores, java_options=LOGGING_OPTION)
        return {}

    yield score
