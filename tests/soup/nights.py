"""A labelled lake and a deployment whose training is told by the environment how to train."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from scoring import training
from scoring.deployment import Deployment, Period
from scoring.runs import RunRecord
from scoring.testing import MODEL, PARTITION, example_rows, write_deployment, write_partition

WINDOW = Period(first=date(2024, 1, 1), last=date(2024, 1, 10))
HOLDOUT = Period(first=date(2024, 1, 11), last=date(2024, 1, 15))
NIGHT_ROWS = 120
STRENGTH, RATE, UNITS = "TEST_STRENGTH", "TEST_RATE", "TEST_UNITS"
LINEAR = f"""
import os

import mlflow
from sklearn.linear_model import LogisticRegression

from scoring.testing import signature


def train(window):
    frame = window.frame[["x", "y"]]
    model = LogisticRegression(C=float(os.environ["{STRENGTH}"])).fit(frame, window.frame[window.label])
    logged = mlflow.sklearn.log_model(
        model, name="model", serialization_format="skops", skops_trusted_types=["numpy.dtype"],
        signature=signature(frame), pip_requirements=["scikit-learn"],
    )
    return {{"{MODEL}": logged.model_uri}}
"""
NET = f"""
import os

import mlflow
import numpy as np
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from scoring.testing import signature


def train(window):
    frame = window.frame[["x", "y"]]
    with torch.random.fork_rng():
        torch.manual_seed(window.seed)  # all versions are fine-tuned from the same start
        units = int(os.environ.get("{UNITS}", "8"))
        net = torch.nn.Sequential(
            torch.nn.Linear(2, units), torch.nn.BatchNorm1d(units), torch.nn.ReLU(), torch.nn.Linear(units, 1),
            torch.nn.Flatten(0), torch.nn.Sigmoid(),
        )
    features = torch.from_numpy(frame.to_numpy(np.float32))
    labels = torch.from_numpy(window.frame[window.label].to_numpy(np.float32))
    optimizer = torch.optim.SGD(net.parameters(), lr=float(os.environ["{RATE}"]), momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy(net(features), labels).backward()
        optimizer.step()
    dtype = np.dtype(np.float32)
    logged = mlflow.pytorch.log_model(
        net.eval(), name="net", serialization_format="pt2", pip_requirements=["torch"],
        signature=ModelSignature(Schema([TensorSpec(dtype, (-1, 2))]), Schema([TensorSpec(dtype, (-1,))])),
        input_example=frame.head(5).to_numpy(dtype),
    )
    mlflow.models.set_signature(logged.model_uri, signature(frame))
    return {{"{MODEL}": logged.model_uri}}
"""


def write_lake(home: Path) -> None:
    """Write fifteen labelled nights."""
    for day in range(1, 16):
        rows = example_rows(NIGHT_ROWS, seed=day, first_id=1000 * day)
        night = f"2024-01-{day:02d}"
        write_partition(home / "lake", PARTITION, night, rows.drop_columns(["label"]))
        write_partition(home / "labels", PARTITION, night, rows.select(["id", "label"]))


def write(home: Path, train: str, **overrides: Any) -> Deployment:
    """Write the deployment with a training module."""
    labels = {"path": "${SCORING_HOME}/labels", "column": "label", "delay_days": 2}
    sections: dict[str, Any] = {
        "drift": {"reference": {"first": str(WINDOW.first), "last": str(WINDOW.last)}, "labels": labels},
        "retrain": {"train": "train:train"},
    }
    return write_deployment(home / "deployments" / "example", files={"train.py": train}, **{**sections, **overrides})


def trained(deployment: Deployment, patch: pytest.MonkeyPatch, **settings: object) -> list[RunRecord]:
    """Train once for each value of the one variable in `settings`."""
    ((variable, values),) = settings.items()
    runs = []
    for value in values:  # type: ignore[attr-defined]
        patch.setenv(variable, str(value))
        runs.append(training.train(deployment, WINDOW, HOLDOUT))
    return runs
