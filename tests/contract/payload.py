"""Model files that run code: each leaves a file behind when its code ran, and holds a model that works."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import mlflow
import numpy as np
import pandas as pd
import skops.io
import torch
from mlflow.models import Model
from safetensors.torch import save
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from scoring import testing
from tests.contract.models import deprecated, name_columns, tensor_signature

FEATURES = ("x", "y")


class Touches:
    """Creates a file when it is unpickled, and becomes a value."""

    def __init__(self, marker: Path, value: Any = None) -> None:
        self.marker = marker
        self.value = value

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path, Any]]:
        return touch, (self.marker, self.value)


def touch(marker: Path, value: Any) -> Any:
    """Create the file and return the value."""
    marker.touch()
    return value


class TouchingRegression(LogisticRegression):
    """Creates a file when skops restores it."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        Path("code-ran").touch()


class TouchingNet(torch.nn.Module):
    """Creates a file when it is constructed; no distribution offers it."""

    def __init__(self) -> None:
        super().__init__()
        Path("code-ran").touch()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear(features)


class WritingNet(torch.nn.Module):
    """Writes a file when it predicts, as TorchScript can."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        torch.save(features, "code-ran")
        return features[:, 0]


def described(folder: Path, flavor: str, conf: dict[str, Any], files: dict[str, bytes], rows: pd.DataFrame) -> None:
    """Write an artifact of a flavor, with files as they are."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    model = Model(signature=testing.signature(rows[list(FEATURES)]))
    model.add_flavor(flavor, **conf)
    model.save(str(folder / "MLmodel"))


def fitted(rows: pd.DataFrame, estimator: Any) -> Any:
    return estimator.fit(rows[list(FEATURES)], rows["label"])


def joblib_dumped(value: Any) -> bytes:
    content = io.BytesIO()
    joblib.dump(value, content)
    return content.getvalue()


def estimator(folder: Path, rows: pd.DataFrame, marker: Path, *, stored: str, dump: Callable[[Any], bytes]) -> None:
    content = dump(Touches(marker, fitted(rows, LogisticRegression())))
    conf = {"pickled_model": "model.pkl", "serialization_format": stored}
    described(folder, "sklearn", conf, {"model.pkl": content}, rows)


def sklearn_pickle(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    estimator(folder, rows, marker, stored="pickle", dump=pickle.dumps)


def sklearn_cloudpickle(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    estimator(folder, rows, marker, stored="cloudpickle", dump=cloudpickle.dumps)


def sklearn_joblib(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    estimator(folder, rows, marker, stored="joblib", dump=joblib_dumped)


def sklearn_skops(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    content = skops.io.dumps(fitted(rows, TouchingRegression()))
    conf = {"pickled_model": "model.skops", "serialization_format": "skops"}
    described(folder, "sklearn", conf, {"model.skops": content}, rows)


def lightgbm_cloudpickle(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    import lightgbm

    wrapper = fitted(rows, lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbosity=-1))
    conf = {"data": "model.pkl", "serialization_format": "cloudpickle"}
    described(folder, "lightgbm", conf, {"model.pkl": cloudpickle.dumps(Touches(marker, wrapper))}, rows)


def pytorch_pickle(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    content = io.BytesIO()
    torch.save(Touches(marker, torch.nn.Linear(2, 1)), content)
    described(folder, "pytorch", {"model_data": "data"}, {"data/model.pth": content.getvalue()}, rows)


def pytorch_torchscript(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    content = io.BytesIO()
    with deprecated():
        torch.jit.save(torch.jit.script(WritingNet()), content)
    described(folder, "pytorch", {"model_data": "data"}, {"data/model.pth": content.getvalue()}, rows)


def safetensors_class(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    content = save({"linear.weight": torch.ones(1, 2), "linear.bias": torch.ones(1)})
    conf = {"data": "model.safetensors", "class": "tests.contract.payload:TouchingNet", "arguments": {}}
    described(folder, "safetensors", conf, {"model.safetensors": content}, rows)


def keras_lambda(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    import keras

    # Keras stores the code of a lambda, and calls it to find out the shape of what it returns.
    touching = keras.layers.Lambda(lambda features: (open("code-ran", "w").close(), features)[1])  # noqa: PTH123
    net = keras.Sequential([keras.Input((2,)), touching, keras.layers.Dense(1)])
    mlflow.tensorflow.save_model(net, str(folder), signature=tensor_signature(2), pip_requirements=["tensorflow"])
    name_columns(folder, rows[list(FEATURES)])
    marker.unlink()


def keras_custom_objects(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    import keras

    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    mlflow.tensorflow.save_model(net, str(folder), signature=tensor_signature(2), pip_requirements=["tensorflow"])
    (folder / "data" / "custom_objects.cloudpickle").write_bytes(cloudpickle.dumps(Touches(marker, {})))
    name_columns(folder, rows[list(FEATURES)])


def tensorflow_savedmodel(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    import tensorflow as tf

    class Writing(tf.Module):
        """Writes a file when it predicts, as a SavedModel can."""

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
        def __call__(self, features: Any) -> Any:
            with tf.control_dependencies([tf.io.write_file("code-ran", "")]):
                return tf.identity(features[:, 0])

    mlflow.tensorflow.save_model(Writing(), str(folder), signature=tensor_signature(2), pip_requirements=["tensorflow"])
    name_columns(folder, rows[list(FEATURES)])


class Sum(mlflow.pyfunc.PythonModel):
    """Any code."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002 - MLflow's names
        # MLflow warns of type hints that are not its own.
        Path("code-ran").touch()
        return expit(np.asarray(model_input).sum(axis=1))


def python_function(folder: Path, rows: pd.DataFrame, marker: Path) -> None:
    features = rows[list(FEATURES)]
    mlflow.pyfunc.save_model(
        str(folder),
        python_model=Sum(),
        signature=testing.signature(features),
        input_example=features.head(3),
        pip_requirements=["mlflow"],
    )
    marker.unlink(missing_ok=True)


PAYLOADS = {
    "sklearn-pickle": sklearn_pickle,
    "sklearn-cloudpickle": sklearn_cloudpickle,
    "sklearn-joblib": sklearn_joblib,
    "sklearn-skops": sklearn_skops,
    "lightgbm-cloudpickle": lightgbm_cloudpickle,
    "pytorch-pickle": pytorch_pickle,
    "pytorch-torchscript": pytorch_torchscript,
    "pytorch-safetensors": safetensors_class,
    "tensorflow-keras-lambda": keras_lambda,
    "tensorflow-custom-objects": keras_custom_objects,
    "tensorflow-savedmodel": tensorflow_savedmodel,
    "python_function": python_function,
}
"""By flavor and format."""
