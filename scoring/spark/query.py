"""Rows of a SQL query or a catalogue table, as a Spark frame. Runs on the driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession, functions
from pyspark.sql.pandas.types import to_arrow_schema

from scoring.data.partition import check_value
from scoring.data.query import Query
from scoring.deployment import Deployment
from scoring.errors import ConfigurationError, ContractError, DataError, cause
from scoring.spark.session import open_session

PARAMETER: Final = "partition"
"""Name of the parameter that stands for the partition's value in `input.sql`."""
DATA_EXCEPTION: Final = "22"
"""How the SQL states begin that say: a value does not fit the query."""


def query_of(deployment: Deployment, value: str, *, run_id: str = "") -> Query:
    """Return what the query or table of a deployment's input says of a partition, before any row is read.

    Args:
        deployment: whose input.
        value: the partition.
        run_id: whose rows they will be.

    Raises:
        ConfigurationError: Spark cannot read the query or the table, or the value can be no partition.
        ContractError: a column has a type that Arrow has not.
    """
    session = open_session(f"scoring {deployment.name} {value}", deployment.resources, reads_rows=True)
    frame = _frame(session, deployment, check_value(value))
    name = f"table {deployment.input.table}" if deployment.input.table else "the query 'input.sql'"
    try:
        schema = to_arrow_schema(frame.schema, timezone=session.conf.get("spark.sql.session.timeZone"))
    except PySparkException as error:
        raise ContractError(
            f"{name} of {deployment.name!r} has a column that cannot be scored", "types that Arrow has", cause(error)
        ) from error
    return Query(deployment.input.partition, value, name, schema, run_id)


def open_query(session: SparkSession, deployment: Deployment, query: Query, columns: Sequence[str]) -> DataFrame:
    """Return the columns of a query's rows."""
    frame = _frame(session, deployment, query.value)
    return frame.select(*(functions.col(f"`{name.replace('`', '``')}`") for name in columns))


@contextmanager
def data_errors(query: Query) -> Iterator[None]:
    """Turn what Spark says of values that do not fit the query into a `DataError`."""
    try:
        yield
    except PySparkException as error:
        if (error.getSqlState() or "").startswith(DATA_EXCEPTION):
            raise DataError(
                f"{query.name} cannot be read for partition {query.value!r}",
                "values that fit it",
                cause(error),
                "Correct the data or the query.",
            ) from error
        raise


def _frame(session: SparkSession, deployment: Deployment, value: str) -> DataFrame:
    source = deployment.input
    try:
        if source.table is not None:
            frame = session.table(source.table)
            return frame.where(functions.col(source.partition) == functions.lit(value))
        # A parameter, not text: a value cannot change the query.
        return session.sql(str(source.sql), args={PARAMETER: value})
    except AnalysisException as error:
        what = f"table {source.table!r}" if source.table else "'input.sql'"
        raise ConfigurationError(f"Spark cannot read {what} of {deployment.name!r}", got=cause(error)) from error
