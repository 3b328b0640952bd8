"""A partition becomes splits of even size: big files are cut at row groups, small ones are joined."""

from __future__ import annotations

from dataclasses import dataclass

from scoring.data.partition import Partition


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive row groups of one file."""

    path: str
    row_groups: tuple[int, ...]
    first_row: int
    """Number of the first row within the file."""
    rows: int


@dataclass(frozen=True, slots=True)
class Split:
    """What one task scores."""

    index: int
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(piece.rows for piece in self.pieces)


def plan_splits(partition: Partition, *, split_rows: int, at_least: int = 1) -> tuple[Split, ...]:
    """Pack the row groups of a partition, in order, into splits.

    Args:
        partition: what is to be scored.
        split_rows: rows of one split at most, unless one row group alone has more.
        at_least: wanted number of splits, so that all cores have work; fewer when there are fewer row groups.

    Returns:
        Splits that hold every row group exactly once. Deterministic.
    """
    wanted = min(split_rows, -(-partition.rows // max(at_least, 1)))
    splits: list[Split] = []
    open_pieces: list[Piece] = []
    open_rows = 0
    for file in partition.files:
        first_row = 0
        for number, group in enumerate(file.row_groups):
            if open_pieces and open_rows + group.rows > wanted:
                splits.append(Split(len(splits), tuple(open_pieces)))
                open_pieces, open_rows = [], 0
            if open_pieces and open_pieces[-1].path == file.path:
                last = open_pieces[-1]
                open_pieces[-1] = Piece(file.path, (*last.row_groups, number), last.first_row, last.rows + group.rows)
            else:
                open_pieces.append(Piece(file.path, (number,), first_row, group.rows))
            open_rows += group.rows
            first_row += group.rows
    if open_pieces:
        splits.append(Split(len(splits), tuple(open_pieces)))
    return tuple(splits)
