"""The flavor `weighted_sum`: a JSON file of one weight per column and output, and null counts as zero."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scoring.batch import Batch
from scoring.models.base import Files, FrozenModel, LoadOptions, expected_columns

FILE = "weights.json"


@dataclass(frozen=True)
class WeightedSum:
    """Sums columns by their weights."""

    model: FrozenModel
    weights: np.ndarray
    outputs: int

    def predict(self, batch: Batch) -> np.ndarray:
        features = np.nan_to_num(batch.frame(self.model.types).to_numpy())
        sums = sum(features[:, [position]] * row for position, row in enumerate(self.weights))
        return expected_columns(self.model, sums, self.outputs)


def load(model: FrozenModel, files: Files, options: LoadOptions) -> WeightedSum:
    return WeightedSum(model, np.array(json.loads(files[FILE])), options.outputs)


def save_model(*, path: str, mlflow_model: Any, weights: np.ndarray, signature: Any) -> None:
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(weights.tolist()), "utf-8")
    mlflow_model.signature = signature
    mlflow_model.add_flavor("weighted_sum")
    mlflow_model.save(str(folder / "MLmodel"))
