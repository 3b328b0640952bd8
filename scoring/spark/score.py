"""Scores a plan with one Python node: over splits, whose files the workers read, or over the rows of a query."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import pandas as pd
import pyarrow as pa
from pyspark import Broadcast, TaskContext
from pyspark.sql import DataFrame, SparkSession

from scoring.data.query import Query
from scoring.data.reading import RawRows
from scoring.data.splits import Split
from scoring.errors import ScoringError
from scoring.models.base import Files
from scoring.plan import Plan
from scoring.results import SplitResult
from scoring.scorer import score_rows, score_split
from scoring.spark.device import task_device
from scoring.spark.query import data_errors, open_query
from scoring.spark.session import resource_profile

RESULT_SCHEMA: Final = "result binary"

Shared: TypeAlias = "Broadcast[tuple[Plan, tuple[Split, ...], str, dict[str, Files]]]"
"""What every task is given: plan, splits, the run's id and the model files by digest."""


def score_on_spark(
    session: SparkSession,
    plan: Plan,
    *,
    run_id: str,
    files: Mapping[str, Files],
    splits: Sequence[Split] | None = None,
) -> list[SplitResult]:
    """Score splits of a plan, all unless some are given. Runs on the driver.

    The plan and the model files go out as one broadcast, so an executor receives them once however many tasks it runs.
    Rows of files never cross between the JVM and Python: a task is given a split's number and returns a small record.
    Those of a query cross once, on their way to the worker.

    Returns:
        One result per split, in order. The splits of a query are Spark's own partitions of it.

    Raises:
        DataError: a value does not fit the query.
    """
    if isinstance(plan.partition, Query):
        return _score_query(session, plan, plan.partition, run_id=run_id, files=files)
    wanted = plan.splits if splits is None else tuple(splits)
    if not wanted:
        return []
    shared = session.sparkContext.broadcast((plan, wanted, run_id, dict(files)))
    tasks = session.range(0, len(wanted), 1, len(wanted))
    profile = resource_profile(session, plan.deployment.resources)
    return _collected(tasks.mapInPandas(_score_splits(shared), RESULT_SCHEMA, profile=profile), shared)


def _score_query(
    session: SparkSession, plan: Plan, query: Query, *, run_id: str, files: Mapping[str, Files]
) -> list[SplitResult]:
    shared = session.sparkContext.broadcast((plan, (), run_id, dict(files)))
    with data_errors(query):
        return _collected(query_frame(session, plan, query, shared), shared)


def query_frame(session: SparkSession, plan: Plan, query: Query, shared: Shared) -> DataFrame:
    """Return the frame whose rows are the results of a query's Spark partitions: rows go into one Python node, which
    runs the whole graph and writes the part files, and only results come out.
    """
    rows = open_query(session, plan.deployment, query, plan.contract.schema.names)
    profile = resource_profile(session, plan.deployment.resources)
    return rows.mapInArrow(_score_rows(shared), RESULT_SCHEMA, profile=profile)


def _collected(frame: DataFrame, shared: Shared) -> list[SplitResult]:
    try:
        results = [SplitResult.from_bytes(bytes(row.result)) for row in frame.collect()]
    finally:
        shared.destroy()
    return sorted(results, key=lambda result: result.split)


def _freeze_loaded(result: SplitResult) -> None:
    """Keep what this worker has loaded out of the garbage collection, for which Spark stops it after every task: with
    a framework imported, that takes 90 ms.
    """
    if result.model_loads:
        gc.freeze()


def _score_rows(shared: Shared) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Runs on a Spark executor, once per Spark partition, also for one without rows."""
        plan, _, run_id, files = shared.value
        context = TaskContext.get()
        split = context.partitionId() if context is not None else 0

        def rows() -> Iterator[RawRows]:
            first_row = 0
            for batch in batches:
                table = pa.Table.from_batches([batch])
                yield RawRows(table, f"Spark partition {split}", first_row)
                first_row += table.num_rows

        try:
            device = task_device(plan.deployment.resources)
        except ScoringError as error:
            result = SplitResult.failed(split, error)
        else:
            result = score_rows(plan, rows(), split=split, run_id=run_id, files=files, device=device)
        _freeze_loaded(result)
        yield pa.record_batch({"result": pa.array([result.to_bytes()], pa.binary())})

    return score


def _score_splits(shared: Shared) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    def score(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Runs on a Spark executor, once per task."""
        plan, splits, run_id, files = shared.value
        for frame in frames:
            for number in frame["id"]:
                split = splits[number]
                try:
                    device = task_device(plan.deployment.resources)
                except ScoringError as error:
                    result = SplitResult.failed(split.index, error)
                else:
                    result = score_split(plan, split, run_id=run_id, files=files, device=device)
                _freeze_loaded(result)
                yield pd.DataFrame({"result": [result.to_bytes()]})

    return score
