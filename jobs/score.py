"""Started by `spark-submit`: scores one partition into staged parts that no reader sees yet."""

from __future__ import annotations

from typing import Any

from scoring import nightly
from scoring.job import JobArguments, run_job


def work(arguments: JobArguments) -> dict[str, Any]:
    """Score and return the run's id, counts, speed and warnings."""
    run = nightly.score(
        arguments.deployment, arguments.partition, dag_run_id=arguments.dag_run_id, trigger=arguments.trigger
    )
    return {
        "run_id": run.run_id,
        "rows": run.metrics["rows"],
        "quarantined": run.metrics["quarantined"],
        "rows_per_s": run.metrics.get("rows_per_s"),
        "warnings": list(run.warnings),
    }


if __name__ == "__main__":
    run_job(work)
