"""Inputs, outputs and options of Keras models and SavedModels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.models.base import Files, FrozenModel
from scoring.models.cache import PredictorCache
from tests.contract.models import frozen, keras_net, matrix, name_columns, tensor_signature
from tests.models.saving import FEATURES, FRAME, ROWS

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
MATRIX = matrix(FEATURES)


def saved(native: Any, folder: Path, *, trusted: bool = False, **options: Any) -> tuple[FrozenModel, Files]:
    mlflow.tensorflow.save_model(
        native, str(folder / "model"), signature=tensor_signature(2), pip_requirements=["tensorflow"], **options
    )
    name_columns(folder / "model", FEATURES)
    return frozen(folder / "model", trusted=trusted)


def predicted(model: tuple[FrozenModel, Files], **options: Any) -> Any:
    return PredictorCache().get(*model, **options).predict(Batch(ROWS))


@pytest.mark.parametrize("structure", ["list", "dictionary"])
def test_several_inputs_are_columns_by_name(tmp_path: Path, structure: str) -> None:
    # In another order than that of the columns.
    inputs = [keras.Input((1,), name="y"), keras.Input((1,), name="x")]
    scaled = keras.layers.Concatenate()([inputs[0] * 10.0, inputs[1]])
    output = keras.layers.Dense(1)(scaled)
    net = keras.Model(inputs if structure == "list" else {"y": inputs[0], "x": inputs[1]}, output)
    x, y = MATRIX[:, :1], MATRIX[:, 1:]
    expected = np.asarray(net([y, x] if structure == "list" else {"y": y, "x": x}))[:, 0]
    np.testing.assert_allclose(predicted(saved(net, tmp_path)), expected, atol=1e-6)


def test_an_input_that_is_no_column_is_named(tmp_path: Path) -> None:
    inputs = [keras.Input((1,), name="x"), keras.Input((1,), name="z")]
    net = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(inputs)))
    with pytest.raises(ModelError, match="needs features that its signature lacks: expected x, z, got no z"):
        predicted(saved(net, tmp_path))


def test_pictures_cannot_be_made_of_columns(tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input((2, 2)), keras.layers.Flatten(), keras.layers.Dense(1)])
    with pytest.raises(
        ModelError, match=r"has inputs that columns cannot fill: expected tensors of rank 1 or 2 of float32"
    ):
        predicted(saved(net, tmp_path))


def test_layers_of_training_are_not_active(tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dropout(0.9)])
    net.add(keras.layers.Dense(1))
    model = saved(net, tmp_path)
    expected = np.asarray(net(MATRIX, training=False))[:, 0]
    for _ in range(2):
        np.testing.assert_allclose(predicted(model), expected, atol=1e-6)


def test_weights_are_counted_and_lie_on_the_cpu(tmp_path: Path) -> None:
    predictor = PredictorCache().get(*saved(keras_net(3), tmp_path), outputs=3)
    assert (predictor.size_bytes, predictor.device) == (4 * (2 * 3 + 3), "cpu")  # type: ignore[attr-defined]


def test_there_are_no_probabilities_to_choose(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a binary classifier\. Set 'method: predict'"):
        predicted(saved(keras_net(1), tmp_path), method="predict_proba")


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
def test_without_a_gpu_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot run on cuda:0: expected a TensorFlow that sees a GPU"):
        predicted(saved(keras_net(1), tmp_path), device="cuda:0")


def test_another_backend_of_keras_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(keras_net(1), tmp_path)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match=r"expected Keras on tensorflow, got Keras on jax\. Remove KERAS"):
        predicted(model)


def test_custom_layers_of_a_trusted_model_are_found(tmp_path: Path) -> None:
    class Twice(keras.layers.Layer):  # type: ignore[misc, name-defined]
        """Doubles."""

        def call(self, features: Any) -> Any:
            return features * 2

    net = keras.Sequential([keras.Input((2,)), Twice(), keras.layers.Dense(1)])
    model = saved(net, tmp_path / "refused", custom_objects={"Twice": Twice})
    with pytest.raises(ModelError, match=r"expected layers of Keras alone, got pickled objects in data/custom_objects"):
        predicted(model)
    trusted = saved(net, tmp_path / "trusted", trusted=True, custom_objects={"Twice": Twice})
    np.testing.assert_allclose(predicted(trusted), np.asarray(net(MATRIX))[:, 0], atol=1e-6)


def test_a_savedmodel_that_keras_exported_is_called_by_its_signature(tmp_path: Path) -> None:
    net = keras_net(1)
    folder = tmp_path / "model"
    signature = tensor_signature(2)
    mlflow.keras.save_model(net, str(folder), save_exported_model=True, signature=signature, pip_requirements=["keras"])
    name_columns(folder, FEATURES)
    found = predicted(frozen(folder, trusted=True))
    np.testing.assert_allclose(found, np.asarray(net(MATRIX))[:, 0], atol=1e-6)


def test_a_savedmodel_without_a_signature_or_with_two_outputs_is_refused(tmp_path: Path) -> None:
    class Nothing(tf.Module):  # type: ignore[misc, name-defined]
        """Has no function."""

    with pytest.raises(ModelError, match="has no signature to call: expected 'serving_default', got none"):
        predicted(saved(Nothing(), tmp_path / "nothing", trusted=True))

    class Two(tf.Module):  # type: ignore[misc, name-defined]
        """Has two outputs."""

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
        def __call__(self, features: Any) -> Any:
            return {"first": features[:, 0], "second": features[:, 1]}

    with pytest.raises(ModelError, match="has outputs that cannot be used: expected one tensor, got 2 tensors"):
        predicted(saved(Two(), tmp_path / "two", trusted=True))


def test_text_is_an_input_of_its_own(tmp_path: Path) -> None:
    class Long(tf.Module):  # type: ignore[misc, name-defined]
        """Tells cities of five letters from others."""

        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.string, name="city"),
                tf.TensorSpec([None, 1], tf.float64, name="x"),
            ]
        )
        def __call__(self, city: Any, x: Any) -> Any:
            return tf.cast(tf.strings.length(city) == 5, tf.float64) + x[:, 0]

    folder = tmp_path / "model"
    mlflow.tensorflow.save_model(Long(), str(folder), signature=tensor_signature(2), pip_requirements=["tensorflow"])
    name_columns(folder, FRAME[["x", "city"]])
    found = predicted(frozen(folder, trusted=True))
    np.testing.assert_allclose(found, (FRAME["city"] == "Kyoto") + FRAME["x"])
