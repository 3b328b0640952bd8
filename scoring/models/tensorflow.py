"""TensorFlow and Keras models: `.keras` files, audited before Keras opens them; SavedModels where they are trusted."""

from __future__ import annotations

import math
import os
import pickle
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow reads it when it is imported, and praises itself

import keras
import tensorflow as tf

from scoring.batch import Batch
from scoring.errors import ModelError, listed
from scoring.models.base import CPU, Files, FrozenModel, LoadOptions, expected_columns, not_binary
from scoring.models.folder import unpacked
from scoring.models.tensors import TEXT, Feed, TensorInput
from scoring.models.trust import CUSTOM_OBJECTS, keras_path

BACKEND: Final = "tensorflow"
SERVING: Final = "serving_default"
"""The signature of a SavedModel that is called."""
_configuring: Final = threading.Lock()

Program = Callable[[Mapping[str, npt.NDArray[Any]]], Any]
"""From arrays by input to a tensor of TensorFlow's."""


@dataclass(frozen=True, slots=True)
class TensorFlowPredictor:
    """A program that TensorFlow runs as one graph, whatever the number of rows."""

    model: FrozenModel
    program: Program
    feed: Feed
    outputs: int
    device: str
    size_bytes: int

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Run the program as it is used for predictions, without dropout; NaN is whatever the program makes of it."""
        with tf.device(_placement(self.device)):
            values = self.program(self.feed.tensors(batch)).numpy()
        return expected_columns(self.model, values, self.outputs)


def load(model: FrozenModel, files: Files, options: LoadOptions) -> TensorFlowPredictor:
    """Load a Keras file in Keras's safe mode, unless the model is trusted, or a trusted SavedModel.

    Raises:
        ModelError: no device or backend for it, or inputs and outputs that cannot be used.
    """
    if options.method == "predict_proba":
        raise not_binary(model)
    _configure(model, options)
    with unpacked(files) as folder, tf.device(_placement(options.device)):
        # A Keras file comes first: it is what was audited.
        is_keras = keras_path(model.conf) in files or _saved_folder(folder, model.conf) is None
        open_program = _keras_model if is_keras else _saved_model
        program, inputs, variables = open_program(model, files, folder)
    return TensorFlowPredictor(
        model,
        program,
        Feed.of(model, inputs),
        options.outputs,
        device=options.device,
        size_bytes=sum(math.prod(variable.shape) * tf.as_dtype(variable.dtype).size for variable in variables),
    )


def _placement(device: str) -> str:
    return "/CPU:0" if device == CPU else f"/GPU:{device.partition(':')[2]}"


def _configure(model: FrozenModel, options: LoadOptions) -> None:
    if keras.backend.backend() != BACKEND:
        raise ModelError(
            f"model {model.label} cannot be loaded",
            f"Keras on {BACKEND}",
            f"Keras on {keras.backend.backend()}",
            "Remove KERAS_BACKEND from the environment of the Spark executors.",
        )
    with _configuring:
        devices = tf.config.list_physical_devices("GPU")
        if options.device != CPU and not devices:
            raise ModelError(
                f"model {model.label} cannot run on {options.device}", "a TensorFlow that sees a GPU", "none of them"
            )
        # Both are of the whole process, and fixed by the first model: later ones of a worker ask for the same.
        with suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(options.threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
            for device in devices:
                tf.config.experimental.set_memory_growth(device, enable=True)  # others use the GPU, too


# ---------------------------------------------------------------------------------------------------------- formats


def _keras_model(model: FrozenModel, files: Files, folder: Path) -> tuple[Program, list[TensorInput], list[Any]]:
    path = keras_path(model.conf)
    if path not in files:
        path = next((name for name in files if name.endswith((".h5", ".hdf5"))), path)
    # Pickles are here only where the model is trusted.
    pickles = [content for name, content in files.items() if name.rpartition("/")[2] in CUSTOM_OBJECTS]
    custom: dict[str, Any] = {}
    for content in pickles if model.trusted else ():
        custom.update(pickle.loads(content))  # noqa: S301 - of a trusted model
    net = keras.saving.load_model(folder / path, custom_objects=custom, compile=False, safe_mode=not model.trusted)
    structure = _inputs(net, len(model.columns))
    several = structure if isinstance(structure, list | tuple) else [structure]
    named = structure if isinstance(structure, Mapping) else {tensor.name: tensor for tensor in several}
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in named.items()]

    @tf.function(input_signature=[specs])  # type: ignore[untyped-decorator]
    def call(tensors: list[Any]) -> Any:
        if isinstance(structure, Mapping):
            return net(dict(zip(named, tensors, strict=True)), training=False)
        return net(tensors if isinstance(structure, list | tuple) else tensors[0], training=False)

    def program(arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
        return _only(model, call([tf.convert_to_tensor(arrays[name]) for name in named]))

    return program, [_input(name, spec) for name, spec in zip(named, specs, strict=True)], net.variables


def _inputs(net: Any, columns: int) -> Any:
    """Return the inputs of a Keras model in the structure that it takes them in: one, a list or a dictionary."""
    if isinstance(net, keras.Sequential):
        return net.inputs[0]
    try:
        return net.input
    except (AttributeError, ValueError):  # a class of its own, of a trusted model: it takes whatever it is given
        return keras.KerasTensor((None, columns), name="features")


def _saved_folder(folder: Path, conf: Mapping[str, Any]) -> str | None:
    """Return the folder of a SavedModel: of a `tf.Module`, or as Keras's flavor exports it."""
    places = (conf.get("saved_model_dir"), f"{conf.get('data', 'data')}/model")
    return next((place for place in places if place and (folder / place / "saved_model.pb").is_file()), None)


def _saved_model(model: FrozenModel, _: Files, folder: Path) -> tuple[Program, list[TensorInput], list[Any]]:
    loaded = tf.saved_model.load(str(folder / str(_saved_folder(folder, model.conf))))
    call = loaded.signatures.get(SERVING)
    if call is None:
        raise ModelError(
            f"model {model.label} has no signature to call",
            repr(SERVING),
            listed(loaded.signatures) or "none",
            "Save it with tf.saved_model.save(module, path, signatures=...), or with one function of known input.",
        )
    specs = call.structured_input_signature[1]

    def program(arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
        # The function knows its variables weakly: `loaded` keeps them.
        return _only(model, call(**{name: tf.convert_to_tensor(array) for name, array in arrays.items()}), loaded)

    return program, [_input(name, spec) for name, spec in specs.items()], list(getattr(loaded, "variables", ()))


def _input(name: str, spec: Any) -> TensorInput:
    dtype = TEXT if spec.dtype == tf.string else spec.dtype.name
    return TensorInput(name, dtype, spec.shape.rank or 0)


def _only(model: FrozenModel, found: Any, _: object = None) -> Any:
    """Return the one tensor that a program computes."""
    values = list(found.values()) if isinstance(found, Mapping) else found
    if not isinstance(values, list | tuple):
        return values
    if len(values) != 1:
        raise ModelError(f"model {model.label} has outputs that cannot be used", "one tensor", f"{len(values)} tensors")
    return values[0]
