"""A partition becomes splits of even size in bytes: big files are cut at row groups, small ones are joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from scoring.data.partition import Partition

MIN_SHARE_BYTES: Final = 1024 * 1024
"""Uncompressed bytes for which a task of its own is started, so that all cores have work."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows of one file: whole row groups, unless one is so large that several splits share it."""

    path: str
    row_groups: tuple[int, ...]
    first_row: int
    """Number of the first row within the file."""
    rows: int
    skip: int = 0
    """Rows of the first row group that lie before the piece."""


@dataclass(frozen=True, slots=True)
class Split:
    """What one task scores."""

    index: int
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(piece.rows for piece in self.pieces)


def plan_splits(partition: Partition, *, split_bytes: int, at_least: int = 1) -> tuple[Split, ...]:
    """Pack the row groups of a partition, in order, into splits of even size.

    Args:
        partition: what is to be scored.
        split_bytes: uncompressed bytes of one split, about, unless one row group alone has more.
        at_least: wanted number of splits, so that all cores have work, unless their share is below `MIN_SHARE_BYTES`.
            A row group that is larger than such a share is cut by rows; each of its pieces is read from the row
            group's start, so it is cut for this reason only.

    Returns:
        Splits that hold every row exactly once. Deterministic.
    """
    total = sum(group.size_bytes for file in partition.files for group in file.row_groups)
    # Starting a worker and loading the models costs more than so few bytes are worth.
    tasks = max(min(at_least, total // MIN_SHARE_BYTES), 1)
    # A multiple of the tasks that run at once, so that none of them waits for the last split.
    share = total / max(-(-total // (split_bytes * tasks)) * tasks, 1)
    largest = total / tasks
    splits: list[list[Piece]] = [[]]
    filled = 0.0
    for piece, size in _pieces(partition, largest):
        # A piece belongs to the split in which its middle lies.
        if splits[-1] and filled + size / 2 > share * len(splits):
            splits.append([])
        _append(splits[-1], piece)
        filled += size
    return tuple(Split(index, tuple(pieces)) for index, pieces in enumerate(splits) if pieces)


def _pieces(partition: Partition, largest: float) -> Iterator[tuple[Piece, float]]:
    """Yield every row group that has rows, cut where it is larger than `largest` bytes, with its bytes."""
    for file in partition.files:
        first_row = 0
        for number, group in enumerate(file.row_groups):
            cuts = max(min(round(group.size_bytes / largest) if largest else 1, group.rows), 1)
            bounds = [group.rows * cut // cuts for cut in range(cuts + 1)]
            for skip, end in pairwise(bounds):
                if end > skip:
                    yield Piece(file.path, (number,), first_row + skip, end - skip, skip), group.size_bytes / cuts
            first_row += group.rows


def _append(pieces: list[Piece], piece: Piece) -> None:
    """Add a piece; rows of one file that follow each other become one piece."""
    last = pieces[-1] if pieces else None
    if last is not None and last.path == piece.path and last.first_row + last.rows == piece.first_row:
        groups = tuple(dict.fromkeys((*last.row_groups, *piece.row_groups)))
        pieces[-1] = Piece(last.path, groups, last.first_row, last.rows + piece.rows, last.skip)
    else:
        pieces.append(piece)
