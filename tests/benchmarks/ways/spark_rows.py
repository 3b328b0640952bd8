"""What ways share in which Spark reads the rows: the session, the columns, and how scores are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from scoring import java
from tests.benchmarks.cases import Case
from tests.benchmarks.places import Places

ARROW_BATCH_ROWS = 32_768
"""Rows that Spark hands to Python at once: of 10,000 (the default) to 131,072 the one that took the least CPU."""
ARROW_BATCH_VALUES = 30 * ARROW_BATCH_ROWS


@contextmanager
def spark_session(case: Case, cores: int) -> Iterator[SparkSession]:
    """Start Spark in local mode for the time inside, tuned for Arrow."""
    batch_rows = case.predict_rows or min(ARROW_BATCH_ROWS, ARROW_BATCH_VALUES // len(case.dataset.features))
    session = (
        SparkSession.builder.master(f"local[{cores}]")
        .appName(f"bench {case.name}")
        .config("spark.driver.memory", "4g")
        .config("spark.driver.extraJavaOptions", java.LOGGING_OPTION)
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", str(batch_rows))
        .config("spark.sql.parquet.compression.codec", "zstd")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    try:
        yield session
    finally:
        session.stop()


def read(session: SparkSession, case: Case, places: Places, value: str) -> DataFrame:
    """Return the rows of one partition."""
    return session.read.parquet(str(places.partition(case.dataset, value)))


def write(frame: DataFrame, target: Path) -> dict[str, float]:
    """Write keys and scores."""
    frame.write.parquet(str(target))
    return {}
