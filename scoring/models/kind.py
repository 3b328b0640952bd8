"""What an artifact says of its model without being opened by its library: whether it is a regressor."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any, Final

from scoring.models.base import Files, FrozenModel

REGRESSORS: Final = frozenset(
    {
        *("ARDRegression", "BayesianRidge", "CCA", "ElasticNet", "ElasticNetCV", "IsotonicRegression", "KernelRidge"),
        *("Lars", "LarsCV", "Lasso", "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression"),
        *("LinearSVR", "MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV", "NuSVR"),
        *("OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV", "PLSCanonical", "PLSRegression"),
        *("RegressorChain", "Ridge", "RidgeCV", "SVR"),
    }
)
"""scikit-learn's regressors whose names do not end with `Regressor`."""


def is_regressor(model: FrozenModel, files: Files) -> bool:
    """Return whether an artifact names the class of a regressor; False also where it names no class.

    MLflow notes the class of XGBoost's, LightGBM's and CatBoost's scikit-learn models; skops that of every estimator.
    """
    noted = str(model.conf.get("model_class") or model.conf.get("model_type") or "").rpartition(".")[2]
    if model.flavor == "sklearn" and model.conf.get("serialization_format") == "skops":
        noted = _skops_class(files[model.conf["pickled_model"]])
    return noted.endswith("Regressor") or noted in REGRESSORS


def _skops_class(content: bytes) -> str:
    """Return the class of an estimator, of a pipeline that of its last step; empty if the file says none."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            node: Any = json.loads(archive.read("schema.json"))
        while node["__class__"] == "Pipeline":
            node = node["content"]["content"]["steps"]["content"][-1]["content"][1]
        return str(node["__class__"])
    except (zipfile.BadZipFile, KeyError, IndexError, TypeError, ValueError):
        return ""  # whoever loads it says what is wrong with it
