"""Rows that broke the input contract: as they were read, with the reason, in a Delta table of their own.

Of each row the contract's columns are kept. A split writes its rows batch by batch, so that they never fill the
memory, and stops keeping (not counting) them when there are so many that the run will fail.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from scoring.data.parts import Part, PartWriter, writing_part

SCHEMA: Final = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("row_in_file", pa.int64()),
        pa.field("reason", pa.string()),
        pa.field("row", pa.string()),
    ]
)
"""Independent of the input's columns, so that it holds whatever upstream sends; `row` is JSON."""
ROWS_AT_ONCE: Final = 8_192
"""Rows that are Python objects at the same time on their way to JSON."""


@dataclass(slots=True)
class Quarantine:
    """The quarantined rows of one split: counts all of them and keeps the first `limit`."""

    open_part: Callable[[], PartWriter]
    """Called when there is a first row; most splits have none."""
    limit: int
    rows: int = 0
    """Rows that were added."""
    writer: PartWriter | None = None

    @property
    def part(self) -> Part | None:
        """The part's record once it is complete; None when there are no rows."""
        return self.writer.part if self.writer else None

    def add(self, table: pa.Table, reasons: Mapping[int, str], *, file: str, first_row: int) -> None:
        """Keep some rows of a table.

        Args:
            table: rows as they were read.
            reasons: number within `table`, and reason, of each row that broke the contract.
            file: where the rows come from.
            first_row: position of the table's first row within the file.
        """
        numbers = sorted(reasons)[: max(self.limit - self.rows, 0)]
        self.rows += len(reasons)
        if not numbers:
            return
        kept = _takable(table).take(pa.array(numbers, pa.int64()))
        texts = [text for batch in kept.to_batches(max_chunksize=ROWS_AT_ONCE) for text in _texts(batch)]
        columns = {
            "file": pa.repeat(file, len(numbers)),
            "row_in_file": pa.array([first_row + number for number in numbers], pa.int64()),
            "reason": pa.array([reasons[number] for number in numbers], pa.string()),
            "row": pa.array(texts, pa.string()),
        }
        if self.writer is None:
            self.writer = self.open_part()
        self.writer.write(pa.table(columns, schema=SCHEMA))


def _takable(table: pa.Table) -> pa.Table:
    """Return equal rows without views of text and bytes, of which Arrow cannot take some."""
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return table.cast(pa.schema([field.with_type(plain.get(field.type, field.type)) for field in table.schema]))


def _texts(batch: pa.RecordBatch) -> list[str]:
    try:
        rows = batch.to_pylist()
    except (OverflowError, ValueError):  # a day that Python's calendar does not have
        shown = [column.cast(pa.string()) if pa.types.is_temporal(column.type) else column for column in batch.columns]
        rows = pa.RecordBatch.from_arrays(shown, batch.schema.names).to_pylist()
    return [json.dumps(row, default=str) for row in rows]


@contextmanager
def keeping_quarantine(root: str, path: str, *, limit: int) -> Iterator[Quarantine]:
    """Keep quarantined rows in a part file, which exists only when there are such rows and nothing was raised.

    Args:
        root: path or URL of the quarantine table.
        path: the part's path, relative to `root`.
        limit: how many rows are kept; those beyond are only counted.

    Raises:
        StorageError: disk full, store away.
    """
    with ExitStack() as stack:
        yield Quarantine(lambda: stack.enter_context(writing_part(root, path, SCHEMA)), limit)
