"""Makes the Parquet files of a dataset; the same parameters give the same bytes, and files that are there stay."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.cases import KEY, NIGHT, PARTITION, WARM_UP, Dataset
from tests.benchmarks.places import Places

COMPLETE = "complete"
"""Marks a folder whose files are all there."""
UNSORTED_FACTOR = 2_654_435_761
WARM_UP_FILES = 16
"""Enough to give every core of a usual machine a task."""
WARM_UP_FILE_VALUES = 300_000
"""Ten thousand rows of 30 columns: enough for Java to compile what matters most."""


def make(dataset: Dataset, places: Places) -> None:
    """Write the warm-up partition and the measured partition, unless they are there."""
    root = places.data(dataset)
    if (root / COMPLETE).exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    file_rows = WARM_UP_FILE_VALUES // len(dataset.features)
    tiny = replace(dataset, rows=WARM_UP_FILES * file_rows, file_rows=file_rows)
    write(tiny, root / f"{PARTITION}={WARM_UP}", seed=1)
    write(dataset, root / f"{PARTITION}={NIGHT}", seed=2)
    (root / COMPLETE).touch()


def write(dataset: Dataset, folder: Path, *, seed: int) -> None:
    """Write the rows of one partition as Parquet files."""
    folder.mkdir(parents=True)
    file_rows = dataset.file_rows or dataset.rows
    for number, first in enumerate(range(0, dataset.rows, file_rows)):
        last = min(first + file_rows, dataset.rows)
        group_rows = dataset.row_group_rows or last - first
        with pq.ParquetWriter(folder / f"part-{number:05d}.parquet", schema(dataset)) as writer:
            for start in range(first, last, group_rows):
                rows = min(group_rows, last - start)
                writer.write_table(random_rows(dataset, rows, first=start, seed=seed), row_group_size=rows)


def schema(dataset: Dataset) -> pa.Schema:
    """Return the columns of the files."""
    return pa.schema(
        [
            pa.field(KEY, pa.int64()),
            *(pa.field(name, pa.float32()) for name in dataset.number_columns),
            *(pa.field(name, pa.string()) for name in dataset.category_columns),
        ]
    )


def random_rows(dataset: Dataset, rows: int, *, first: int, seed: int) -> pa.Table:
    """Return rows number `first` and following; the values depend on seed and `first` only."""
    random = np.random.default_rng([seed, first])
    keys = np.arange(first, first + rows)
    # An odd factor maps the numbers below 2**32 onto themselves, in another order.
    columns = [pa.array(keys if dataset.is_sorted else keys * UNSORTED_FACTOR % 2**32)]
    columns += [pa.array(random.standard_normal(rows, dtype=np.float32)) for _ in range(dataset.numbers)]
    for distinct in dataset.categories:
        values = pa.array([f"value {number}" for number in range(distinct)])
        columns.append(values.take(pa.array(random.integers(0, distinct, rows))))
    return pa.table(columns, schema=schema(dataset))


def read_once(dataset: Dataset, places: Places) -> None:
    """Read all bytes, so that every way finds the files in the operating system's cache."""
    for file in places.partition(dataset, NIGHT).iterdir():
        with file.open("rb", buffering=0) as handle:
            while handle.read(1 << 24):
                pass


def delete(dataset: Dataset, places: Places) -> None:
    """Delete the files."""
    shutil.rmtree(places.data(dataset), ignore_errors=True)
