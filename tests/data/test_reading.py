from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.data.partition import list_partition
from scoring.data.reading import BatchLimit, RawRows, read_piece
from scoring.data.splits import Piece
from scoring.deployment import Input

ROWS = 300
COLUMNS = ["id", "text"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("reading") / "a.parquet"
    texts = [f"{'x' * (number % 7)}{number}" for number in range(ROWS)]
    table = pa.table({"id": range(ROWS), "text": texts, "other": [0.5] * ROWS})
    pq.write_table(table, path, row_group_size=100)
    return str(path)


def read(path: str, piece: Piece, limit: BatchLimit, *, columns: list[str] = COLUMNS) -> list[RawRows]:
    return list(read_piece(path, piece, columns=columns, limit=limit, use_threads=False))


@given(first=st.integers(0, ROWS - 1), rows=st.integers(1, ROWS), limit=st.integers(1, 150), use_threads=st.booleans())
def test_exactly_the_rows_of_the_piece_are_read(
    file: str, first: int, rows: int, limit: int, *, use_threads: bool
) -> None:
    end = min(first + rows, ROWS)
    groups = tuple(range(first // 100, (end - 1) // 100 + 1))
    piece = Piece(file, groups, first, end - first, skip=first % 100)
    found = list(read_piece(file, piece, columns=COLUMNS, limit=BatchLimit(limit, 2**20), use_threads=use_threads))
    assert [row for batch in found for row in batch.table["id"].to_pylist()] == list(range(first, end))
    assert [batch.first_row for batch in found] == [batch.table["id"][0].as_py() for batch in found]
    assert all(batch.table.num_rows <= limit and batch.table.column_names == COLUMNS for batch in found)
    assert {batch.source for batch in found} == {file}


@pytest.mark.parametrize(("size_bytes", "rows"), [(2**30, 100), (800, 100), (400, 50), (8, 1), (1, 1)])
def test_a_batch_has_no_more_bytes_than_asked(file: str, size_bytes: int, rows: int) -> None:
    found = read(file, Piece(file, (0,), 0, 100), BatchLimit(1000, size_bytes), columns=["id"])
    assert [batch.table.num_rows for batch in found] == [rows] * (100 // rows)


def test_moments_of_old_spark_are_those_that_were_written(tmp_path: Path) -> None:
    moments = [dt.datetime(9999, 12, 31, 23, 59, 59, 999_999), dt.datetime(1, 1, 1), None]
    folder = tmp_path / "day=1"
    folder.mkdir()
    path = str(folder / "a.parquet")
    pq.write_table(pa.table({"moment": pa.array(moments)}), path, use_deprecated_int96_timestamps=True)
    (file,) = list_partition(Input(path=str(tmp_path), partition="day", keys=("moment",)), "1").files
    (found,) = read(path, Piece(path, (0,), 0, 3), BatchLimit(10, 1000), columns=["moment"])
    assert found.table["moment"].to_pylist() == moments
    assert found.table.schema == file.schema == pa.schema([("moment", pa.timestamp("us"))])


def test_the_length_of_text_is_measured(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["x" * 1000] * 10_000}), path)
    found = read(path, Piece(path, (0,), 0, 10_000), BatchLimit(10_000, 100_000), columns=["text"])
    assert max(batch.table.num_rows for batch in found) < 110, "one page holds the text once, each row repeats it"
    assert sum(batch.table.num_rows for batch in found) == 10_000


PEAK = """
import resource, sys
import pyarrow as pa
from scoring.data.reading import BatchLimit, read_piece
from scoring.data.splits import Piece

path, rows = sys.argv[1], int(sys.argv[2])
columns = [f"f{number}" for number in range(20)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
limit = BatchLimit(2**17, 2**22)
batches = read_piece(path, Piece(path, (0,), 0, rows), columns=columns, limit=limit, use_threads=False)
assert sum(batch.table.num_rows for batch in batches) == rows
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_does_not_grow_with_the_row_group(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.parquet", 2_000_000
    column = pa.array(np.random.default_rng(0).normal(size=rows).astype(np.float32))
    pq.write_table(pa.table({f"f{number}": column for number in range(20)}), path, row_group_size=rows)
    assert pq.read_metadata(path).num_row_groups == 1
    command = [sys.executable, "-c", PEAK, str(path), str(rows)]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)
    assert grown < 20 * 2**22 < path.stat().st_size, "a few batches and read buffers, not the row group of 160 MB"
