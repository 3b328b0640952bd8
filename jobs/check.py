"""Runs the expectation suites on staged parts; exit code 3 stops the partition's publication."""

from __future__ import annotations

from typing import Any

from scoring import nightly
from scoring.checks.report import worst
from scoring.job import JobArguments, run_job
from scoring.runs import RunStore


def work(arguments: JobArguments) -> dict[str, Any]:
    """Check and return the verdict."""
    run = nightly.staged_run(RunStore(), arguments.deployment, arguments.partition, arguments.dag_run_id)
    reports = nightly.check(arguments.deployment, arguments.partition, dag_run_id=arguments.dag_run_id)
    return {"run_id": run.run_id, "checks": worst(reports)}


if __name__ == "__main__":
    run_job(work)
