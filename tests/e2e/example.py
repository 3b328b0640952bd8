"""A small deployment and what is done with it: the functions of the Dag's tasks, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from scoring import nightly
from scoring.deployment import Deployment
from scoring.runs import RunRecord
from scoring.testing import PARTITION, Registered, example_rows, write_partition

NIGHT = "2024-02-29"
ROWS = 400
RULES = """
import pyarrow as pa
import pyarrow.compute as pc


def add_sum(batch: pa.Table) -> pa.Table:
    return batch.append_column("sum", pc.add(batch["x"], batch["y"]))
"""
INPUT_SUITE = """
expectations:
  - {type: expect_column_values_to_be_in_set, kwargs: {column: city, value_set: [Oslo, Lima, Kyoto]}, severity: warning}
"""
OUTPUT_SUITE = """
expectations:
  - {type: expect_column_values_to_be_between, kwargs: {column: score, min_value: 0, max_value: 1}, severity: critical}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: score}, severity: critical}
"""


@dataclass(frozen=True)
class Site:
    """A deployment with its folder, input and model."""

    deployment: Deployment
    model: Registered
    lake: Path
    rewrite: Callable[..., Deployment]

    def run(self, night: str = NIGHT, **options: str) -> RunRecord:
        """Score, check and publish, as the Dag's tasks do."""
        nightly.score(self.deployment, night, **options)
        nightly.check(self.deployment, night)
        return nightly.publish(self.deployment, night)

    def put(self, table: pa.Table, night: str = NIGHT, **layout: int) -> Path:
        """Write a partition."""
        return write_partition(self.lake, PARTITION, night, table, **layout)

    def published(self) -> list[dict[str, object]]:
        """Return what readers see, in order of the keys; nothing if there is no table."""
        path = self.deployment.output.path
        if not DeltaTable.is_deltatable(path):
            return []
        return DeltaTable(path).to_pyarrow_table().sort_by([(PARTITION, "ascending"), ("id", "ascending")]).to_pylist()


def night_rows(seed: int = 7) -> pa.Table:
    """Return the rows of one night, without label."""
    return example_rows(ROWS, seed=seed).drop_columns(["label"])
