"""Steps one after another."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from scoring.batch import Batch
from scoring.graph.step import Step


@dataclass(frozen=True)
class Pipeline:
    """Each step sees the columns of all steps before it."""

    steps: tuple[Step, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the last step that has some."""
        return next(filter(None, (step.outputs for step in reversed(self.steps))), ())

    def run(self, batch: Batch) -> Batch:
        """Run all steps in order."""
        for step in self.steps:
            batch = step.run(batch)
        return batch

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Pass the schema through all steps."""
        for step in self.steps:
            schema = step.schema(schema)
        return schema
