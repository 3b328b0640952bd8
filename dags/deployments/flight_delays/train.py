"""Trains the three models of `flight_delays` on one window of labelled flights and logs them to MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import mlflow
import numpy as np
import pandas as pd
import sklearn
import skops
import torch
import xgboost
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor, nn

if TYPE_CHECKING:
    from scoring.training import TrainingWindow

NAMES: Final = ("carrier", "origin", "dest")
"""Text columns, for the linear model."""
CODES: Final = ("carrier_code", "origin_code", "dest_code")
"""Their hashed codes, for the trees and the net."""
PERIODIC: Final = ("day_of_week", "sched_dep_hour")
"""Whole numbers that the linear model takes as categories, since their effect is no straight line."""
WHOLE: Final = (
    *PERIODIC,
    *("sched_dep_minute", "sched_arr_hour", "sched_arr_minute", "dep_minute_of_day", "planned_minutes", "distance"),
)
"""Whole numbers that are never null."""
MEASURED: Final = (
    *("plane_age", "seats", "engines"),
    *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
)
"""Numbers that can be null."""

LINEAR_COLUMNS: Final = (*NAMES, *WHOLE, *MEASURED)
MATRIX_COLUMNS: Final = (*CODES, *WHOLE, *MEASURED)
"""Columns of the trees and the net, in the order of their matrix; codes come first."""

TREES: Final = 200
EPOCHS: Final = 2
TRAIN_BATCH_ROWS: Final = 512
EMBEDDING_ROWS: Final = 4096
"""Rows of an embedding; larger codes wrap around."""
EMBEDDING_DIMENSIONS: Final = 8
EXAMPLE_ROWS: Final = 5


def train(window: TrainingWindow) -> dict[str, str]:
    """Log the linear model, the trees and the net; return registered model names with the URIs of what was logged."""
    frame = window.frame
    late = frame[window.label].to_numpy(dtype=np.int64)
    matrix = frame[list(MATRIX_COLUMNS)].to_numpy(dtype=np.float32)
    return {
        "flight_delay_linear": _log_linear(fit_linear(frame, late, seed=window.seed), frame),
        "flight_delay_trees": _log_trees(fit_trees(matrix, late, seed=window.seed), frame),
        "flight_delay_net": _log_net(fit_net(matrix, late, seed=window.seed), frame),
    }


# --------------------------------------------------------------------------------------------------------- linear


def fit_linear(frame: pd.DataFrame, late: NDArray[np.int64], *, seed: int) -> Pipeline:
    """Fit a logistic regression on one-hot categories and standardised numbers."""
    numbers = [name for name in (*WHOLE, *MEASURED) if name not in PERIODIC]
    one_hot = OneHotEncoder(handle_unknown="ignore", min_frequency=20, dtype=np.float64)
    scaled = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    columns = ColumnTransformer([("names", one_hot, list(NAMES + PERIODIC)), ("numbers", scaled, numbers)])
    model = Pipeline([("columns", columns), ("logistic", LogisticRegression(C=0.3, max_iter=300, random_state=seed))])
    return model.fit(frame[list(LINEAR_COLUMNS)], late)


def _log_linear(model: Pipeline, frame: pd.DataFrame) -> str:
    logged = mlflow.sklearn.log_model(
        model,
        name="linear",
        serialization_format="skops",
        skops_trusted_types=["numpy.dtype"],
        pyfunc_predict_fn="predict_proba",
        signature=_signature(LINEAR_COLUMNS, np.dtype(np.float64), (-1, 2)),
        input_example=frame[list(LINEAR_COLUMNS)].head(EXAMPLE_ROWS),
        pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"skops=={skops.__version__}"],
    )
    return logged.model_uri


# ---------------------------------------------------------------------------------------------------------- trees


def fit_trees(matrix: NDArray[np.float32], late: NDArray[np.int64], *, seed: int) -> xgboost.Booster:
    """Fit boosted trees; one thread, so that the same window gives the same trees on every machine."""
    parameters = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_depth": 6,
        "eta": 0.05,
        "subsample": 0.8,
        "colsample_bytree": 0.3,
        "min_child_weight": 100,
        "nthread": 1,
        "seed": seed,
    }
    data = xgboost.QuantileDMatrix(matrix, late, feature_names=list(MATRIX_COLUMNS))
    return xgboost.train(parameters, data, num_boost_round=TREES)


def _log_trees(model: xgboost.Booster, frame: pd.DataFrame) -> str:
    logged = mlflow.xgboost.log_model(
        model,
        name="trees",
        model_format="ubj",
        signature=_signature(MATRIX_COLUMNS, np.dtype(np.float32), (-1,)),
        input_example=frame[list(MATRIX_COLUMNS)].head(EXAMPLE_ROWS),
        pip_requirements=[f"xgboost=={xgboost.__version__}"],
    )
    return logged.model_uri


# ------------------------------------------------------------------------------------------------------------ net


class FlightDelayNet(nn.Module):
    """Maps a float32 matrix with the columns `MATRIX_COLUMNS`, shape (n, d), to probabilities, shape (n,).

    All preparation is inside: embeddings of the codes, medians for missing numbers, a flag for each number that can
    be missing, standardisation.
    """

    medians: Tensor
    means: Tensor
    deviations: Tensor

    def __init__(self, numbers: Tensor) -> None:
        """Remember medians, means and deviations of `numbers`: the matrix without its codes."""
        super().__init__()
        medians = torch.nan_to_num(numbers.nanmedian(dim=0).values)
        filled = torch.where(torch.isnan(numbers), medians, numbers)
        self.register_buffer("medians", medians)
        self.register_buffer("means", filled.mean(dim=0))
        self.register_buffer("deviations", filled.std(dim=0).clamp_min(1e-3))
        self.embeddings = nn.ModuleList(nn.Embedding(EMBEDDING_ROWS, EMBEDDING_DIMENSIONS) for _ in CODES)
        width = len(CODES) * EMBEDDING_DIMENSIONS + numbers.shape[1] + len(MEASURED)
        self.layers = nn.Sequential(
            nn.Linear(width, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the probability that each flight is late."""
        return torch.sigmoid(self.logits(features))

    def logits(self, features: Tensor) -> Tensor:
        """Return log odds, which the training loss needs."""
        codes = features[:, : len(CODES)].long() % EMBEDDING_ROWS
        numbers = features[:, len(CODES) :]
        missing = torch.isnan(numbers)
        filled = torch.where(missing, self.medians, numbers)
        # A summer day lies many winter deviations away: the limit keeps the net from running off.
        scaled = ((filled - self.means) / self.deviations).clamp(-4.0, 4.0)
        embedded = [embedding(codes[:, position]) for position, embedding in enumerate(self.embeddings)]
        flags = missing[:, -len(MEASURED) :].to(features.dtype)
        return self.layers(torch.cat([*embedded, scaled, flags], dim=1)).squeeze(1)


def fit_net(matrix: NDArray[np.float32], late: NDArray[np.int64], *, seed: int) -> FlightDelayNet:
    """Fit the net with AdamW on one thread, so that the same window gives the same net."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return _fitted_net(torch.from_numpy(matrix), torch.from_numpy(late.astype(np.float32)))
    finally:
        torch.set_num_threads(threads)


def _fitted_net(features: Tensor, late: Tensor) -> FlightDelayNet:
    net = FlightDelayNet(features[:, len(CODES) :])
    loss = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(features)).split(TRAIN_BATCH_ROWS):
            optimizer.zero_grad()
            loss(net.logits(features[rows]), late[rows]).backward()
            optimizer.step()
    return net.eval()


def _log_net(model: FlightDelayNet, frame: pd.DataFrame) -> str:
    example = frame[list(MATRIX_COLUMNS)].head(EXAMPLE_ROWS).to_numpy(dtype=np.float32)
    shape, dtype = (-1, len(MATRIX_COLUMNS)), np.dtype(np.float32)
    outputs = Schema([TensorSpec(dtype, (-1,))])
    logged = mlflow.pytorch.log_model(
        model,
        name="net",
        serialization_format="pt2",
        signature=ModelSignature(inputs=Schema([TensorSpec(dtype, shape)]), outputs=outputs),
        input_example=example,
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
    )
    # MLflow exports from a tensor signature only; scoring wants the columns' names, in the order of the matrix.
    mlflow.models.set_signature(logged.model_uri, _signature(MATRIX_COLUMNS, dtype, (-1,)))
    return logged.model_uri


# ------------------------------------------------------------------------------------------------------ signature


def _signature(columns: tuple[str, ...], dtype: np.dtype, shape: tuple[int, ...]) -> ModelSignature:
    """Return a signature that says which columns can be null, which MLflow would guess from the example."""
    inputs = Schema([ColSpec(_type(name), name, required=name not in MEASURED) for name in columns])
    return ModelSignature(inputs=inputs, outputs=Schema([TensorSpec(dtype, shape)]))


def _type(name: str) -> DataType:
    if name in NAMES:
        return DataType.string
    return DataType.double if name in MEASURED else DataType.integer
