"""What an update of a model is, and which module does it for which flavor."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from scoring.batch import Batch
from scoring.deployment import Online
from scoring.errors import ModelError, listed
from scoring.models.base import Files, FrozenModel

MODULES: Final = {
    "sklearn": "scoring.models.online.sklearn",
    "xgboost": "scoring.models.online.xgboost",
    "pytorch": "scoring.models.online.torch",
}
"""By MLflow flavor; each module has a function `update`."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a model learns from."""

    batch: Batch
    """Features, with the columns of the model's signature."""
    labels: npt.NDArray[np.float64]
    """0 or 1, shape (batch.rows,)."""
    seed: int
    """For the order of rows and whatever else is random."""


Update: TypeAlias = Callable[[FrozenModel, Files, Rows, Online], Mapping[str, bytes]]
"""Returns the files that differ after the rows were learned: the same arguments give the same bytes, on any day.

Raises `ModelError` where the model cannot go on learning.
"""


def updated(model: FrozenModel, files: Files, rows: Rows, online: Online) -> Files:
    """Return the artifact's files after the model has learned from rows.

    Raises:
        ModelError: models of this flavor, or this one, cannot go on learning.
    """
    if model.flavor not in MODULES:
        raise ModelError(
            f"model {model.label} cannot learn online",
            f"flavor {listed(MODULES)}",
            model.flavor,
            "Use 'retrain' for it.",
        )
    update: Update = import_module(MODULES[model.flavor]).update
    return {**files, **update(model, files, rows, online)}


def repacked(files: Mapping[str, bytes]) -> bytes:
    """Return a zip archive that depends on nothing but names and contents: no clock, no order."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)
    return target.getvalue()
