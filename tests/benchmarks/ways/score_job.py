"""Ours as a job: `spark-submit jobs/score.py`, as Airflow's operator calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scoring import settings
from scoring.java import driver_options
from tests.benchmarks.cases import Case, Way
from tests.benchmarks.deployments import write
from tests.benchmarks.places import Places
from tests.benchmarks.submit import submit
from tests.benchmarks.ways import Score


@contextmanager
def opened(case: Case, places: Places, cores: int) -> Iterator[Score]:
    """Need no session: the job has its own."""
    deployment = write(case, places, output=places.output(case, Way.SCORING))

    def score(value: str, _: Path) -> dict[str, float]:
        script, options = settings.jobs_folder() / "score.py", driver_options(reads_rows=False)
        submit(script, deployment.name, "--partition", value, cores=cores, java_options=options)
        return {}

    yield score
