"""What every step can do."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from scoring.batch import Batch


class Step(Protocol):
    """A node of the scoring graph. Keeps rows and their order."""

    @property
    def output(self) -> str | None:
        """The column that an ensemble would combine; None for a rule."""
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
