"""Predictors of this process, loaded once per digest, method and device.

A module of its own, so that Spark's reused Python workers find it again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from scoring.errors import ModelError, ScoringError, cause
from scoring.models import flavors
from scoring.models.base import Files, FrozenModel, Predictor, digest_of


@dataclass(slots=True)
class PredictorCache:
    """Loads, verifies and keeps predictors."""

    loads: int = 0
    """How many models were loaded in this process."""
    load_s: float = 0.0
    """Seconds spent loading."""
    _predictors: dict[tuple[str, str, str], Predictor] = field(default_factory=dict)

    def get(self, model: FrozenModel, files: Files, *, method: str, device: str, threads: int) -> Predictor:
        """Return the predictor of `model`, loading it when this process has not done so yet.

        Raises:
            ModelError: the files are not those that were frozen, or do not load.
        """
        key = (model.digest, method, device)
        if key not in self._predictors:
            start = time.perf_counter()
            self._predictors[key] = _load(model, files, method=method, device=device, threads=threads)
            self.loads += 1
            self.load_s += time.perf_counter() - start
        return self._predictors[key]


def verify(model: FrozenModel, files: Files) -> None:
    """Check that `files` are those that were frozen.

    Raises:
        ModelError: a byte differs.
    """
    actual = digest_of(files)
    if actual != model.digest:
        raise ModelError(
            f"the files of model {model.label} were changed",
            f"sha256 {model.digest}",
            actual,
            "Nothing of it was loaded. Register the model again or roll back.",
        )


def _load(model: FrozenModel, files: Files, *, method: str, device: str, threads: int) -> Predictor:
    verify(model, files)
    load = flavors.loader(model.flavor)
    try:
        return load(model, files, method=method, device=device, threads=threads)
    except ScoringError:
        raise
    except Exception as error:
        raise ModelError(
            f"model {model.label} does not load",
            f"a model of flavor {model.flavor!r}",
            cause(error),
            "Compare the library versions in the model's requirements with those installed here.",
        ) from error


PREDICTORS: Final = PredictorCache()
"""The predictors of this process."""
