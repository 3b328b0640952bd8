"""Computes drift and performance of a published partition, and decides what follows."""

from __future__ import annotations

from typing import Any

from scoring.job import JobArguments, run_job
from scoring.watch import watch


def work(arguments: JobArguments) -> dict[str, Any]:
    """Watch and return the decision with its reasons."""
    seen = watch(arguments.deployment, arguments.partition, dag_run_id=arguments.dag_run_id)
    if seen is None:
        return {"decision": "none", "reasons": ["the deployment has no 'drift'"]}
    return {
        "run_id": seen.run_id,
        "decision": seen.decision.kind,
        "reasons": seen.decision.reasons,
        "share_of_drifted_columns": seen.drift.share_of_drifted_columns,
    }


if __name__ == "__main__":
    run_job(work)
