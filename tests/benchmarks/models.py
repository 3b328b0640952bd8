"""Trains the models once, registers them in MLflow as a deployment needs them, and keeps their native files."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scoring.errors import ScoringError
from scoring.registry import CHAMPION, Registry
from scoring.testing import register_sklearn, register_torch, register_xgboost
from tests.benchmarks.cases import Case, Dataset, registered_name
from tests.benchmarks.data import random_rows
from tests.benchmarks.places import Places

TRAINING_ROWS = 20_000
CATEGORIES = (5, 20, 50, 100, 200)
COMPLETE = "complete"


def prepare(case: Case, places: Places) -> None:
    """Train, register and keep the models of a case that are not there yet."""
    registry = Registry()
    for name in case.models:
        folder = places.model(name)
        if (folder / COMPLETE).exists() and registry.aliased(registered_name(name), CHAMPION) is not None:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        MODELS[name](registered_name(name), folder)
        (folder / COMPLETE).touch()


def training_rows(dataset: Dataset) -> tuple[pd.DataFrame, Any]:
    """Return a frame of features with a label that follows from some of them, and the label."""
    frame = random_rows(dataset, TRAINING_ROWS, first=0, seed=0).to_pandas().drop(columns="id")
    random = np.random.default_rng(7)
    signal = frame["x000"] + frame["x001"] * frame["x002"] + 0.5 * np.abs(frame["x003"])
    for name in dataset.category_columns:
        signal += frame[name].str.len() - frame[name].str.len().mean()
    label = (signal + random.normal(scale=0.5, size=len(frame)) > 0).astype(int).to_numpy()
    return frame.assign(label=label), label


def _features(dataset: Dataset) -> tuple[pd.DataFrame, Any]:
    frame, label = training_rows(dataset)
    return frame.drop(columns="label"), label


def _logistic(numbers: int) -> Callable[[str, Path], None]:
    def make(name: str, folder: Path) -> None:
        frame, label = _features(Dataset(rows=0, numbers=numbers))
        estimator = register_sklearn(name, frame, label).native
        # Natively it is given matrices, which have no names.
        del estimator.feature_names_in_
        (folder / "model.pickle").write_bytes(pickle.dumps(estimator))

    return make


def _categories(name: str, folder: Path) -> None:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    dataset = Dataset(rows=0, numbers=10, categories=CATEGORIES)
    frame, label = _features(dataset)
    encode = ColumnTransformer(
        [
            ("numbers", StandardScaler(), dataset.number_columns),
            ("categories", OneHotEncoder(handle_unknown="ignore"), dataset.category_columns),
        ]
    )
    estimator = make_pipeline(encode, LogisticRegression(max_iter=200))
    register_sklearn(name, frame, label, estimator=estimator)
    (folder / "model.pickle").write_bytes(pickle.dumps(estimator))


def _xgboost(trees: int, *, seed: int = 0, reads_score: bool = False) -> Callable[[str, Path], None]:
    def make(name: str, folder: Path) -> None:
        import xgboost

        frame, label = _features(Dataset(rows=0))
        if reads_score:
            frame = frame.assign(score=np.random.default_rng(seed).random(len(frame), dtype=np.float32))
        parameters = {"objective": "binary:logistic", "max_depth": 6, "seed": seed, "subsample": 0.8}
        booster = xgboost.train(parameters, xgboost.DMatrix(frame, label), num_boost_round=trees)
        register_xgboost(name, frame, booster)
        booster.save_model(folder / "model.ubj")

    return make


def _torch_mlp(name: str, folder: Path) -> None:
    import torch

    frame, label = _features(Dataset(rows=0))
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(30, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 1),
        torch.nn.Sigmoid(),
        torch.nn.Flatten(0),
    )
    inputs, target = torch.from_numpy(frame.to_numpy()), torch.from_numpy(label.astype(np.float32))
    optimizer = torch.optim.Adam(module.parameters())
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy(module(inputs), target).backward()
        optimizer.step()
    module.eval()
    model = register_torch(name, frame, module)
    (folder / "model.pt2").write_bytes(_pt2(model.name, model.version))


def _pt2(name: str, version: int) -> bytes:
    """Return the exported program as it is registered, so that every way runs the same one."""
    import mlflow

    path = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}")) / "data" / "model.pt2"
    if not path.exists():
        raise ScoringError(f"MLflow kept no exported program of {name!r}", str(path), "none")
    return path.read_bytes()


MODELS: dict[str, Callable[[str, Path], None]] = {
    "light": _logistic(30),
    "narrow": _logistic(10),
    "wide": _logistic(300),
    "categories": _categories,
    "xgboost_100": _xgboost(100),
    "xgboost_500": _xgboost(500),
    "torch_mlp": _torch_mlp,
    **{f"chain_{number}": _xgboost(40, seed=number, reads_score=number > 1) for number in range(1, 6)},
}
"""Model to the function that trains it, registers it under a name and keeps its native file in a folder."""
