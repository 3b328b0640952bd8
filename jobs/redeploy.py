"""Promotes the challengers of a training if they win, and records what they replaced."""

from __future__ import annotations

from typing import Any

from scoring import promotion
from scoring.job import JobArguments, run_job


def work(arguments: JobArguments) -> dict[str, Any]:
    """Redeploy and return what was replaced."""
    done = promotion.redeploy(arguments.deployment, arguments.training_run_id)
    return {"promoted": done.is_promoted, **done.to_json()}


if __name__ == "__main__":
    run_job(work)
