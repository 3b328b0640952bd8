"""`pyspark.ml.functions.predict_batch_udf` over columns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark.ml.functions import predict_batch_udf
from pyspark.sql.functions import col
from pyspark.sql.types import DoubleType

from tests.benchmarks import native
from tests.benchmarks.cases import KEY, Case
from tests.benchmarks.places import Places
from tests.benchmarks.ways import Score
from tests.benchmarks.ways.spark_rows import ARROW_BATCH_ROWS, read, spark_session, write


def loading(case: Case, places: Places) -> Callable[[], Callable[..., Any]]:
    """Return a function that loads the model on a worker, once."""

    def load() -> Callable[..., Any]:
        graph = native.load(case, places, 1)

        def predict(*columns: Any) -> Any:
            return graph.predict(graph.of_columns(list(columns)))

        # Spark counts the parameters, and gives a column to each.
        kind = inspect.Parameter.POSITIONAL_ONLY
        parameters = [inspect.Parameter(name, kind) for name in case.dataset.features]
        predict.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return predict

    return load


@contextmanager
def opened(case: Case, places: Places, cores: int) -> Iterator[Score]:
    """Start Spark and make the function."""
    with spark_session(case, cores) as session:
        predict = predict_batch_udf(loading(case, places), return_type=DoubleType(), batch_size=ARROW_BATCH_ROWS)

        def score(value: str, target: Path) -> dict[str, float]:
            scores = predict(*map(col, case.dataset.features)).alias("score")
            return write(read(session, case, places, value).select(KEY, scores), target)

        yield score
