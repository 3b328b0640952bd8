"""Constants as columns: defaults, overrides, reason codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from scoring.batch import Batch


@dataclass(frozen=True)
class Values:
    """Sets columns to one constant each; null has a type only beside other branches of a route."""

    values: Mapping[str, Any]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Constants are nothing to combine."""
        return ()

    def run(self, batch: Batch) -> Batch:
        """Set the columns."""
        for name, value in self.values.items():
            batch = batch.with_column(name, pa.repeat(pa.scalar(value), batch.rows))
        return batch

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Append the columns, or replace those of their names."""
        for name, value in self.values.items():
            index, column = schema.get_field_index(name), pa.field(name, pa.scalar(value).type)
            schema = schema.append(column) if index < 0 else schema.set(index, column)
        return schema
