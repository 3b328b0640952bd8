"""Reads pieces of Parquet files batch by batch, in bounded memory whatever the size of file and row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from scoring.data.partition import INT96_UNIT
from scoring.data.splits import Piece
from scoring.data.storage import is_damage, open_storage, storage_errors
from scoring.errors import DataError, cause

MEASURED_ROWS: Final = 1_024
"""Rows of a row group that are read to learn how long its texts are."""
BUFFER_BYTES: Final = (64 * 1024, 8 * 1024 * 1024)
"""Least and most that is read at once of one column of a large row group."""


@dataclass(frozen=True, slots=True)
class BatchLimit:
    """How much a batch holds at most."""

    rows: int
    size_bytes: int
    """Of its columns as Arrow holds them."""

    def rows_of(self, row_bytes: float) -> int:
        """Return how many rows of a width fit; one at least."""
        return max(min(self.rows, int(self.size_bytes / max(row_bytes, 1.0))), 1)


@dataclass(frozen=True, slots=True)
class RawRows:
    """Rows as they were read."""

    table: pa.Table
    source: str
    """Where they come from: a file's path."""
    first_row: int
    """Number of the first row within the source."""


def read_piece(
    location: str, piece: Piece, *, columns: Sequence[str], limit: BatchLimit, use_threads: bool
) -> Iterator[RawRows]:
    """Yield the rows of a piece, in order.

    Args:
        location: path or URL of the input, which tells the file system.
        piece: what to read.
        columns: names of the columns to read.
        limit: of one batch; text makes the size an estimate from the first rows.
        use_threads: decode several columns at once.

    Raises:
        DataError: a page is damaged.
        StorageError: the store does not answer.
    """
    filesystem, _ = open_storage(location)
    with storage_errors(piece.path), filesystem.open_input_file(piece.path) as handle:
        batches = _batches(handle, piece, list(columns), limit, use_threads=use_threads)
        skip, left, row = piece.skip, piece.rows, piece.first_row
        while left:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                if not is_damage(error):
                    raise
                raise DataError(
                    f"file {piece.path} cannot be read",
                    "whole Parquet pages",
                    cause(error),
                    "It may be damaged: write it again, then run again.",
                ) from error
            if batch is None:
                return
            kept = batch.slice(skip, left)
            skip = max(skip - batch.num_rows, 0)
            if kept.num_rows:
                yield RawRows(pa.Table.from_batches([kept]), piece.path, row)
                left -= kept.num_rows
                row += kept.num_rows


def _batches(
    handle: fs.NativeFile, piece: Piece, columns: list[str], limit: BatchLimit, *, use_threads: bool
) -> Iterator[pa.RecordBatch]:
    metadata = pq.read_metadata(handle)
    rows = _rows_of_batch(handle, metadata, piece, columns, limit)
    for number in piece.row_groups:
        # A small row group is fetched in few requests; of a large one only the pages of a batch are held.
        is_small = metadata.row_group(number).total_byte_size <= limit.size_bytes
        least, most = BUFFER_BYTES
        buffer_bytes = 0 if is_small else max(least, min(limit.size_bytes // len(columns), most))
        file = pq.ParquetFile(
            handle,
            metadata=metadata,
            pre_buffer=is_small,
            buffer_size=buffer_bytes,
            coerce_int96_timestamp_unit=INT96_UNIT,
        )
        yield from file.iter_batches(batch_size=rows, row_groups=[number], columns=columns, use_threads=use_threads)


def _rows_of_batch(
    handle: fs.NativeFile, metadata: pq.FileMetaData, piece: Piece, columns: list[str], limit: BatchLimit
) -> int:
    schema = metadata.schema.to_arrow_schema()
    varying = [name for name in columns if _width(schema.field(name).type) is None]
    row_bytes = sum(_width(schema.field(name).type) or 0.0 for name in columns)
    first = piece.row_groups[0]
    if varying and metadata.row_group(first).num_rows > MEASURED_ROWS:
        file = pq.ParquetFile(
            handle, metadata=metadata, buffer_size=BUFFER_BYTES[0], coerce_int96_timestamp_unit=INT96_UNIT
        )
        found = next(file.iter_batches(MEASURED_ROWS, row_groups=[first], columns=varying, use_threads=False))
        row_bytes += found.nbytes / found.num_rows
    return limit.rows_of(row_bytes)


def _width(kind: pa.DataType) -> float | None:
    """Return the bytes of one value; None where they vary."""
    try:
        return float(kind.bit_width) / 8
    except ValueError:
        return None
