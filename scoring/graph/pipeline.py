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
    def output(self) -> str | None:
        """The output of the last step that has one."""
        return next((step.output for step in reversed(self.steps) if step.output is not None), None)

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
