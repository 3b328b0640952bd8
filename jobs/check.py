"""Runs the expectation suites on staged parts; exit code 3 stops the partition's publication."""

from __future__ import annotations

from typing import Any

from scoring import nightly
from scoring.checks.report import worst
from scoring.job import JobArguments, run_job


def work(arguments: JobArguments) -> dict[str, Any]:
    """Check and return the verdict."""
    checked = nightly.check(arguments.deployment, arguments.partition, dag_run_id=arguments.dag_run_id)
    return {"run_id": checked.run_id, "checks": worst(checked.reports)}


if __name__ == "__main__":
    run_job(work)
