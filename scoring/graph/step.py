"""What every step can do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import pyarrow as pa

from scoring.batch import Batch


class Step(Protocol):
    """A node of the scoring graph. Keeps rows and their order."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The columns that an ensemble would combine; none for a rule."""
        ...

    def run(self, batch: Batch) -> Batch:
        """Return `batch` with this step's columns.

        Raises:
            ContractError: the batch does not fit the step, or the step breaks the batch.
            ModelError: a model failed.
        """
        ...

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of `run`'s result for a batch of `schema`, without loading a model.

        Raises:
            ContractError: a batch of `schema` does not fit the step.
        """
        ...


def with_outputs(schema: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """Return a schema with columns of doubles, each in the place of one of its name or else at the end."""
    for name in names:
        index, column = schema.get_field_index(name), pa.field(name, pa.float64())
        schema = schema.append(column) if index < 0 else schema.set(index, column)
    return schema
