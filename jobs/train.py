"""Trains challengers on a recent window and compares them with the champions on labelled nights not trained on."""

from __future__ import annotations

from typing import Any

from scoring import training
from scoring.job import JobArguments, run_job


def work(arguments: JobArguments) -> dict[str, Any]:
    """Train and return the training run with the metrics of both sides."""
    window, holdout = training.windows(arguments.deployment, arguments.partition)
    run = training.train(arguments.deployment, window, holdout, as_of=arguments.partition)
    return {
        "run_id": run.run_id,
        "training_run_id": run.run_id,
        "model_versions": run.model_versions,
        "metrics": dict(run.metrics),
    }


if __name__ == "__main__":
    run_job(work)
