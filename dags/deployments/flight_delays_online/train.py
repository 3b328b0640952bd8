"""Fits the model that `flight_delays_online` starts from: logistic regression by stochastic gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import mlflow
import numpy as np
import pandas as pd
import sklearn
import skops
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

if TYPE_CHECKING:
    from scoring.training import TrainingWindow

NAMES: Final = ("carrier", "origin", "dest")
"""Text columns."""
PERIODIC: Final = ("day_of_week", "sched_dep_hour")
"""Whole numbers that are taken as categories, since their effect is no straight line."""
MEASURED: Final = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
"""Weather at the origin; can be null."""
COLUMNS: Final = (*NAMES, *PERIODIC, "distance", *MEASURED)
FITTING_RATE: Final = 1e-3
LEARNING_RATE: Final = 1e-4
"""Of one flight: what a night teaches must outlive the nights after it. Chosen on nights of February and March."""
TRUSTED: Final = ("numpy.dtype",)
EXAMPLE_ROWS: Final = 5


def train(window: TrainingWindow) -> dict[str, str]:
    """Log the model; return its registered name with the URI of what was logged."""
    model = fit(window.frame, window.frame[window.label].to_numpy(dtype=np.int64), seed=window.seed)
    logged = mlflow.sklearn.log_model(
        model,
        name="online",
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED),
        pyfunc_predict_fn="predict_proba",
        signature=_signature(),
        input_example=window.frame[list(COLUMNS)].head(EXAMPLE_ROWS),
        pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"skops=={skops.__version__}"],
    )
    return {"flight_delay_online": logged.model_uri}


def fit(frame: pd.DataFrame, late: np.ndarray, *, seed: int) -> Pipeline:
    """Fit categories, scales and the classifier; afterwards only the classifier learns on."""
    one_hot = OneHotEncoder(handle_unknown="ignore", min_frequency=20)
    scaled = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    columns = ColumnTransformer([("names", one_hot, [*NAMES, *PERIODIC]), ("numbers", scaled, ["distance", *MEASURED])])
    # A constant rate: with one that falls, the thousandth night would teach nothing.
    classifier = SGDClassifier(
        loss="log_loss", learning_rate="constant", eta0=FITTING_RATE, max_iter=20, tol=None, random_state=seed
    )
    model = Pipeline([("columns", columns), ("classifier", classifier)]).fit(frame[list(COLUMNS)], late)
    return model.set_params(classifier__eta0=LEARNING_RATE)


def _signature() -> ModelSignature:
    """Return a signature that says which columns can be null, which MLflow would guess from the example."""
    inputs = [ColSpec(_type(name), name, required=name not in MEASURED) for name in COLUMNS]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([TensorSpec(np.dtype(np.float64), (-1, 2))]))


def _type(name: str) -> DataType:
    if name in NAMES:
        return DataType.string
    if name == "day_of_week":
        return DataType.long
    return DataType.double if name in MEASURED else DataType.integer
