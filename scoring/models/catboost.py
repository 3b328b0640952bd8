"""CatBoost models in their native format (cbm), which holds trees and no code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import catboost
import numpy as np
import numpy.typing as npt

from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.models.base import (
    Files,
    FrozenModel,
    LoadOptions,
    check_features,
    class_probabilities,
    expected_columns,
    not_binary,
)

_KINDS: Final = {
    kind.__name__: kind
    for kind in (
        catboost.CatBoost,
        catboost.CatBoostClassifier,
        catboost.CatBoostRegressor,
        catboost.CatBoostRanker,
    )
}
"""By the name that MLflow notes: each means something else by `predict`."""
_CLASSIFIERS: Final = (
    *("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll", "MultiLogloss", "MultiCrossEntropy"),
)
"""Losses of models that have probabilities."""


@dataclass(frozen=True, slots=True)
class CatBoostPredictor:
    """A model that predicts from a pandas frame."""

    model: FrozenModel
    native: catboost.CatBoost
    columns: tuple[str, ...]
    has_probabilities: bool
    options: LoadOptions

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Predict as the native model does; NaN is a missing value in numbers, and an error in text."""
        frame, threads = batch.frame(self.model.types)[list(self.columns)], self.options.threads
        if self.has_probabilities:
            values = self.native.predict(frame, prediction_type="Probability", thread_count=threads)
            return class_probabilities(self.model, values, self.options.outputs)
        return expected_columns(
            self.model, np.asarray(self.native.predict(frame, thread_count=threads)), self.options.outputs
        )


def load(model: FrozenModel, files: Files, options: LoadOptions) -> CatBoostPredictor:
    """Load a cbm file; CatBoost runs on the CPU here.

    Raises:
        ModelError: another format, or the step wants probabilities of a model that has none.
    """
    stored = model.conf.get("save_format", "cbm")
    if stored != "cbm":
        raise ModelError(
            f"model {model.label} is stored in another format", "cbm", repr(stored), "Log it without 'format'."
        )
    native = _KINDS[model.conf.get("model_type", "CatBoost")]()
    native.load_model(blob=files[model.conf.get("data", "model.cb")])
    is_classifier = native.get_all_params().get("loss_function") in _CLASSIFIERS
    if options.method == "predict_proba" and not is_classifier:
        raise not_binary(model)
    wants_probabilities = options.outputs > 1 or len(native.classes_) == 2
    return CatBoostPredictor(
        model,
        native,
        _columns(model, native.feature_names_),
        has_probabilities=is_classifier
        and (wants_probabilities if options.method == "auto" else options.method == "predict_proba"),
        options=options,
    )


def _columns(model: FrozenModel, names: list[str]) -> tuple[str, ...]:
    # Trained on an array, features are called by their positions.
    return model.columns if all(name.isdigit() for name in names) else check_features(model, names)
