"""Whether two ways wrote the same predictions."""

from __future__ import annotations

from pathlib import Path

import duckdb

from tests.benchmarks.cases import KEY, NIGHT, PARTITION, Case, Way
from tests.benchmarks.measure import WayError
from tests.benchmarks.places import Places

TOLERANCE = 1e-5
"""Of a probability. Libraries sum float32 in another order for another number of rows or threads."""


def check(case: Case, way: Way, places: Places) -> None:
    """Compare what a way wrote with the limit, by key; without a limit, count the rows.

    Raises:
        WayError: rows are missing, double or null, or a score differs.
    """
    files = written(places.output(case, way) / f"{PARTITION}={NIGHT}")
    others = written(places.output(case, Way.LIMIT) / f"{PARTITION}={NIGHT}") if Way.LIMIT in case.ways else files
    for writer, its_files in ((way, files), (Way.LIMIT, others)):
        if not its_files:
            raise WayError(f"{way} of case {case.name} cannot be checked: {writer} wrote no Parquet file")
    with duckdb.connect(":memory:") as connection:
        found = connection.execute(
            f"""
            SELECT count(*), count(DISTINCT way.{KEY}), count(way.score), max(abs(way.score - other.score))
            FROM read_parquet($files, hive_partitioning = false) AS way
            FULL JOIN read_parquet($others, hive_partitioning = false) AS other USING ({KEY})
            """,
            {"files": files, "others": others},
        ).fetchone()
    rows, keys, scores, difference = found or (0, 0, 0, None)
    if not rows == keys == scores == case.dataset.rows:
        raise WayError(
            f"{way} of case {case.name} wrote other rows: expected {case.dataset.rows:,}, "
            f"got {keys:,} keys with {scores:,} scores in {rows:,} rows"
        )
    if difference is None or not difference <= TOLERANCE:
        raise WayError(
            f"{way} of case {case.name} predicted something else than the limit: "
            f"expected scores within {TOLERANCE}, got a difference of {difference}"
        )


def written(folder: Path) -> list[str]:
    """Return the complete Parquet files below a folder."""
    return sorted(str(file) for file in folder.rglob("*.parquet") if not file.name.startswith((".", "_")))
