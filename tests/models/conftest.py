"""One registered model per flavor, logged by MLflow once per session."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from scoring import settings, testing
from scoring.models.base import Files, FrozenModel
from scoring.registry import Registry

Native = Callable[[pd.DataFrame], np.ndarray]
FLAVORS = ("sklearn", "xgboost", "torch")


@dataclass(frozen=True)
class Case:
    """A registered model, and the call of its own library that must give the same."""

    columns: tuple[str, ...]
    frozen: FrozenModel
    files: Files
    native: Native


class Net(torch.nn.Module):
    """Fills missing numbers with zero, then a linear layer and a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.register_buffer("filler", torch.zeros(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        filled = torch.where(torch.isnan(features), self.filler, features)
        return torch.sigmoid(self.linear(filled)).squeeze(1)


def log_sklearn(rows: pd.DataFrame) -> tuple[testing.Registered, tuple[str, ...], Native]:
    columns = ("city", "x", "y")
    prepare = ColumnTransformer(
        [("city", OneHotEncoder(handle_unknown="ignore"), ["city"]), ("numbers", SimpleImputer(), ["x", "y"])]
    )
    model = Pipeline([("prepare", prepare), ("logistic", LogisticRegression())])
    found = testing.register_sklearn("sklearn_model", rows[list(columns)], rows["label"], estimator=model)
    return found, columns, lambda frame: found.native.predict_proba(frame)[:, 1]


def log_xgboost(rows: pd.DataFrame) -> tuple[testing.Registered, tuple[str, ...], Native]:
    columns = ("x", "y")
    data = xgboost.DMatrix(rows[list(columns)], rows["label"])
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1, "max_depth": 3}, data, 10)
    found = testing.register_xgboost("xgboost_model", rows[list(columns)], booster)
    return found, columns, lambda frame: booster.predict(xgboost.DMatrix(frame))


def log_torch(rows: pd.DataFrame) -> tuple[testing.Registered, tuple[str, ...], Native]:
    columns = ("x", "y")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Net().eval()
    found = testing.register_torch("torch_model", rows[list(columns)], net)

    def native(frame: pd.DataFrame) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(frame.to_numpy(np.float32))).numpy()

    return found, columns, native


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Mapping[str, Case]:
    """Model, files and native call by flavor."""
    home = tmp_path_factory.mktemp("models")
    shutil.copy(mlflow_template, home / "mlflow.db")
    loggers: dict[str, Any] = {"sklearn": log_sklearn, "xgboost": log_xgboost, "torch": log_torch}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(settings.HOME_VARIABLE, str(home))
        rows = testing.example_rows(400, seed=11).to_pandas()
        found = {}
        for flavor, log in loggers.items():
            registered, columns, native = log(rows)
            deployment = testing.write_deployment(
                home / "deployments" / flavor, score={"model": f"models:/{registered.name}@champion"}
            )
            models, files = Registry().freeze(deployment)
            (frozen,) = models.values()
            found[flavor] = Case(columns, frozen, files[frozen.digest], native)
    return found


@pytest.fixture(params=FLAVORS)
def case(request: pytest.FixtureRequest, cases: Mapping[str, Case]) -> Case:
    """The test runs once per flavor."""
    return cases[request.param]
