"""`DataFrame.mapInArrow` over rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from tests.benchmarks import native
from tests.benchmarks.cases import KEY, Case
from tests.benchmarks.places import Places
from tests.benchmarks.ways import Score
from tests.benchmarks.ways.spark_rows import read, spark_session, write

Batches = Iterator[pa.RecordBatch]


def predicting(case: Case, places: Places) -> Callable[[Batches], Batches]:
    """Return the function, which loads the model on a worker, once."""

    def predict(batches: Batches) -> Batches:
        graph = native.load(case, places, 1)
        for batch in batches:
            scores = pa.array(graph.predict(graph.of_arrow(batch)))
            yield pa.record_batch([batch.column(KEY), scores], names=[KEY, "score"])

    return predict


@contextmanager
def opened(case: Case, places: Places, cores: int) -> Iterator[Score]:
    """Start Spark."""
    with spark_session(case, cores) as session:

        def score(value: str, target: Path) -> dict[str, float]:
            rows = read(session, case, places, value).select(KEY, *case.dataset.features)
            return write(rows.mapInArrow(predicting(case, places), f"{KEY} long, score double"), target)

        yield score
