"""Updates of one model's bytes, against the plain libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io
import torch
import xgboost
from sklearn.compose import make_column_transformer
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

from scoring.batch import Batch
from scoring.deployment import Online
from scoring.errors import ModelError
from scoring.models.base import Files, FrozenModel
from scoring.models.cache import PredictorCache
from scoring.models.online.update import Rows, updated
from scoring.models.sklearn import TRUSTED_TYPES
from scoring.registry import Registry
from scoring.testing import (
    FEATURES,
    Registered,
    example_rows,
    register_sklearn,
    register_torch,
    register_xgboost,
)

ONLINE = Online(after="labels", passes=2, learning_rate=0.1, rounds=3, max_depth=2)
SEED = 5
COLUMNS = [*FEATURES, "city"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(len(FEATURES), 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.layers(features)).squeeze(1)


def frame(rows: pa.Table, columns: list[str]) -> pd.DataFrame:
    return rows.select(columns).to_pandas()


def sgd(rows: pa.Table) -> Registered:
    columns = make_column_transformer((OneHotEncoder(), ["city"]), (StandardScaler(), list(FEATURES)))
    model = make_pipeline(columns, SGDClassifier(loss="log_loss", alpha=0.01, random_state=3))
    return register_sklearn("sgd", frame(rows, COLUMNS), rows["label"].to_numpy(), estimator=model)


def bayes(rows: pa.Table) -> Registered:
    return register_sklearn("bayes", frame(rows, [*FEATURES]), rows["label"].to_numpy(), estimator=GaussianNB())


def perceptron(rows: pa.Table) -> Registered:
    model = MLPClassifier((4,), max_iter=20, random_state=3, early_stopping=False)
    with pytest.warns(match="Maximum iterations"):
        return register_sklearn("mlp", frame(rows, [*FEATURES]), rows["label"].to_numpy(), estimator=model)


def trees(rows: pa.Table) -> Registered:
    data = frame(rows, [*FEATURES])
    matrix = xgboost.DMatrix(data, rows["label"].to_numpy())
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, matrix, 5)
    return register_xgboost("trees", data, booster)


def net(rows: pa.Table) -> Registered:
    return register_torch("net", frame(rows, [*FEATURES]).astype("float32"), Net().eval())


MODELS = [sgd, bayes, perceptron, trees, net]


def learned_natively(found: Registered, rows: Rows, table: pa.Table) -> Callable[[pa.Table], np.ndarray]:
    """Teach the native model the same rows with its own library; return what then predicts."""
    random = np.random.default_rng(SEED)
    match found.native:
        case xgboost.Booster() as booster:
            data = xgboost.DMatrix(frame(table, [*FEATURES]), rows.labels)
            parameters = {"objective": "binary:logistic", "eta": 0.1, "max_depth": 2, "nthread": 1, "seed": SEED}
            grown = xgboost.train(parameters, data, 3, xgb_model=booster)
            return lambda batch: grown.predict(xgboost.DMatrix(frame(batch, [*FEATURES])))
        case Net() as module:
            module = Net()
            generator = torch.Generator().manual_seed(SEED)
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
            features = torch.tensor(frame(table, [*FEATURES]).to_numpy(np.float32))
            labels = torch.tensor(rows.labels, dtype=torch.float32)
            for _ in range(2):
                for chosen in torch.randperm(len(labels), generator=generator).split(256):
                    optimizer.zero_grad()
                    nn.functional.binary_cross_entropy(module(features[chosen]), labels[chosen]).backward()
                    optimizer.step()
            return lambda batch: module(torch.tensor(frame(batch, [*FEATURES]).to_numpy(np.float32))).detach().numpy()
        case model:
            columns = list(model.feature_names_in_)
            *steps, (_, last) = model.steps if hasattr(model, "steps") else [("only", model)]
            inputs = frame(table, columns)
            for _, step in steps:
                inputs = step.transform(inputs)
            for _ in range(2):
                order = random.permutation(len(rows.labels))
                chosen = inputs.iloc[order] if isinstance(inputs, pd.DataFrame) else inputs[order]
                last.partial_fit(chosen, rows.labels[order].astype(np.int64))
            return lambda batch: model.predict_proba(frame(batch, columns))[:, 1]


@pytest.fixture
def rows() -> pa.Table:
    return example_rows(700, seed=1)


@pytest.mark.parametrize("make", MODELS)
def test_a_model_learns_what_its_library_would_teach_it(
    home: Path, rows: pa.Table, make: Callable[[pa.Table], Registered]
) -> None:
    found = make(rows)
    model, files = Registry().pinned(found.name, 1)
    night = example_rows(600, seed=2)
    given = Rows(Batch(night), night["label"].to_numpy().astype(float), SEED)
    after = updated(model, files, given, ONLINE)
    other = example_rows(300, seed=3)
    seen, before = predictions(model, after, other), predictions(model, files, other)
    np.testing.assert_allclose(seen, learned_natively(found, given, night)(other), rtol=1e-5)
    assert np.abs(seen - before).max() > 1e-3


@pytest.mark.parametrize("make", MODELS)
def test_the_same_rows_give_the_same_bytes(
    home: Path, rows: pa.Table, make: Callable[[pa.Table], Registered], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make(rows)
    model, files = Registry().pinned(found.name, 1)
    given = Rows(Batch(rows), rows["label"].to_numpy().astype(float), SEED)
    first = updated(model, files, given, ONLINE)
    ballast = [object() for _ in range(1000)]  # objects get other addresses
    monkeypatch.setattr("time.time", lambda: 1e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2001, 9, 9, 1, 46, 40, 6, 252, 0))
    assert dict(updated(model, files, given, ONLINE)) == dict(first)
    assert set(first) == set(files)
    assert len(ballast) == 1000
    other = updated(model, files, replace(given, seed=SEED + 1), ONLINE)
    assert predictions(model, other, rows).shape == (700,)


def test_stable_bytes_are_a_skops_file_of_the_same_model(home: Path, rows: pa.Table) -> None:
    found = sgd(rows)
    model, files = Registry().pinned(found.name, 1)
    given = Rows(Batch(rows), rows["label"].to_numpy().astype(float), SEED)
    content = updated(model, files, given, ONLINE)[model.conf["pickled_model"]]
    assert set(skops.io.get_untrusted_types(data=content)) <= TRUSTED_TYPES


def test_a_model_that_cannot_go_on_learning_is_refused(home: Path, rows: pa.Table) -> None:
    found = register_sklearn("fixed", frame(rows, [*FEATURES]), rows["label"].to_numpy())
    model, files = Registry().pinned(found.name, 1)
    given = Rows(Batch(rows), rows["label"].to_numpy().astype(float), SEED)
    with pytest.raises(ModelError, match=r"expected an estimator with partial_fit.*got LogisticRegression"):
        updated(model, files, given, ONLINE)
    with pytest.raises(ModelError, match=r"cannot learn online: expected flavor sklearn, xgboost, pytorch, got onnx"):
        updated(replace(model, flavor="onnx"), files, given, ONLINE)


def predictions(model: FrozenModel, files: Files | Mapping[str, bytes], table: pa.Table) -> np.ndarray:
    from scoring.models.base import digest_of

    loaded = PredictorCache().get(replace(model, digest=digest_of(files)), files)
    return loaded.predict(Batch(table))
