"""Airflow parses deployments all day: the light part of the library must stay light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
HEAVY = {
    *("airflow", "catboost", "evidently", "great_expectations", "keras", "lightgbm", "matplotlib", "onnxruntime"),
    *("pandas", "pyspark", "safetensors", "sklearn", "skops", "tensorflow", "torch", "xgboost"),
}
STORES = {"deltalake", "duckdb", "mlflow", "numpy", "pyarrow"}


def imported_by(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(name.split('.')[0] for name in sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, cwd=PROJECT
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", ["scoring", "scoring.errors", "scoring.settings", "scoring.addresses"])
def test_values_and_errors_import_the_standard_library_only(module: str) -> None:
    assert not imported_by(f"import {module}") & (HEAVY | STORES | {"pydantic", "yaml"})


def test_deployments_are_read_without_any_heavy_library() -> None:
    assert not imported_by("import scoring.deployment") & (HEAVY | STORES)


@pytest.mark.parametrize("module", ["scoring.runs", "scoring.registry", "scoring.status"])
def test_run_records_import_no_framework_and_mlflow_only_when_it_is_asked(module: str) -> None:
    assert not imported_by(f"import {module}") & (HEAVY | {"mlflow"})


@pytest.mark.parametrize("module", ["scoring.graph.compile", "scoring.scorer", "scoring.models.flavors"])
def test_scoring_imports_no_framework_before_a_model_needs_it(module: str) -> None:
    assert not imported_by(f"import {module}") & (HEAVY | {"mlflow"})
