from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
import xgboost
from sklearn.metrics import roc_auc_score

from scoring import runs, settings
from tests.flights.partitions import load_module, read

MODELS = ["flight_delay_linear", "flight_delay_trees", "flight_delay_net"]
WEIGHTS = dict(zip(MODELS, (0.2, 0.5, 0.3), strict=True))


@dataclass(frozen=True)
class Window:
    """What `train` reads of a TrainingWindow."""

    frame: pd.DataFrame
    label: str = "is_late"
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    uris: dict[str, str]
    folders: dict[str, Path]


def labelled(lake: Path, rules: ModuleType, first: str, last: str) -> pd.DataFrame:
    features = rules.add_codes(rules.add_calendar(read(lake, "flights", first, last))).to_pandas()
    labels = read(lake, "labels", first, last).to_pandas()
    return features.merge(labels[["flight_id", "is_late"]], on="flight_id")


@pytest.fixture(scope="module")
def train_module() -> ModuleType:
    return load_module("train")


@pytest.fixture(scope="module")
def april(lake: Path, rules: ModuleType) -> pd.DataFrame:
    return labelled(lake, rules, "2013-04-01", "2013-04-30")


@pytest.fixture(scope="module")
def trained(train_module: ModuleType, lake: Path, rules: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("home")
    window = Window(labelled(lake, rules, "2013-01-01", "2013-03-31"))
    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(settings.HOME_VARIABLE, str(home))
        client = runs.client()
        experiment = client.create_experiment("flights", artifact_location=(home / "artifacts").as_uri())
        with mlflow.start_run(experiment_id=experiment):
            uris = train_module.train(window)
        folders = {name: Path(mlflow.artifacts.download_artifacts(uri)) for name, uri in uris.items()}
        yield Trained(uris, folders)
    mlflow.set_tracking_uri(before)


def predict_natively(name: str, folder: Path, module: ModuleType, frame: pd.DataFrame) -> np.ndarray:
    """Predict with the framework alone, from the bytes of the artifact."""
    if name == "flight_delay_linear":
        model = skops.io.loads((folder / "model.skops").read_bytes(), trusted=["numpy.dtype"])
        return model.predict_proba(frame[list(module.LINEAR_COLUMNS)])[:, 1]
    matrix = frame[list(module.MATRIX_COLUMNS)].to_numpy(dtype=np.float32)
    if name == "flight_delay_trees":
        booster = xgboost.Booster()
        booster.load_model(bytearray((folder / "model.ubj").read_bytes()))
        return booster.inplace_predict(matrix, validate_features=False)
    program = torch.export.load(io.BytesIO((folder / "data" / "model.pt2").read_bytes()))
    with torch.inference_mode():
        return program.module()(torch.from_numpy(matrix)).numpy()


def test_train_names_the_models_of_the_graph(trained: Trained) -> None:
    assert list(trained.uris) == MODELS
    assert all(uri.startswith("models:/m-") for uri in trained.uris.values())


@pytest.mark.parametrize("name", MODELS)
def test_signature_names_columns_and_says_which_can_be_null(
    trained: Trained, train_module: ModuleType, name: str
) -> None:
    inputs = mlflow.models.get_model_info(trained.uris[name]).signature.inputs
    names = train_module.LINEAR_COLUMNS if name == "flight_delay_linear" else train_module.MATRIX_COLUMNS
    assert inputs.input_names() == list(names)
    assert {column.name for column in inputs if not column.required} == set(train_module.MEASURED)
    assert {column.type.name for column in inputs if not column.required} == {"double"}
    assert {column.type.name for column in inputs if column.required} <= {"string", "integer"}


@pytest.mark.parametrize("name", MODELS)
def test_artifact_holds_no_pickle_and_has_an_example(trained: Trained, name: str) -> None:
    files = {path.name for path in trained.folders[name].rglob("*") if path.is_file()}
    assert "input_example.json" in files
    assert not [file for file in files if file.endswith((".pkl", ".pth", ".pickle", ".joblib"))]


@pytest.mark.parametrize("name", MODELS)
def test_framework_alone_and_mlflow_agree(
    trained: Trained, train_module: ModuleType, april: pd.DataFrame, name: str
) -> None:
    model = mlflow.pyfunc.load_model(trained.uris[name])
    columns = model.metadata.get_input_schema().input_names()
    expected = np.asarray(model.predict(april[columns]))
    expected = expected[:, -1] if expected.ndim == 2 else expected
    found = predict_natively(name, trained.folders[name], train_module, april)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", MODELS)
def test_models_predict_rows_without_weather_and_with_names_never_seen(
    trained: Trained, train_module: ModuleType, april: pd.DataFrame, name: str
) -> None:
    strange = april.head(3).assign(
        **dict.fromkeys(train_module.MEASURED, np.nan), carrier="ZZ", dest="ÄÖÜ", carrier_code=4095, dest_code=0
    )
    for rows in (3, 2, 1):
        found = predict_natively(name, trained.folders[name], train_module, strange.head(rows))
        assert found.shape == (rows,)
        assert ((found > 0) & (found < 1)).all()


def test_net_takes_no_rows(trained: Trained, train_module: ModuleType, april: pd.DataFrame) -> None:
    name = "flight_delay_net"
    assert predict_natively(name, trained.folders[name], train_module, april.head(0)).shape == (0,)


def test_models_rank_the_flights_of_april(trained: Trained, train_module: ModuleType, april: pd.DataFrame) -> None:
    scores = {name: predict_natively(name, trained.folders[name], train_module, april) for name in MODELS}
    scores["ensemble"] = sum(WEIGHTS[name] * scores[name] for name in MODELS)
    found = {name: float(roc_auc_score(april["is_late"], score)) for name, score in scores.items()}
    print({name: round(value, 4) for name, value in found.items()})
    assert min(found.values()) > 0.62
    assert found["ensemble"] > 0.64


def test_same_window_gives_the_same_trees_and_net(train_module: ModuleType, lake: Path, rules: ModuleType) -> None:
    frame = labelled(lake, rules, "2013-01-01", "2013-01-07")
    matrix = frame[list(train_module.MATRIX_COLUMNS)].to_numpy(dtype=np.float32)
    late = frame["is_late"].to_numpy(dtype=np.int64)
    trees = [train_module.fit_trees(matrix, late, seed=3).save_raw("ubj") for _ in range(2)]
    assert trees[0] == trees[1]
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    nets = [train_module.fit_net(matrix, late, seed=seed) for seed in (3, 3, 4)]
    with torch.inference_mode():
        first, again, other = (net(torch.from_numpy(matrix)) for net in nets)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_column_without_any_value_can_be_trained_on(train_module: ModuleType, lake: Path, rules: ModuleType) -> None:
    frame = labelled(lake, rules, "2013-01-01", "2013-01-03").assign(wind_gust=np.nan)
    late = frame["is_late"].to_numpy(dtype=np.int64)
    matrix = frame[list(train_module.MATRIX_COLUMNS)].to_numpy(dtype=np.float32)
    linear = train_module.fit_linear(frame, late, seed=0).predict_proba(frame)[:, 1]
    net = train_module.fit_net(matrix, late, seed=0)
    with torch.inference_mode():
        assert torch.isfinite(net(torch.from_numpy(matrix))).all()
    assert np.isfinite(linear).all()
