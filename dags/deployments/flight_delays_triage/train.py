"""Fits the models of `flight_delays_triage`: two members, and a combiner on predictions for nights not seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import mlflow
import numpy as np
import pandas as pd
import sklearn
import skops
import xgboost
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from scoring.blending import out_of_fold

if TYPE_CHECKING:
    from scoring.training import TrainingWindow

PARTITION: Final = "flight_date"
NAMES: Final = ("carrier", "origin", "dest")
"""Text columns, for the linear member."""
PERIODIC: Final = ("day_of_week", "sched_dep_hour")
"""Whole numbers that the linear member takes as categories."""
WEATHER: Final = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
LINEAR: Final = (*NAMES, *PERIODIC, "distance", *WEATHER)
TREES: Final = (*PERIODIC, "distance", "plane_age", "seats", *WEATHER)
MEMBERS: Final = ("linear", "trees")
"""As the ensemble in `deployment.yaml` calls them; the signature of the combiner."""
FOLDS: Final = 4
ROUNDS: Final = 60


def train(window: TrainingWindow) -> dict[str, str]:
    """Log members and combiner; return registered names with the URIs of what was logged."""
    frame = window.frame.assign(late=window.frame[window.label].astype(np.int64))
    members = {"linear": _linear(window.seed), "trees": _trees(window.seed)}
    # The combiner learns from predictions for nights that the members have not seen; then these are fitted on all.
    predictions = out_of_fold(members, frame, by=PARTITION, folds=FOLDS, seed=window.seed)
    blend = LogisticRegression().fit(predictions[list(MEMBERS)], frame["late"])
    linear, trees = fit_linear(frame, window.seed), fit_trees(frame, window.seed)
    return {
        "flight_triage_linear": _log_sklearn("linear", linear, LINEAR),
        "flight_triage_trees": _log_trees(trees),
        "flight_triage_blend": _log_sklearn("blend", blend, MEMBERS),
    }


def fit_linear(frame: pd.DataFrame, seed: int) -> Pipeline:
    """Fit a logistic regression on one-hot categories and standardised numbers."""
    scaled = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    one_hot = OneHotEncoder(handle_unknown="ignore", min_frequency=20)
    columns = ColumnTransformer([("names", one_hot, [*NAMES, *PERIODIC]), ("numbers", scaled, ["distance", *WEATHER])])
    return make_pipeline(columns, LogisticRegression(max_iter=300, random_state=seed)).fit(
        frame[list(LINEAR)], frame["late"]
    )


def fit_trees(frame: pd.DataFrame, seed: int) -> xgboost.Booster:
    """Fit boosted trees; one thread, so that the same window gives the same trees on every machine."""
    data = xgboost.DMatrix(frame[list(TREES)].astype(np.float32), frame["late"], nthread=1)
    settings = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.1, "nthread": 1, "seed": seed}
    return xgboost.train(settings, data, num_boost_round=ROUNDS)


def _linear(seed: int) -> Callable[[pd.DataFrame], Callable[[pd.DataFrame], Any]]:
    def fit(seen: pd.DataFrame) -> Callable[[pd.DataFrame], Any]:
        model = fit_linear(seen, seed)
        return lambda rows: model.predict_proba(rows[list(LINEAR)])[:, 1]

    return fit


def _trees(seed: int) -> Callable[[pd.DataFrame], Callable[[pd.DataFrame], Any]]:
    def fit(seen: pd.DataFrame) -> Callable[[pd.DataFrame], Any]:
        model = fit_trees(seen, seed)
        return lambda rows: model.predict(xgboost.DMatrix(rows[list(TREES)].astype(np.float32), nthread=1))

    return fit


def _log_sklearn(name: str, model: Any, columns: tuple[str, ...]) -> str:
    logged = mlflow.sklearn.log_model(
        model,
        name=name,
        serialization_format="skops",
        skops_trusted_types=["numpy.dtype"],
        signature=_signature(columns),
        pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"skops=={skops.__version__}"],
    )
    return logged.model_uri


def _log_trees(model: xgboost.Booster) -> str:
    requirements = [f"xgboost=={xgboost.__version__}"]
    logged = mlflow.xgboost.log_model(
        model, name="trees", model_format="ubj", signature=_signature(TREES), pip_requirements=requirements
    )
    return logged.model_uri


def _signature(columns: tuple[str, ...]) -> ModelSignature:
    """Return a signature that says which columns can be null, which MLflow would guess from the example."""
    optional = (*WEATHER, "plane_age", "seats")
    inputs = [ColSpec(_type(name), name, required=name not in optional) for name in columns]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([ColSpec(DataType.double)]))


def _type(name: str) -> DataType:
    if name in NAMES:
        return DataType.string
    if name in ("sched_dep_hour", "distance"):
        return DataType.integer
    return DataType.long if name == "day_of_week" else DataType.double
