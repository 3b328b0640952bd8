"""Weights of Keras models in files `.keras`: averaged within the file, without Keras.

Groups of such a file are named by the layers' classes and places, so they are the same for all models of one
architecture, whatever their layers are called. Keras itself is needed only to recompute BatchNorm's statistics.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from scoring.batch import Batch
from scoring.errors import ModelError, listed
from scoring.models.base import Files, FrozenModel
from scoring.models.keras_audit import keras_findings
from scoring.models.soup.weights import Tensors, Weights

SUFFIX: Final = ".keras"
_CONFIG: Final = "config.json"
_WEIGHTS: Final = "model.weights.h5"
_OPTIMIZER: Final = "optimizer/"
_SEED: Final = re.compile(r"(^|/)seed_generator/")
_BATCH_NORM: Final = re.compile(r"(^|/)(batch_normalization(_\d+)?)/vars/\d+$")
_PREPARING: Final = re.compile(r"(^|/)normalization(_\d+)?/vars/\d+$")
"""Variables of Keras' layer `Normalization`, which scales features."""
_NOTES: Final = re.compile(r"(compile|build)_config|.+_(initializer|regularizer|constraint)|seed|trainable|name|dtype")
"""Keys of a layer that do not change what it predicts."""
_NO_EFFECT: Final = {"BatchNormalization": "momentum", "Dropout": "rate", "SpatialDropout1D": "rate"}
"""Further ones, of classes that need them in training only."""


def read(model: FrozenModel, files: Files) -> Weights:
    """Return the layers' variables as averaged, and those of layers that scale features as fixed."""
    content = files[_path(model, files)]
    config, tensors = _config(content), _tensors(model, content)
    fixed = {name for name, tensor in tensors.items() if tensor.dtype.kind != "f" or _PREPARING.search(name)}
    averaged = {name: tensor for name, tensor in tensors.items() if name not in fixed}
    return Weights(
        averaged,
        {name: tensors[name] for name in sorted(fixed)},
        frozenset(_statistics(averaged)),
        tuple(_structure(config)),
    )


def write(model: FrozenModel, files: Files, tensors: Tensors, rows: Batch | None) -> Files:
    """Return the artifact with other variables in its file."""
    path = _path(model, files)
    content = _with_tensors(files[path], tensors)
    if rows is not None:
        content = recomputed(content, rows.matrix(model.columns), label=model.label)
    return {**files, path: content}


def recomputed(content: bytes, rows: npt.NDArray[np.float32], *, label: str) -> bytes:
    """Return a file in which each BatchNorm has the mean and variance of the rows that reach it.

    Layers run one after the other as they do for a prediction, dropout off; each BatchNorm sees rows that those
    before it have normalised anew.

    Args:
        content: of a file `.keras`.
        rows: features, shape (rows, columns).
        label: of the model, for sentences.

    Raises:
        ModelError: the file holds layers that could run code.
    """
    found = list(keras_findings(content))
    if found:
        raise ModelError(
            f"model {label} holds layers that could run code",
            "layers of Keras",
            listed(found),
            "Nothing of it was loaded.",
        )
    import keras

    with tempfile.TemporaryDirectory(prefix="scoring-soup-") as folder:
        file = Path(folder) / f"model{SUFFIX}"
        file.write_bytes(content)
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
        layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]  # noqa: SLF001 - also those of models within
        for layer in layers:
            layer.call = _normalising_anew(layer, layer.call)
        model(rows, training=False)
        for layer in layers:
            del layer.call  # the class's own
        model.save(file)
        return file.read_bytes()


def _normalising_anew(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    from keras import ops

    def first_its_statistics(inputs: Any, **how: Any) -> Any:
        axes = [axis for axis in range(len(inputs.shape)) if axis != layer.axis % len(inputs.shape)]
        mean, variance = ops.moments(inputs, axes=axes)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
        return call(inputs, **how)

    return first_its_statistics


def _path(model: FrozenModel, files: Files) -> str:
    found = [path for path in files if path.endswith(SUFFIX)]
    if len(found) != 1:
        raise ModelError(
            f"the weights of model {model.label} cannot be averaged",
            f"one file {SUFFIX}",
            listed(found) or "none",
            "Log it with mlflow.tensorflow.log_model(..., keras_model_kwargs={'save_format': 'keras'}).",
        )
    return found[0]


def _config(content: bytes) -> Mapping[str, Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        config: Mapping[str, Any] = json.loads(archive.read(_CONFIG))
    return config


def _tensors(model: FrozenModel, content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the variables of layers by path, without the state of optimizer and random numbers."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive, h5py.File(io.BytesIO(archive.read(_WEIGHTS)), "r") as file:
        return {name: dataset[()] for name, dataset in _datasets(file, model)}


def _datasets(file: Any, model: FrozenModel) -> Iterator[tuple[str, Any]]:
    names: list[str] = []
    file.visit(names.append)  # follows no link to other files
    for name in names:
        found = file[name]
        if not isinstance(found, h5py.Dataset) or name.startswith(_OPTIMIZER) or _SEED.search(name):
            continue
        if found.external or found.is_virtual:
            raise ModelError(f"the file of model {model.label} points to other files", "weights", repr(name))
        yield name, found


def _with_tensors(content: bytes, tensors: Tensors) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(packed, "w") as copy:
        for name in archive.namelist():
            entry = archive.read(name)
            if name == _WEIGHTS:
                weights = io.BytesIO(entry)
                with h5py.File(weights, "r+") as file:
                    for path, tensor in tensors.items():
                        file[path][...] = tensor
                entry = weights.getvalue()
            copy.writestr(name, entry)
    return packed.getvalue()


def _statistics(names: Mapping[str, Any]) -> Iterator[str]:
    """Yield the last two variables of each BatchNorm: gamma and beta, if there are any, come before them."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if _BATCH_NORM.search(name):
            groups.setdefault(name.rpartition("/")[0], []).append(name)
    for found in groups.values():
        yield from sorted(found, key=lambda name: int(name.rpartition("/")[2]))[-2:]


def _structure(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines that are the same for two models that compute the same of their weights."""
    given = dict.fromkeys(part["name"] for part in _mappings(config) if isinstance(part.get("name"), str))
    names = {name: f"#{position}" for position, name in enumerate(given)}
    for path, value in _leaves(config, "model", ""):
        yield f"{path} = {names.get(value, value) if isinstance(value, str) else value}"


def _leaves(value: Any, path: str, kind: str) -> Iterator[tuple[str, Any]]:
    """Yield what a configuration says of predictions, by path."""
    if isinstance(value, Mapping):
        inner_kind = value.get("class_name", kind)
        for key, inner in sorted(value.items()):
            if not _NOTES.fullmatch(key) and key != _NO_EFFECT.get(inner_kind):
                yield from _leaves(inner, f"{path}.{key}", inner_kind)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{position}]", kind)
    else:
        yield path, value


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield all mappings in a configuration, outer before inner."""
    if isinstance(value, Mapping):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _mappings(inner)
