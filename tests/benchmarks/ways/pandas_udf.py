"""An iterator pandas UDF over columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from pyspark.sql import Column
from pyspark.sql.functions import col, pandas_udf

from tests.benchmarks import native
from tests.benchmarks.cases import KEY, Case
from tests.benchmarks.places import Places
from tests.benchmarks.ways import Score
from tests.benchmarks.ways.spark_rows import read, spark_session, write


def predicting(case: Case, places: Places) -> Callable[..., Column]:
    """Return the function, which loads the model on a worker, once."""

    @pandas_udf("double")
    def predict(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.Series]:
        graph = native.load(case, places, 1)
        for columns in batches:
            yield pd.Series(graph.predict(graph.of_columns(list(columns))))

    return predict


@contextmanager
def opened(case: Case, places: Places, cores: int) -> Iterator[Score]:
    """Start Spark and make the function."""
    with spark_session(case, cores) as session:
        predict = predicting(case, places)

        def score(value: str, target: Path) -> dict[str, float]:
            scores = predict(*map(col, case.dataset.features)).alias("score")
            return write(read(session, case, places, value).select(KEY, scores), target)

        yield score
