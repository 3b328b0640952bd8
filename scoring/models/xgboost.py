"""XGBoost models in UBJ or JSON format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from scoring.batch import Batch
from scoring.models.base import (
    CPU,
    Files,
    FrozenModel,
    LoadOptions,
    check_features,
    class_probabilities,
    expected_columns,
    not_binary,
)
from scoring.models.flavors import memory_bytes
from scoring.models.xgboost_device import Compute, device_compute


class Answer(Enum):
    """What becomes of a booster's numbers."""

    AS_THEY_ARE = "as they are"
    PROBABILITIES = "probabilities"
    CLASS = "class"


@dataclass(frozen=True, slots=True)
class XGBoostPredictor:
    """A booster that predicts straight from the shared feature matrix."""

    model: FrozenModel
    compute: Compute
    columns: tuple[str, ...]
    answer: Answer
    outputs: int
    device: str
    size_bytes: int

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Predict as `Booster.predict` does, or as scikit-learn's wrapper does; null and NaN are missing values."""
        values = self.compute(batch.matrix(self.columns))
        if self.answer is Answer.PROBABILITIES:
            return class_probabilities(self.model, values, self.outputs)
        if self.answer is Answer.CLASS:
            values = values > 0.5 if values.ndim == 1 else values.argmax(axis=1)
        return expected_columns(self.model, values, self.outputs)


def load(model: FrozenModel, files: Files, options: LoadOptions) -> XGBoostPredictor:
    """Load a booster; one that scikit-learn's wrapper stopped early uses its best iteration, as the wrapper does."""
    booster = xgboost.Booster()
    booster.load_model(bytearray(files[model.conf.get("data", "model.ubj")]))
    booster.set_param({"nthread": options.threads, "device": options.device})
    columns = check_features(model, booster.feature_names or model.columns)
    is_wrapped = "sklearn" in str(model.conf.get("model_class", ""))
    best = booster.attr("best_iteration") if is_wrapped else None
    iterations = (0, int(best) + 1) if best is not None else (0, 0)
    return XGBoostPredictor(
        model,
        _host_compute(booster, iterations)
        if options.device == CPU
        else device_compute(booster, iterations, device=options.device, threads=options.threads),
        columns,
        answer=_answer(model, options, objective=_objective(booster), is_wrapped=is_wrapped),
        outputs=options.outputs,
        device=options.device,
        size_bytes=memory_bytes(model),
    )


def _objective(booster: xgboost.Booster) -> str:
    return str(json.loads(booster.save_config())["learner"]["objective"]["name"])


def _answer(model: FrozenModel, options: LoadOptions, *, objective: str, is_wrapped: bool) -> Answer:
    is_binary = objective.startswith("binary:")
    has_probabilities = is_binary or objective == "multi:softprob"
    if options.method == "predict_proba" and not has_probabilities:
        raise not_binary(model)
    if options.method == "predict_proba" or (options.method == "auto" and (is_binary or options.outputs > 1)):
        return Answer.PROBABILITIES if has_probabilities else Answer.AS_THEY_ARE
    # The wrapper of a classifier predicts the class; a booster knows nothing but its numbers.
    return Answer.CLASS if is_wrapped and has_probabilities else Answer.AS_THEY_ARE


def _host_compute(booster: xgboost.Booster, iterations: tuple[int, int]) -> Compute:
    def compute(matrix: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = booster.inplace_predict(
            matrix, iteration_range=iterations, validate_features=False, missing=np.nan
        )
        return values

    return compute
