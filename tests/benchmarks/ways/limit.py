"""The limit: a bare loop in one process. Arrow reads with all cores, the library predicts with all cores, Arrow writes.

One batch is held at a time. Reading, predicting and writing take turns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks import native
from tests.benchmarks.cases import KEY, Case
from tests.benchmarks.places import Places
from tests.benchmarks.ways import Score

BATCH_ROWS = 131_072
"""The fastest of 16,384 to 262,144 with 30 columns; wide tables get fewer rows."""
BATCH_VALUES = 30 * BATCH_ROWS


@contextmanager
def opened(case: Case, places: Places, cores: int) -> Iterator[Score]:
    """Need no session."""
    graph = native.load(case, places, cores)
    columns = case.dataset.features
    batch_rows = min(BATCH_ROWS, BATCH_VALUES // len(columns))

    def score(value: str, target: Path) -> dict[str, float]:
        seconds = {"read_s": 0.0, "predict_s": 0.0, "write_s": 0.0}
        target.mkdir(parents=True)
        files = sorted(places.partition(case.dataset, value).iterdir())
        schema = pa.schema([(KEY, pa.int64()), ("score", pa.float64())])
        with pq.ParquetWriter(target / "part.parquet", schema, compression="zstd") as writer:
            for file in files:
                with pq.ParquetFile(file) as source:
                    batches = source.iter_batches(batch_rows, columns=[KEY, *columns], use_threads=True)
                    start = time.perf_counter()
                    while (batch := next(batches, None)) is not None:
                        read = time.perf_counter()
                        scores = graph.predict(graph.of_arrow(batch))
                        predicted = time.perf_counter()
                        writer.write_batch(pa.record_batch([batch.column(KEY), pa.array(scores)], schema=schema))
                        written = time.perf_counter()
                        seconds["read_s"] += read - start
                        seconds["predict_s"] += predicted - read
                        seconds["write_s"] += written - predicted
                        start = written
                    seconds["read_s"] += time.perf_counter() - start
        return seconds

    yield score
