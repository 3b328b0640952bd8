"""Rows in = rows out + quarantined, every split present exactly once, keys unique: else the run fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import duckdb
import pyarrow as pa
from pyarrow import dataset

from scoring.data.storage import open_storage, storage_errors
from scoring.errors import MAX_EXAMPLES, DataError, TransientError, examples, listed
from scoring.plan import Plan
from scoring.results import SplitResult


def account(plan: Plan, results: Sequence[SplitResult]) -> None:
    """Check what the workers say they did against the plan.

    Raises:
        ScoringError: the first error that stopped a split; a terminal one before one that a retry can mend.
        TransientError: a split is missing, double, or lost rows.
        DataError: keys are not unique.
    """
    failed = [error for result in results if (error := result.error()) is not None]
    if failed:
        raise min(failed, key=lambda error: isinstance(error, TransientError))
    counts = Counter(result.split for result in results)
    # How many rows a query has, only those know who read them.
    is_known = plan.partition.rows is not None
    planned = {split.index: split.rows for split in plan.splits} if is_known else {r.split: r.rows_in for r in results}
    wrong = [index for index in planned if counts[index] != 1]
    if wrong or len(results) != len(planned):
        raise TransientError(
            f"the splits of partition {plan.partition.value!r} do not add up",
            f"{len(planned)} results, one per split",
            f"{len(results)} results; missing or double: {listed(wrong) or 'none'}",
        )
    if sum(planned.values()) == 0:
        raise DataError(
            f"partition {plan.partition.value!r} is empty", "at least one row", "none", "Ask the upstream team."
        )
    for result in results:
        if result.rows_in != planned[result.split]:
            raise TransientError(
                f"split {result.split} of partition {plan.partition.value!r} was not read to its end",
                f"{planned[result.split]} rows, as the files' footers say",
                f"{result.rows_in} rows",
                "Was a file replaced meanwhile? Run again.",
            )
        if result.rows_in != result.rows_out + result.rows_quarantined:
            raise TransientError(
                f"split {result.split} of partition {plan.partition.value!r} does not add up",
                f"{result.rows_in} rows in",
                f"{result.rows_out} rows out and {result.rows_quarantined} quarantined",
            )
    if not _keys_grow(results):
        _check_keys(plan, [result.part.path for result in results if result.part])


def check_quarantine(plan: Plan, results: Sequence[SplitResult]) -> None:
    """Compare the share of quarantined rows with the deployment's limit.

    Raises:
        DataError: there are too many.
    """
    rows, limit = sum(result.rows_quarantined for result in results), plan.deployment.input.max_quarantined_share
    total = sum(result.rows_in for result in results)
    share = rows / total
    if share > limit:
        raise DataError(
            f"too many rows of partition {plan.partition.value!r} break the input contract",
            f"at most {limit:.2%}",
            f"{rows} of {total} rows ({share:.2%})",
            f"The first of them are kept, with reasons, in {plan.deployment.output.quarantine_path}.",
        )


def _keys_grow(results: Sequence[SplitResult]) -> bool:
    """Return whether the workers saw that keys grow within each split, and that the splits' ranges lie apart."""
    ranges = [result.key_range for result in results if result.rows_out]
    known = sorted(bounds for bounds in ranges if bounds is not None)
    return len(known) == len(ranges) and all(last < first for (_, last), (first, _) in pairwise(known))


def _check_keys(plan: Plan, paths: Sequence[str]) -> None:
    deployment = plan.deployment
    # DuckDB looks at the types of all columns that it is given, and does not know those of all kept ones.
    schema = pa.schema([plan.schema.field(key) for key in deployment.input.keys])
    filesystem, root = open_storage(deployment.output.path)
    keys = ", ".join(f'"{key}"' for key in deployment.input.keys)
    with storage_errors(deployment.output.path), duckdb.connect(":memory:") as connection:
        parts = dataset.dataset(
            [f"{root}/{path}" for path in paths], schema=schema, filesystem=filesystem, format="parquet"
        )
        connection.register("parts", parts)
        found = connection.execute(
            f"SELECT {keys}, count(*) AS times FROM parts GROUP BY {keys} HAVING count(*) > 1 "  # noqa: S608 - checked names
            f"ORDER BY {keys} LIMIT {MAX_EXAMPLES}"
        ).fetchall()
    if found:
        shown = examples(row[:-1] if len(row) > 2 else row[0] for row in found)
        raise DataError(
            "keys are not unique",
            f"one row for each value of {listed(deployment.input.keys)}",
            f"several rows for {shown}",
            "Ask the upstream team, or add the column that tells the rows apart to 'input.keys'.",
        )
