"""One small model per flavor and format, as its library and MLflow save it, and the library's own call."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from scoring import testing
from scoring.models.base import Files, FrozenModel
from scoring.registry import _described

EXTENSION = Path(__file__).parent / "extension"
"""Where the distribution `scoring-extension` is installed, so to speak."""
SEVERAL = 3
"""Numbers per row of models with several outputs: probabilities of three classes."""
NUMBERS = ("x", "y")
MIXED = ("city", "x", "y")

Native = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A model as a run freezes it, and the call of its own library that must give the same."""

    frozen: FrozenModel
    files: Files
    native: Native

    @property
    def columns(self) -> tuple[str, ...]:
        return self.frozen.columns


@dataclass(frozen=True)
class Kind:
    """A flavor in one of its formats."""

    flavor: str
    save: Callable[[Path, pd.DataFrame, int], Native]
    """Saves a model with so many outputs into a folder."""
    library: str
    """The module that the extra brings along."""
    needs_trust: bool = False


def frozen(folder: Path, *, trusted: bool = False) -> tuple[FrozenModel, Files]:
    """Return a saved model as the registry would freeze it."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    version = ModelVersion("model", "1", creation_timestamp=0)
    model = _described(version, files, ())
    return (_described(version, files, (model.digest,)) if trusted else model), files


def target(rows: pd.DataFrame, outputs: int) -> np.ndarray:
    """Return two classes, or as many as outputs."""
    return (rows["label"] if outputs == 1 else (rows["x"] > 0).astype(int) + (rows["y"] > 0)).to_numpy()


def positive(probabilities: np.ndarray, outputs: int) -> np.ndarray:
    return probabilities[:, 1] if outputs == 1 else probabilities


def matrix(frame: pd.DataFrame) -> np.ndarray:
    return frame.to_numpy(np.float32)


def tensor_signature(columns: int) -> ModelSignature:
    kind = np.dtype(np.float32)
    return ModelSignature(Schema([TensorSpec(kind, (-1, columns))]), Schema([TensorSpec(kind, (-1, 1))]))


def name_columns(folder: Path, frame: pd.DataFrame) -> None:
    """Give a model that was saved with a signature of tensors one with the columns' names."""
    saved = Model.load(str(folder))
    saved.signature = testing.signature(frame)
    saved.save(str(folder / "MLmodel"))


def weights(outputs: int) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(2, outputs)).astype(np.float32)


# ------------------------------------------------------------------------------------------------------- estimators


def save_sklearn(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    features = rows[list(MIXED)]
    prepare = ColumnTransformer(
        [("city", OneHotEncoder(handle_unknown="ignore"), ["city"]), ("numbers", SimpleImputer(), ["x", "y"])]
    )
    model = Pipeline([("prepare", prepare), ("logistic", LogisticRegression())]).fit(features, target(rows, outputs))
    mlflow.sklearn.save_model(
        model,
        str(folder),
        serialization_format="skops",
        skops_trusted_types=["numpy.dtype"],
        signature=testing.signature(features),
        pip_requirements=["scikit-learn"],
    )
    return lambda frame: positive(model.predict_proba(frame), outputs)


def save_xgboost(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    import xgboost

    features = rows[list(NUMBERS)]
    goal = {"objective": "binary:logistic"} if outputs == 1 else {"objective": "multi:softprob", "num_class": outputs}
    data = xgboost.DMatrix(features, target(rows, outputs))
    booster = xgboost.train({**goal, "nthread": 1, "max_depth": 3}, data, 10)
    mlflow.xgboost.save_model(
        booster,
        str(folder),
        model_format="ubj",
        signature=testing.signature(features),
        pip_requirements=["xgboost"],
    )
    return lambda frame: booster.predict(xgboost.DMatrix(frame))


def save_lightgbm(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    import lightgbm

    features = rows[list(MIXED)]
    goal = {"objective": "binary"} if outputs == 1 else {"objective": "multiclass", "num_class": outputs}
    data = lightgbm.Dataset(features.astype({"city": "category"}), target(rows, outputs))
    booster = lightgbm.train({**goal, "num_threads": 1, "num_leaves": 7, "verbosity": -1}, data, 10)
    mlflow.lightgbm.save_model(
        booster, str(folder), signature=testing.signature(features), pip_requirements=["lightgbm"]
    )
    return lambda frame: np.asarray(booster.predict(frame.astype({"city": "category"})))


def save_catboost(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    import catboost

    features = rows[list(MIXED)]
    model = catboost.CatBoostClassifier(
        iterations=10, depth=3, verbose=0, thread_count=1, cat_features=["city"], allow_writing_files=False
    )
    model.fit(features, target(rows, outputs))
    mlflow.catboost.save_model(model, str(folder), signature=testing.signature(features), pip_requirements=["catboost"])
    return lambda frame: positive(model.predict_proba(frame), outputs)


def save_onnx(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    import onnxruntime
    import skl2onnx
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    features = rows[list(NUMBERS)]
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(matrix(features), target(rows, outputs))
    graph = skl2onnx.to_onnx(model, matrix(features)[:1], options={"zipmap": False})
    mlflow.onnx.save_model(graph, str(folder), signature=testing.signature(features), pip_requirements=["onnxruntime"])
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    return lambda frame: positive(session.run(["probabilities"], {"X": matrix(frame)})[0], outputs)


# --------------------------------------------------------------------------------------------------------- networks


def torch_net(outputs: int) -> Any:
    import torch
    from scoring_extension.nets import Net

    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Net(outputs).eval()


def torch_native(net: Any) -> Native:
    import torch

    def native(frame: pd.DataFrame) -> np.ndarray:
        with torch.no_grad():
            result: np.ndarray = net(torch.from_numpy(matrix(frame))).numpy()
        return result

    return native


def save_torch(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    features, net = rows[list(NUMBERS)], torch_net(outputs)
    mlflow.pytorch.save_model(
        net,
        str(folder),
        serialization_format="pt2",
        signature=tensor_signature(2),
        input_example=matrix(features)[:5],
        pip_requirements=["torch"],
    )
    name_columns(folder, features)
    return torch_native(net)


def save_torchscript(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    import torch

    net = torch_net(outputs)
    with deprecated():
        mlflow.pytorch.save_model(
            torch.jit.trace(net, torch.zeros(2, 2)),
            str(folder),
            serialization_format="pickle",
            signature=testing.signature(rows[list(NUMBERS)]),
            pip_requirements=["torch"],
        )
    return torch_native(net)


def save_pickled_torch(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    net = torch_net(outputs)
    mlflow.pytorch.save_model(
        net,
        str(folder),
        serialization_format="pickle",
        signature=testing.signature(rows[list(NUMBERS)]),
        pip_requirements=["torch"],
    )
    return torch_native(net)


def save_safetensors(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    from scoring.models import safetensors

    net = torch_net(outputs)
    safetensors.save_model(
        path=str(folder),
        mlflow_model=Model(),
        module=net,
        signature=testing.signature(rows[list(NUMBERS)]),
        arguments={"outputs": outputs},
    )
    return torch_native(net)


def keras_net(outputs: int) -> Any:
    import keras

    inputs = keras.Input((2,))
    layer = keras.layers.Dense(outputs, activation="sigmoid" if outputs == 1 else "softmax")
    net = keras.Model(inputs, layer(keras.ops.nan_to_num(inputs)))
    layer.set_weights([weights(outputs), np.zeros(outputs)])
    return net


def save_keras_by(module: Any, folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    net, features = keras_net(outputs), rows[list(NUMBERS)]
    module.save_model(net, str(folder), signature=tensor_signature(2), pip_requirements=["tensorflow"])
    name_columns(folder, features)
    return lambda frame: np.asarray(net(matrix(frame), training=False))


def save_keras(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    return save_keras_by(mlflow.keras, folder, rows, outputs)


def save_tensorflow_keras(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    return save_keras_by(mlflow.tensorflow, folder, rows, outputs)


def save_savedmodel(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    import tensorflow as tf

    class Sums(tf.Module):
        """A linear layer in which missing numbers count as zero."""

        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(weights(outputs))

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
        def __call__(self, features: Any) -> Any:
            filled = tf.where(tf.math.is_nan(features), 0.0, features)
            return tf.matmul(filled, self.weights)

    module = Sums()
    mlflow.tensorflow.save_model(module, str(folder), signature=tensor_signature(2), pip_requirements=["tensorflow"])
    name_columns(folder, rows[list(NUMBERS)])
    return lambda frame: module(matrix(frame)).numpy()


# ----------------------------------------------------------------------------------------------------------- others


class Logistic(mlflow.pyfunc.PythonModel):
    """Any Python code: a formula on a frame."""

    def __init__(self, coefficients: np.ndarray) -> None:
        self.coefficients = coefficients

    def predict(self, context, model_input, params=None):  # noqa: ARG002 - MLflow's names
        # MLflow warns of type hints that are not its own.
        frame = model_input.fillna(0.0)
        sums = frame[["x"]].to_numpy() * self.coefficients[0] + frame[["y"]].to_numpy() * self.coefficients[1]
        return 1 / (1 + np.exp(-sums))


def save_python_function(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    model = Logistic(weights(outputs).astype(np.float64))
    features = rows[list(NUMBERS)]
    mlflow.pyfunc.save_model(
        str(folder),
        python_model=model,
        signature=testing.signature(features),
        input_example=features.head(3),
        pip_requirements=["mlflow"],
    )
    return lambda frame: model.predict(None, frame)


def save_extension(folder: Path, rows: pd.DataFrame, outputs: int) -> Native:
    from scoring_extension import flavor

    chosen = weights(outputs).astype(np.float64)
    flavor.save_model(
        path=str(folder),
        mlflow_model=Model(),
        weights=chosen,
        signature=testing.signature(rows[list(NUMBERS)]),
    )
    return lambda frame: np.nan_to_num(frame.to_numpy()) @ chosen


KINDS = {
    "sklearn": Kind("sklearn", save_sklearn, "sklearn"),
    "xgboost": Kind("xgboost", save_xgboost, "xgboost"),
    "lightgbm": Kind("lightgbm", save_lightgbm, "lightgbm"),
    "catboost": Kind("catboost", save_catboost, "catboost"),
    "pytorch": Kind("pytorch", save_torch, "torch"),
    "pytorch-torchscript": Kind("pytorch", save_torchscript, "torch", needs_trust=True),
    "pytorch-pickle": Kind("pytorch", save_pickled_torch, "torch", needs_trust=True),
    "pytorch-safetensors": Kind("safetensors", save_safetensors, "torch"),
    "tensorflow-keras": Kind("tensorflow", save_tensorflow_keras, "tensorflow"),
    "tensorflow-savedmodel": Kind("tensorflow", save_savedmodel, "tensorflow", needs_trust=True),
    "keras": Kind("keras", save_keras, "tensorflow"),
    "onnx": Kind("onnx", save_onnx, "onnxruntime"),
    "entry-point": Kind("weighted_sum", save_extension, "numpy"),
    "python_function": Kind("python_function", save_python_function, "mlflow", needs_trust=True),
}
"""By the name of the test."""


@contextmanager
def deprecated() -> Iterator[None]:
    """TorchScript warns of itself; models of it are there all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@contextmanager
def extension_installed() -> Iterator[None]:
    """The distribution `scoring-extension` can be found and imported."""
    sys.path.insert(0, str(EXTENSION))
    try:
        yield
    finally:
        sys.path.remove(str(EXTENSION))
