"""Soups of Keras files, against what Keras computes of averaged weights. The only module of soups with TensorFlow."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest

from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.models.base import Files, FrozenModel, SignatureColumn
from scoring.models.soup import keras as soup
from scoring.models.soup.weights import average, check_compatible

# Keras 3.15 asks TensorFlow 2.21 for arrays in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
COLUMNS = 3
PATH = "data/model.keras"
ROWS = np.random.default_rng(0).normal(size=(400, COLUMNS)).astype(np.float32)
FROZEN = FrozenModel(
    "net", 1, "", "tensorflow", {}, tuple(SignatureColumn(f"c{n}", "float", False) for n in range(COLUMNS)), 0
)


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


def sequential(keras: Any, *, units: int = 8, dropout: float = 0.1, activation: str = "relu") -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((COLUMNS,)),
            layers.Dense(units),
            layers.BatchNormalization(momentum=0.9 - dropout),
            layers.Activation(activation),
            layers.Dropout(dropout),
            layers.Dense(6, kernel_regularizer=keras.regularizers.L2(dropout)),
            layers.BatchNormalization(scale=False),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def functional(keras: Any, **_: Any) -> Any:
    """Layers within a model within a model, and a sum of two paths."""
    layers = keras.layers
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(4), layers.BatchNormalization()])
    given = layers.Input((COLUMNS,))
    hidden = layers.Dense(4, activation="tanh")(given)
    return keras.Model(given, layers.Dense(1)(layers.Add()([hidden, inner(hidden)])))


def saved(keras: Any, model: Any, folder: Path, *, seed: int) -> Files:
    random = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.dtype == "float32":
            variable.assign(random.uniform(0.1, 1, variable.shape))
    model.compile("adam", "mse")
    model.save(folder / "model.keras")
    return {PATH: (folder / "model.keras").read_bytes(), "MLmodel": b""}


def loaded(keras: Any, files: Files, folder: Path) -> Any:
    (folder / "loaded.keras").write_bytes(files[PATH])
    return keras.saving.load_model(folder / "loaded.keras", compile=False)


def batch() -> Batch:
    return Batch(pa.table({f"c{position}": ROWS[:, position] for position in range(COLUMNS)}))


@pytest.mark.parametrize("build", [sequential, functional])
def test_variables_are_averaged_and_statistics_are_those_of_the_rows(
    keras: Any, tmp_path: Path, build: Callable[..., Any]
) -> None:
    files = [
        saved(keras, build(keras, dropout=dropout), tmp_path, seed=seed) for seed, dropout in enumerate((0.1, 0.3, 0.5))
    ]
    weights = [soup.read(FROZEN, found) for found in files]
    check_compatible({f"v{number}": found for number, found in enumerate(weights)})
    mixing = [0.5, 0.3, 0.2]
    made = soup.write(FROZEN, files[0], average([found.averaged for found in weights], mixing), batch())
    model = loaded(keras, made, tmp_path)
    parents = [loaded(keras, found, tmp_path) for found in files]

    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    statistics = {id(variable) for layer in norms for variable in (layer.moving_mean, layer.moving_variance)}
    for position, variable in enumerate(model.weights):
        if id(variable) not in statistics and variable.dtype == "float32":
            expected = sum(
                share * parent.weights[position].numpy() for share, parent in zip(mixing, parents, strict=True)
            )
            np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=variable.path)
    # Normalised by statistics of the very rows, each BatchNorm gives a mean of beta and a variance of gamma squared.
    for layer in norms:
        outputs: list[Any] = []
        call = layer.call
        layer.call = lambda inputs, outputs=outputs, call=call, **how: (
            outputs.append(call(inputs, **how)) or outputs[-1]
        )
        model(ROWS, training=False)
        values = np.asarray(outputs[0])
        beta = layer.beta.numpy()
        gamma = layer.gamma.numpy() if layer.scale else np.ones_like(beta)
        np.testing.assert_allclose(values.mean(axis=0), beta, rtol=1e-3, atol=1e-4)
        variance = layer.moving_variance.numpy()
        np.testing.assert_allclose(values.var(axis=0), gamma**2 * variance / (variance + layer.epsilon), rtol=1e-3)
    assert made["MLmodel"] == b""


def test_weights_written_as_they_were_predict_the_same(keras: Any, tmp_path: Path) -> None:
    files = saved(keras, sequential(keras), tmp_path, seed=1)
    again = soup.write(FROZEN, files, soup.read(FROZEN, files).averaged, None)
    expected, found = (np.asarray(loaded(keras, made, tmp_path)(ROWS)) for made in (files, again))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"units": 4}, r"tensor 'layers/batch_normalization/vars/0' differs: expected float32 of shape \(8,\).*\(4,\)"),
        ({"activation": "tanh"}, r"their computations differ in line \d+: expected '.*activation = relu' .*= tanh'"),
    ],
)
def test_other_architectures_are_refused(keras: Any, tmp_path: Path, other: dict[str, Any], sentence: str) -> None:
    parents = [saved(keras, sequential(keras, **how), tmp_path, seed=1) for how in ({}, other)]
    weights = {f"v{number}": soup.read(FROZEN, found) for number, found in enumerate(parents)}
    with pytest.raises(ModelError, match=sentence):
        check_compatible(weights)


def test_layers_that_scale_features_must_be_equal(keras: Any, tmp_path: Path) -> None:
    def net(scale: float) -> Any:
        normalisation = keras.layers.Normalization(axis=-1)
        normalisation.adapt(ROWS * scale)
        return keras.Sequential([keras.layers.Input((COLUMNS,)), normalisation, keras.layers.Dense(1)])

    parents = []
    for scale in (1.0, 2.0):
        model = net(scale)
        model.save(tmp_path / "model.keras")
        parents.append(soup.read(FROZEN, {PATH: (tmp_path / "model.keras").read_bytes()}))
    assert not any("normalization" in name for name in parents[0].averaged)
    with pytest.raises(ModelError, match=r"'layers/normalization/vars/\d', which prepares features .* differs at"):
        check_compatible({"v1": parents[0], "v2": parents[1]})


def test_a_file_that_could_run_code_is_not_loaded(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.layers.Input((COLUMNS,)), keras.layers.Lambda(lambda rows: rows), keras.layers.BatchNormalization()]
    )
    files = saved(keras, model, tmp_path, seed=1)
    with pytest.raises(ModelError, match=r"holds layers that could run code: expected layers of Keras, got .*Lambda"):
        soup.write(FROZEN, files, soup.read(FROZEN, files).averaged, batch())


def test_weights_that_lie_in_other_files_are_not_read(keras: Any, tmp_path: Path) -> None:
    files = saved(keras, sequential(keras), tmp_path, seed=1)
    (tmp_path / "secret").write_bytes(bytes(64))
    weights, packed = io.BytesIO(), io.BytesIO()
    with h5py.File(weights, "w") as file:
        file.create_dataset("layers/dense/vars/0", (4,), "f4", external=[(str(tmp_path / "secret"), 0, 16)])
    with zipfile.ZipFile(io.BytesIO(files[PATH])) as archive, zipfile.ZipFile(packed, "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, weights.getvalue() if name.endswith(".h5") else archive.read(name))
    with pytest.raises(ModelError, match=r"points to other files: expected weights, got 'layers/dense/vars/0'"):
        soup.read(FROZEN, {PATH: packed.getvalue()})


def test_another_format_is_refused() -> None:
    with pytest.raises(ModelError, match=r"cannot be averaged: expected one file \.keras, got none"):
        soup.read(FROZEN, {"data/model/saved_model.pb": b""})
