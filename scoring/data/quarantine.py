"""Rows that broke the input contract: kept whole, with the reason, in a Delta table of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

SCHEMA: Final = pa.schema(
    [
        pa.field("run_id", pa.string()),
        pa.field("file", pa.string()),
        pa.field("row_in_file", pa.int64()),
        pa.field("reason", pa.string()),
        pa.field("row", pa.string()),
    ]
)
"""Independent of the input's columns, so that it holds whatever upstream sends; `row` is JSON."""


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """One row that broke the contract."""

    file: str
    row_in_file: int
    reason: str
    row: dict[str, Any]


def quarantine_table(run_id: str, rows: Sequence[QuarantinedRow]) -> pa.Table:
    """Return rows in the quarantine table's schema."""
    return pa.table(
        {
            "run_id": pa.array([run_id] * len(rows), pa.string()),
            "file": pa.array([row.file for row in rows], pa.string()),
            "row_in_file": pa.array([row.row_in_file for row in rows], pa.int64()),
            "reason": pa.array([row.reason for row in rows], pa.string()),
            "row": pa.array([json.dumps(row.row, default=str) for row in rows], pa.string()),
        },
        schema=SCHEMA,
    )
