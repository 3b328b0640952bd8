"""Scores the splits of a plan with one pandas UDF: `mapInPandas` over splits, not rows."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import pandas as pd
from pyspark import Broadcast
from pyspark.sql import SparkSession

from scoring.errors import ScoringError
from scoring.models.base import Files
from scoring.plan import Plan
from scoring.scorer import SplitResult, score_split
from scoring.spark.device import task_device
from scoring.spark.session import resource_profile

RESULT_SCHEMA: Final = "split long, result binary"


def score_on_spark(session: SparkSession, plan: Plan, *, run_id: str, files: Mapping[str, Files]) -> list[SplitResult]:
    """Score all splits of a plan. Runs on the driver.

    The plan and the model files go out as one broadcast, so an executor receives them once however many tasks it runs.
    Rows never cross between the JVM and Python: a task is given a split's number and returns a small record.

    Returns:
        One result per split, in order.
    """
    shared = session.sparkContext.broadcast((plan, run_id, dict(files)))
    tasks = session.range(0, len(plan.splits), 1, len(plan.splits))
    profile = resource_profile(session, plan.deployment.resources)
    frame = tasks.mapInPandas(_score_splits(shared), RESULT_SCHEMA, profile=profile)
    try:
        results = [pickle.loads(row.result) for row in frame.collect()]  # noqa: S301 - written by our own tasks
    finally:
        shared.destroy()
    return sorted(results, key=lambda result: result.split)


def _score_splits(
    shared: Broadcast[tuple[Plan, str, dict[str, Files]]],
) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    def score(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Runs on a Spark executor, once per task."""
        plan, run_id, files = shared.value
        for frame in frames:
            for number in frame["id"]:
                split = plan.splits[number]
                try:
                    device = task_device(plan.deployment.resources)
                except ScoringError as error:
                    result = SplitResult.failed(split, error)
                else:
                    result = score_split(plan, split, run_id=run_id, files=files, device=device)
                yield pd.DataFrame({"split": [number], "result": [pickle.dumps(result)]})

    return score
