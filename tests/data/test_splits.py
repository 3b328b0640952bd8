from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.data.partition import InputFile, Partition, RowGroup
from scoring.data.splits import plan_splits

sizes = st.lists(st.lists(st.integers(0, 50), max_size=5), min_size=1, max_size=6).filter(
    lambda files: sum(map(sum, files)) > 0
)


def partition(files: list[list[int]]) -> Partition:
    return Partition(
        "day",
        "2013-01-01",
        tuple(
            InputFile(f"/lake/{number:03d}.parquet", 1, pa.schema([]), tuple(RowGroup(rows, 1) for rows in groups))
            for number, groups in enumerate(files)
        ),
    )


@given(files=sizes, split_rows=st.integers(1, 120), at_least=st.integers(1, 8))
def test_every_row_group_is_in_exactly_one_split_in_order(
    files: list[list[int]], split_rows: int, at_least: int
) -> None:
    whole = partition(files)
    splits = plan_splits(whole, split_rows=split_rows, at_least=at_least)
    pieces = [piece for split in splits for piece in split.pieces]
    found = [(piece.path, group) for piece in pieces for group in piece.row_groups]
    assert found == [(file.path, group) for file in whole.files for group in range(len(file.row_groups))]
    assert [split.index for split in splits] == list(range(len(splits)))
    assert sum(split.rows for split in splits) == whole.rows


@given(files=sizes, split_rows=st.integers(1, 120), at_least=st.integers(1, 8))
def test_pieces_know_where_their_rows_lie(files: list[list[int]], split_rows: int, at_least: int) -> None:
    whole = {file.path: file for file in partition(files).files}
    for split in plan_splits(partition(files), split_rows=split_rows, at_least=at_least):
        for piece in split.pieces:
            groups = whole[piece.path].row_groups
            assert piece.rows == sum(groups[number].rows for number in piece.row_groups)
            assert piece.first_row == sum(group.rows for group in groups[: piece.row_groups[0]])
            assert list(piece.row_groups) == list(range(piece.row_groups[0], piece.row_groups[-1] + 1))


@given(files=sizes, split_rows=st.integers(1, 120), at_least=st.integers(1, 8))
def test_a_split_is_no_bigger_than_asked_unless_a_row_group_is(
    files: list[list[int]], split_rows: int, at_least: int
) -> None:
    limit = min(split_rows, -(-sum(map(sum, files)) // at_least))
    splits = plan_splits(partition(files), split_rows=split_rows, at_least=at_least)
    for split in splits:
        filled = [piece for piece in split.pieces if piece.rows]
        groups = [group for piece in filled for group in piece.row_groups]
        assert split.rows <= limit or len(groups) == 1 or _one_group_has_all(split.rows, files)
    for one, two in pairwise(splits):
        first_group = two.pieces[0]
        assert one.rows + first_group.rows > limit or len(first_group.row_groups) > 1, (
            "splits are packed, not scattered"
        )


def _one_group_has_all(rows: int, files: list[list[int]]) -> bool:
    return any(rows == group for groups in files for group in groups)


@given(files=sizes, split_rows=st.integers(1, 120))
def test_the_plan_is_the_same_every_time(files: list[list[int]], split_rows: int) -> None:
    assert plan_splits(partition(files), split_rows=split_rows) == plan_splits(partition(files), split_rows=split_rows)


@pytest.mark.parametrize(
    ("files", "split_rows", "at_least", "rows"),
    [
        ([[10, 10, 10, 10]], 20, 1, [20, 20]),
        ([[10], [10], [10], [10]], 1000, 1, [40]),
        ([[10], [10], [10], [10]], 1000, 2, [20, 20]),
        ([[10], [10], [10], [10]], 1000, 100, [10, 10, 10, 10]),
        ([[100]], 10, 4, [100]),
        ([[5, 100, 5]], 10, 1, [5, 100, 5]),
    ],
)
def test_big_files_are_cut_and_small_ones_joined(
    files: list[list[int]], split_rows: int, at_least: int, rows: list[int]
) -> None:
    splits = plan_splits(partition(files), split_rows=split_rows, at_least=at_least)
    assert [split.rows for split in splits] == rows
