"""The models as their libraries load them, for every way but ours: the same files, no wrapper."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from tests.benchmarks.cases import PREDICT_ROWS, Case, Graph
from tests.benchmarks.places import Places

Features = npt.NDArray[np.float32] | pd.DataFrame
"""A matrix of shape (rows, columns) where all features are numbers, else a frame."""
Predict = Callable[[Features], npt.NDArray[Any]]


class NativeGraph:
    """The models of a case, loaded."""

    def __init__(self, case: Case, models: list[Predict]) -> None:
        self.case = case
        self.models = models

    def predict(self, features: Features) -> npt.NDArray[np.float64]:
        """Return one score per row."""
        match self.case.graph:
            case Graph.SINGLE:
                return self.models[0](features).astype(np.float64, copy=False)
            case Graph.MEAN:
                return np.mean([model(features) for model in self.models], axis=0, dtype=np.float64)
            case Graph.CHAIN:
                rows, columns = features.shape
                wider = np.empty((columns + 1, rows), dtype=np.float32).T
                wider[:, :columns] = features
                wider[:, columns] = self.models[0](features)
                for model in self.models[1:]:
                    wider[:, columns] = model(wider)
                return wider[:, columns].astype(np.float64)

    def of_arrow(self, batch: pa.RecordBatch) -> Features:
        """Return the features of a batch. Column by column is the order of memory in Arrow, and the fastest to fill."""
        columns = self.case.dataset.features
        if not self.case.is_numeric:
            return batch.select(columns).to_pandas()
        return stacked([batch.column(name).to_numpy(zero_copy_only=False) for name in columns])

    def of_columns(self, columns: list[Any]) -> Features:
        """Return the features from one array or series per column."""
        if not self.case.is_numeric:
            return pd.DataFrame(dict(zip(self.case.dataset.features, columns, strict=True)), copy=False)
        return stacked(columns)

    def of_frame(self, frame: pd.DataFrame) -> Features:
        """Return the features of a frame."""
        return frame.to_numpy(dtype=np.float32) if self.case.is_numeric else frame


def stacked(columns: list[Any]) -> npt.NDArray[np.float32]:
    """Return columns as a matrix in column-major order."""
    matrix = np.empty((len(columns), len(columns[0])), dtype=np.float32)
    for row, column in enumerate(columns):
        matrix[row] = column
    return matrix.T


@cache
def load(case: Case, places: Places, threads: int) -> NativeGraph:
    """Load the models of a case, once per process."""
    return NativeGraph(case, [_load(name, places, threads) for name in case.models])


def _load(name: str, places: Places, threads: int) -> Predict:
    folder = places.model(name)
    if (folder / "model.ubj").exists():
        return _xgboost(folder / "model.ubj", threads)
    if (folder / "model.pt2").exists():
        return _torch(folder / "model.pt2", threads, PREDICT_ROWS[name])
    estimator = pickle.loads((folder / "model.pickle").read_bytes())
    return lambda features: estimator.predict_proba(features)[:, 1]


def _xgboost(file: Any, threads: int) -> Predict:
    import xgboost

    booster = xgboost.Booster({"nthread": threads})
    booster.load_model(file)
    booster.set_param({"nthread": threads})
    return lambda matrix: booster.inplace_predict(matrix, validate_features=False)


def _torch(file: Any, threads: int, size: int) -> Predict:
    import torch

    torch.set_num_threads(threads)
    module = torch.export.load(file).module()

    def predict(matrix: Features) -> npt.NDArray[Any]:
        inputs = torch.from_numpy(matrix)
        with torch.inference_mode():
            parts = [module(inputs[start : start + size]) for start in range(0, len(inputs), size)]
            return torch.cat(parts).numpy()

    return predict
