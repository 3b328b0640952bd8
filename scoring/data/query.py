"""One partition that Spark reads: rows of a SQL query or of a catalogue table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from scoring.data.partition import Partition


@dataclass(frozen=True, slots=True)
class Query:
    """What is known of the rows before they are read: their columns, but neither how many there are nor which.

    So a run over a query is never continued: rows that come again may be others.
    """

    column: str
    value: str
    name: str
    """What people call it."""
    schema: pa.Schema
    run_id: str
    """Whose rows they are."""

    @property
    def rows(self) -> None:
        """How many there are: not known."""
        return

    @property
    def size_bytes(self) -> None:
        """How many bytes they have: not known."""
        return

    @property
    def schemas(self) -> tuple[tuple[str, pa.Schema], ...]:
        """Columns of each piece that has its own, with the piece's name."""
        return ((self.name, self.schema),)

    @property
    def digest(self) -> str:
        """sha256 that no other run has."""
        facts = [self.column, self.value, self.name, self.run_id]
        return hashlib.sha256("\n".join(facts).encode() + self.schema.serialize().to_pybytes()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return what is kept in the run record."""
        columns = {field.name: str(field.type) for field in self.schema}
        return {"rows": None, "files": [], "query": {"name": self.name, "columns": columns}}


AnyPartition = Partition | Query
"""What a run scores: files that workers read themselves, or rows that Spark hands them."""
