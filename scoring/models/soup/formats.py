"""Which module reads and writes the weights of which flavor. Add a format here."""

from __future__ import annotations

from importlib import import_module
from typing import Final, Protocol

from scoring.batch import Batch
from scoring.errors import ModelError, listed
from scoring.models.base import Files, FrozenModel
from scoring.models.soup.weights import Tensors, Weights

FORMATS: Final = {
    "sklearn": "scoring.models.soup.sklearn",
    "pytorch": "scoring.models.soup.torch",
    "tensorflow": "scoring.models.soup.keras",
    "keras": "scoring.models.soup.keras",
}
"""Dotted path of the module by MLflow's name of the flavor."""


class Format(Protocol):
    """The functions of a format's module."""

    def read(self, model: FrozenModel, files: Files) -> Weights:
        """Return the weights in an artifact.

        Raises:
            ModelError: it is none whose weights can be averaged.
        """
        ...

    def write(self, model: FrozenModel, files: Files, tensors: Tensors, rows: Batch | None) -> Files:
        """Return the artifact with other weights.

        Args:
            model: whose artifact it is.
            files: of the artifact.
            tensors: by all names that `read` gave as averaged.
            rows: the model's input on training rows, by which statistics are recomputed; None: it has none.

        Raises:
            ModelError: statistics cannot be recomputed.
        """
        ...


def format_of(model: FrozenModel) -> Format:
    """Return the functions for a model's flavor; imports the framework.

    Raises:
        ModelError: weights of this flavor are not averaged, or the framework is not installed.
    """
    if model.flavor not in FORMATS:
        raise ModelError(
            f"model {model.label} of flavor {model.flavor!r} cannot be part of a soup",
            f"flavor {listed(FORMATS)}",
            hint="Trees have no weights to average: let them be members of an ensemble.",
        )
    try:
        found: Format = import_module(FORMATS[model.flavor])
    except ImportError as error:
        raise ModelError(
            f"the weights of model {model.label} cannot be read",
            f"the package {error.name!r}",
            "none",
            "Install what its flavor needs.",
        ) from error
    return found
