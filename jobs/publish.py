"""Publishes a checked partition in one transaction."""

from __future__ import annotations

from typing import Any

from scoring import nightly
from scoring.job import JobArguments, run_job


def work(arguments: JobArguments) -> dict[str, Any]:
    """Publish and return the table version in which readers see the partition."""
    run = nightly.publish(arguments.deployment, arguments.partition, dag_run_id=arguments.dag_run_id)
    return {"run_id": run.run_id, "published_version": int(run.tags["published_version"])}


if __name__ == "__main__":
    run_job(work)
