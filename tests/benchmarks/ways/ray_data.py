"""Ray Data: `map_batches` over Arrow blocks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataContext

from tests.benchmarks import native
from tests.benchmarks.cases import KEY, Case
from tests.benchmarks.places import Places
from tests.benchmarks.ways import Score


def predict(batch: pa.Table, *, case: Case, places: Places) -> pa.Table:
    """Score one batch; the model is loaded once per worker process."""
    graph = native.load(case, places, 1)
    scores = graph.predict(graph.of_arrow(batch))
    return pa.table({KEY: batch.column(KEY), "score": scores})


@contextmanager
def opened(case: Case, places: Places, cores: int) -> Iterator[Score]:
    """Start Ray on this machine.

    A function in tasks over whole blocks, not a class in actors and not batches of a size: only then does Ray fuse it
    with reading and writing, so that rows stay in one process, which takes less than half the CPU.
    """
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False

    def score(value: str, target: Path) -> dict[str, float]:
        columns: list[Any] = [KEY, *case.dataset.features]
        rows = ray.data.read_parquet(str(places.partition(case.dataset, value)), columns=columns, partitioning=None)
        scored = rows.map_batches(
            predict, fn_kwargs={"case": case, "places": places}, batch_format="pyarrow", batch_size=None
        )
        scored.write_parquet(str(target), compression="zstd")
        return {}

    try:
        yield score
    finally:
        ray.shutdown()
