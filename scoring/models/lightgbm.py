"""LightGBM models: boosters as text, and wrappers of scikit-learn's kind, which skops keeps, by their booster."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.batch import Batch
from scoring.models.base import (
    Files,
    FrozenModel,
    LoadOptions,
    check_features,
    class_probabilities,
    expected_columns,
    not_binary,
)

WRAPPER_TYPES: Final = frozenset(
    {
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRanker",
        "lightgbm.sklearn.LGBMRegressor",
    }
)
"""Types in a wrapper's skops file that run no code: a booster is read from its text."""
_CLASSIFIERS: Final = ("binary", "multiclass", "multiclassova")
"""Objectives whose numbers are probabilities."""
_UNNAMED: Final = re.compile(r"Column_\d+")
"""What LightGBM calls the columns of an array."""


@dataclass(frozen=True, slots=True)
class LightGBMPredictor:
    """A booster that predicts from a pandas frame."""

    model: FrozenModel
    booster: lightgbm.Booster
    columns: tuple[str, ...]
    texts: tuple[str, ...]
    """Columns of text, which LightGBM takes as pandas categories only."""
    classes: npt.NDArray[Any] | None
    """Predict the class; None: what the booster computes."""
    has_probabilities: bool
    options: LoadOptions

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Predict as `Booster.predict` does, or as the wrapper does; null and NaN are missing values."""
        frame = batch.frame(self.model.types)[list(self.columns)]
        if self.texts:
            frame = frame.astype(dict.fromkeys(self.texts, "category"))
        values = np.asarray(self.booster.predict(frame, num_threads=self.options.threads))
        if self.classes is not None:
            values = self.classes[(values > 1 - values).astype(int) if values.ndim == 1 else values.argmax(axis=1)]
        elif self.has_probabilities:
            return class_probabilities(self.model, values, self.options.outputs)
        return expected_columns(self.model, values, self.options.outputs)


def load(model: FrozenModel, files: Files, options: LoadOptions) -> LightGBMPredictor:
    """Load a booster or a wrapper; LightGBM runs on the CPU here.

    Raises:
        ModelError: the wrapper's file could run code, or the step wants probabilities of a model that has none.
    """
    path = str(model.conf.get("data", "model.lgb"))
    classes = None
    if path.endswith(".lgb"):
        booster = lightgbm.Booster(model_str=files[path].decode())
    else:
        wrapper = _wrapper(model, files[path], is_skops=path.endswith(".skops"))
        booster, classes = wrapper.booster_, getattr(wrapper, "classes_", None)
    is_classifier = booster.params.get("objective") in _CLASSIFIERS
    if options.method == "predict_proba" and not is_classifier:
        raise not_binary(model)
    is_binary = booster.params.get("objective") == "binary"
    wants_probabilities = options.method == "predict_proba" or (
        options.method == "auto" and (is_binary or options.outputs > 1)
    )
    return LightGBMPredictor(
        model,
        booster,
        _columns(model, booster.feature_name()),
        texts=tuple(name for name, kind in model.types if pa.types.is_string(kind)),
        classes=None if wants_probabilities else classes,
        has_probabilities=is_classifier and wants_probabilities,
        options=options,
    )


def _wrapper(model: FrozenModel, content: bytes, *, is_skops: bool) -> Any:
    from scoring.models.sklearn import TRUSTED_TYPES, open_estimator

    return open_estimator(model, content, is_skops=is_skops, types=TRUSTED_TYPES | WRAPPER_TYPES)


def _columns(model: FrozenModel, names: list[str]) -> tuple[str, ...]:
    if all(_UNNAMED.fullmatch(name) for name in names):
        return model.columns
    # LightGBM has no spaces in names.
    written = {column.replace(" ", "_"): column for column in model.columns}
    return check_features(model, [written.get(name, name) for name in names])
