"""The deployment's folder, its modules, and partitions of a lake."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.dataset as ds

FOLDER = Path(__file__).parents[2] / "dags" / "deployments" / "flight_delays"
PARTITIONING = ds.partitioning(pa.schema([("flight_date", pa.string())]), flavor="hive")


def load_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"flight_delays_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(lake: Path, table: str, first: str, last: str) -> pa.Table:
    """Rows of the partitions from `first` to `last`, with `flight_date` as text."""
    day = ds.field("flight_date")
    return ds.dataset(lake / table, partitioning=PARTITIONING).to_table(filter=(day >= first) & (day <= last))
