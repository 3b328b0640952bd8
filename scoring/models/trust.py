"""Which model files could run code when they are loaded, told before any framework is imported.

A deployment lists the digests of such files that it trusts (`trust:`); all others are refused. Formats that cannot run
code need no trust: skops, torch.export and Keras files are audited, all other native formats hold numbers only.
TorchScript and SavedModel are programs whose operators can write files, so both count as code, as PyTorch and
TensorFlow themselves say.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from scoring.errors import ModelError, listed
from scoring.models.base import Files, FrozenModel
from scoring.models.keras_audit import keras_findings

SKOPS: Final = "skops"
EXPORTED_PROGRAM: Final = "model.pt2"
TORCH_FILE: Final = "model.pth"
"""MLflow's name for TorchScript and for pickled modules."""
CUSTOM_OBJECTS: Final = ("custom_objects.cloudpickle", "global_custom_objects.cloudpickle")
"""MLflow's names for Python objects that a Keras model needs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What in a model's files could run code."""

    expected: str
    got: str
    instead: str
    """How to log the model so that no trust is needed."""


Search = Callable[[Mapping[str, Any], Files], Finding | None]
"""From a flavor's section of `MLmodel` and the artifact's files."""


def refused(model: FrozenModel, what: str, finding: Finding) -> ModelError:
    """Return the error for files that may not be loaded; `what` is said of the model."""
    return ModelError(
        f"model {model.label} {what}",
        finding.expected,
        finding.got,
        f"Nothing of it was loaded. {finding.instead} Or, if you know who made it, let its code run on the Spark "
        f"executors, with their rights, by this line of deployment.yaml: 'trust: [{model.digest}]'.",
    )


def pickled_estimator(conf: Mapping[str, Any], _: Files) -> Finding | None:
    """Look at how scikit-learn's flavor stored its model."""
    stored = conf.get("serialization_format")
    if stored == SKOPS:
        return None
    return Finding(SKOPS, repr(stored), "Log it with mlflow.sklearn.log_model(..., serialization_format='skops').")


def pickled_wrapper(conf: Mapping[str, Any], _: Files) -> Finding | None:
    """Look at how LightGBM's flavor stored its model: boosters as text, wrappers of scikit-learn's kind otherwise."""
    path = str(conf.get("data", ""))
    if path.endswith((".lgb", ".skops")):
        return None
    return Finding(
        "a booster's text or skops",
        repr(conf.get("serialization_format")),
        "Log it with mlflow.lightgbm.log_model(..., serialization_format='skops'), or log its booster_.",
    )


def torch_program(conf: Mapping[str, Any], files: Files) -> Finding | None:
    """Look at how PyTorch's flavor stored its model."""
    folder = conf.get("model_data", "data")
    if f"{folder}/{EXPORTED_PROGRAM}" in files:
        return None
    return Finding(
        "a torch.export file (.pt2)",
        "TorchScript" if is_torchscript(files.get(f"{folder}/{TORCH_FILE}", b"")) else "a pickled module",
        "Log it with mlflow.pytorch.log_model(..., input_example=...), which exports it.",
    )


def tensorflow_program(conf: Mapping[str, Any], files: Files) -> Finding | None:
    """Look at how TensorFlow's and Keras's flavors stored their model, and into the description of layers."""
    pickles = [path for path in files if path.rpartition("/")[2] in CUSTOM_OBJECTS]
    if pickles:
        return Finding("layers of Keras alone", f"pickled objects in {listed(pickles)}", "Use Keras's own layers.")
    path = keras_path(conf)
    if path not in files:
        return Finding(
            "a Keras file (.keras)", "a SavedModel or an HDF5 file", "Log the Keras model itself, which makes one."
        )
    found = list(keras_findings(files[path]))
    return Finding("layers of Keras alone", listed(found), "Use Keras's own layers.") if found else None


def any_python(conf: Mapping[str, Any], _: Files) -> Finding | None:
    """Say that MLflow's generic flavor runs whatever its loader is."""
    return Finding(
        "a flavor that is loaded natively",
        f"python_function ({conf.get('loader_module', 'no loader')})",
        "Log it by the flavor of its library if there is one of ours.",
    )


def keras_path(conf: Mapping[str, Any]) -> str:
    """Return where MLflow's flavors `tensorflow` and `keras` put a Keras file."""
    return f"{conf.get('data', 'data')}/model.keras"


def is_torchscript(content: bytes) -> bool:
    """Return whether a file of PyTorch's holds TorchScript, which a whole pickled module does not."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile:
        return False
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)
