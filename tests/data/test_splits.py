from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.data.partition import InputFile, Partition, RowGroup
from scoring.data.splits import MIN_SHARE_BYTES, plan_splits

sizes = st.lists(st.lists(st.integers(0, 50), max_size=5), min_size=1, max_size=6).filter(
    lambda files: sum(map(sum, files)) > 0
)
BYTES_PER_ROW = MIN_SHARE_BYTES
split_rows = st.integers(1, 120)


def partition(files: list[list[int]]) -> Partition:
    return Partition(
        "day",
        "2013-01-01",
        tuple(
            InputFile(
                f"/lake/{number:03d}.parquet",
                1,
                pa.schema([]),
                tuple(RowGroup(rows, BYTES_PER_ROW * rows) for rows in groups),
            )
            for number, groups in enumerate(files)
        ),
    )


@given(files=sizes, split_rows=split_rows, at_least=st.integers(1, 8))
def test_every_row_is_in_exactly_one_split_in_order(files: list[list[int]], split_rows: int, at_least: int) -> None:
    whole = partition(files)
    splits = plan_splits(whole, split_bytes=BYTES_PER_ROW * split_rows, at_least=at_least)
    pieces = [piece for split in splits for piece in split.pieces]
    rows = [(piece.path, row) for piece in pieces for row in range(piece.first_row, piece.first_row + piece.rows)]
    assert rows == [(file.path, row) for file in whole.files for row in range(file.rows)]
    assert [split.index for split in splits] == list(range(len(splits)))
    assert sum(split.rows for split in splits) == whole.rows


@given(files=sizes, split_rows=split_rows, at_least=st.integers(1, 8))
def test_pieces_know_in_which_row_groups_their_rows_lie(files: list[list[int]], split_rows: int, at_least: int) -> None:
    whole = {file.path: file for file in partition(files).files}
    for split in plan_splits(partition(files), split_bytes=BYTES_PER_ROW * split_rows, at_least=at_least):
        for piece in split.pieces:
            groups = whole[piece.path].row_groups
            assert piece.first_row == sum(group.rows for group in groups[: piece.row_groups[0]]) + piece.skip
            assert piece.skip < groups[piece.row_groups[0]].rows
            held = sum(groups[number].rows for number in piece.row_groups) - piece.skip
            last = groups[piece.row_groups[-1]].rows
            assert held - last < piece.rows <= held, "no row group is read for nothing"
            assert list(piece.row_groups) == sorted(set(piece.row_groups))


@given(files=sizes, split_rows=split_rows, at_least=st.integers(1, 8))
def test_splits_differ_by_no_more_than_a_row_group(files: list[list[int]], split_rows: int, at_least: int) -> None:
    whole = partition(files)
    splits = plan_splits(whole, split_bytes=BYTES_PER_ROW * split_rows, at_least=at_least)
    total = BYTES_PER_ROW * whole.rows
    share = min(total / at_least, BYTES_PER_ROW * split_rows)
    largest = max(group.size_bytes for file in whole.files for group in file.row_groups)
    assert max(BYTES_PER_ROW * split.rows for split in splits) <= share + largest
    assert len(splits) <= -(-whole.rows // split_rows) + at_least


@given(files=sizes, at_least=st.integers(1, 8))
def test_a_row_group_is_cut_only_to_give_every_task_its_share(files: list[list[int]], at_least: int) -> None:
    share = sum(map(sum, files)) / at_least
    for split in plan_splits(partition(files), split_bytes=1, at_least=at_least):
        for piece in split.pieces:
            whole = sum(files[int(piece.path[-11:-8])][number] for number in piece.row_groups)
            assert piece.rows == whole or whole > share


@given(files=sizes, split_rows=split_rows)
def test_the_plan_is_the_same_every_time(files: list[list[int]], split_rows: int) -> None:
    first, second = (plan_splits(partition(files), split_bytes=BYTES_PER_ROW * split_rows) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("files", "split_rows", "at_least", "rows"),
    [
        ([[10, 10, 10, 10]], 20, 1, [20, 20]),
        ([[10], [10], [10], [10]], 1_000, 1, [40]),
        ([[10], [10], [10], [10]], 1_000, 2, [20, 20]),
        ([[10], [10], [10], [10]], 1_000, 100, [1] * 40),
        ([[10], [10], [10], [10]], 1, 1, [10, 10, 10, 10]),
        ([[10], [10], [10], [10], [10]], 20, 2, [10, 20, 10, 10]),
        ([[100]], 1, 1, [100]),
        ([[100]], 1_000, 4, [25, 25, 25, 25]),
        ([[5, 100, 5]], 10, 1, [5, 100, 5]),
        ([[0, 10, 0, 10]], 1, 1, [10, 10]),
    ],
)
def test_big_files_are_cut_and_small_ones_joined(
    files: list[list[int]], split_rows: int, at_least: int, rows: list[int]
) -> None:
    splits = plan_splits(partition(files), split_bytes=BYTES_PER_ROW * split_rows, at_least=at_least)
    assert [split.rows for split in splits] == rows
    assert all(one.index + 1 == two.index for one, two in pairwise(splits))


def test_little_is_not_scattered_over_all_cores() -> None:
    little = InputFile("/lake/a.parquet", 1, pa.schema([]), (RowGroup(900, 150_000), RowGroup(900, 150_000)))
    assert len(plan_splits(Partition("day", "2013-01-01", (little,)), split_bytes=2**28, at_least=64)) == 1
    assert len(plan_splits(Partition("day", "2013-01-01", (little,)), split_bytes=1, at_least=64)) == 2
