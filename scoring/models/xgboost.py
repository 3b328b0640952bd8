"""XGBoost models in UBJ or JSON format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from scoring.batch import Batch
from scoring.errors import ModelError, listed
from scoring.models.base import CPU, Files, FrozenModel, LoadOptions
from scoring.models.flavors import memory_bytes
from scoring.models.xgboost_device import Compute, device_compute


@dataclass(frozen=True, slots=True)
class XGBoostPredictor:
    """A booster that predicts straight from the shared feature matrix."""

    compute: Compute
    columns: tuple[str, ...]
    as_class: bool
    device: str
    size_bytes: int

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Predict as `Booster.predict` does; null and NaN are missing values."""
        values = self.compute(batch.matrix(self.columns))
        return (values > 0.5).astype(np.float64) if self.as_class else values


def load(model: FrozenModel, files: Files, options: LoadOptions) -> XGBoostPredictor:
    """Load a booster; one that scikit-learn's wrapper stopped early uses its best iteration, as the wrapper does."""
    booster = xgboost.Booster()
    booster.load_model(bytearray(files[model.conf.get("data", "model.ubj")]))
    booster.set_param({"nthread": options.threads, "device": options.device})
    columns = tuple(booster.feature_names or model.columns)
    missing = [column for column in columns if column not in model.columns]
    if missing:
        raise ModelError(
            f"model {model.label} needs features that its signature lacks", listed(columns), f"no {listed(missing)}"
        )
    is_wrapped = "sklearn" in str(model.conf.get("model_class", ""))
    best = booster.attr("best_iteration") if is_wrapped else None
    is_binary = "binary:" in booster.save_config()
    if options.method == "predict_proba" and not is_binary:
        raise ModelError(
            f"model {model.label} is not a binary classifier", hint="Set 'method: predict' on the model step."
        )
    iterations = (0, int(best) + 1) if best is not None else (0, 0)
    return XGBoostPredictor(
        _host_compute(booster, iterations)
        if options.device == CPU
        else device_compute(booster, iterations, device=options.device, threads=options.threads),
        columns,
        as_class=options.method == "predict" and is_binary and is_wrapped,
        device=options.device,
        size_bytes=memory_bytes(model),
    )


def _host_compute(booster: xgboost.Booster, iterations: tuple[int, int]) -> Compute:
    def compute(matrix: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = booster.inplace_predict(
            matrix, iteration_range=iterations, validate_features=False, missing=np.nan
        )
        return values

    return compute
