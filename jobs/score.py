"""Started by `spark-submit`: scores one partition into staged parts that no reader sees yet."""

from __future__ import annotations

from typing import Any

from scoring import nightly
from scoring.job import JobArguments, run_job


def work(arguments: JobArguments) -> dict[str, Any]:
    """Score and return the run's id and counts."""
    run = nightly.score(
        arguments.deployment, arguments.partition, dag_run_id=arguments.dag_run_id, trigger=arguments.trigger
    )
    return {"run_id": run.run_id, "rows": run.metrics["rows"], "quarantined": run.metrics["quarantined"]}


if __name__ == "__main__":
    run_job(work)
