"""The README's examples are those of the product: each YAML is read, and business logic does what the text says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from scoring import settings
from scoring.cli import execute
from scoring.deployment import Deployment, load
from scoring.testing import FunctionPredictor, frozen_model, make_graph, write_deployment

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
EXAMPLES = [
    yaml.safe_load(text)
    for text in re.findall(r"^```yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    if not text.startswith("input:")
]
SOURCES = re.findall(r"^(input: .*?)(?: +#.*)?$", README, re.MULTILINE)
SUITE = """
expectations:
  - {type: expect_column_values_to_not_be_null, kwargs: {column: flight_id}, severity: critical}
"""
RULES = "def add_calendar(batch):\n    return batch\n"


LABELLED = {
    "reference": {"first": "2024-01-01", "last": "2024-01-31"},
    "labels": {"path": "${SCORING_HOME}/labels", "column": "late"},
}
"""What a section that learns from labels needs beside it."""


def written(home: Path, document: dict[str, Any]) -> Deployment:
    files = {
        "rules.py": RULES,
        **dict.fromkeys(("expectations/input.yaml", "expectations/output.yaml"), SUITE),
    }
    sections = {key: value for key, value in document.items() if key != "name"}
    if "online" in sections:
        sections = {"drift": LABELLED, **sections}
    return write_deployment(home / "deployments" / document.get("name", "example"), files=files, **sections)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(settings.HOME_VARIABLE, str(tmp_path))
    monkeypatch.setenv(settings.DEPLOYMENTS_VARIABLE, str(tmp_path / "deployments"))
    return tmp_path


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_yaml_is_valid(folders: Path, number: int) -> None:
    found = written(folders, EXAMPLES[number])
    assert execute.validate([found.name]) == [{"deployment": found.name, "error": None}]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_valid(folders: Path, source: str) -> None:
    document = yaml.safe_load(source)
    file = folders / "deployments" / "example" / "deployment.yaml"
    write_deployment(file.parent)
    text = yaml.safe_load(file.read_text("utf-8")) | document
    file.write_text(yaml.safe_dump(text), "utf-8")
    assert load("example").input.partition == "day"


def test_there_are_examples_of_every_pattern() -> None:
    patterns = {next(iter(example["score"])) for example in EXAMPLES if "score" in example}
    assert patterns == {"pipeline", "ensemble"}
    assert len(SOURCES) == 3
    steps = str([example["score"] for example in EXAMPLES if "score" in example])
    assert all(f"'{kind}'" in steps for kind in ("model", "rule", "route", "values", "inputs", "outputs"))


def test_overrides_caps_floors_and_reason_codes_do_what_the_text_says() -> None:
    score = next(e["score"] for e in EXAMPLES if "limit@champion" in str(e.get("score")))
    rows = pa.table(
        {
            "id": [1, 2, 3, 4, 5],
            "income": [30.0, 30.0, 9_000.0, 1.0, 30.0],
            "country": ["NO", "NO", "DE", "DE", None],
            "is_blocked": [True, False, False, False, None],
        }
    )

    def times(factor: float) -> FunctionPredictor:
        return FunctionPredictor(lambda batch: batch.table["income"].to_numpy() * factor)

    models = {
        f"models:/{name}@champion": (frozen_model(name, {"income": "double"}), times(factor))
        for name, factor in (("limit", 10.0), ("limit_north", 20.0))
    }
    graph = make_graph(score, models=models)
    result = graph.run(rows)
    assert result.schema == graph.step.schema(rows.schema)
    found = list(zip(result["id"].to_pylist(), result["amount"].to_pylist(), result["reason"].to_pylist(), strict=True))
    assert found == [
        (1, 100.0, "blocked"),  # the floor is the last word, as the order of the steps says
        (2, 600.0, "north"),
        (3, 5_000.0, "cap"),
        (4, 100.0, "model"),
        (5, 300.0, "model"),
    ]
    assert np.isfinite(result["amount"].to_numpy()).all()
