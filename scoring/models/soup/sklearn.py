"""Weights of linear scikit-learn models, alone or at the end of a pipeline that prepares their features.

Their prediction, or its log odds, is linear in the weights: the averaged model predicts the mean of what its parents
do, of the log odds where it predicts probabilities. That is exact only if all of them see the same features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import skops.io  # noqa: TID253 - the soup's part of the flavor's module sklearn.py

from scoring.batch import Batch
from scoring.errors import ModelError, listed
from scoring.models.base import Files, FrozenModel, LoadOptions
from scoring.models.sklearn import load
from scoring.models.soup.weights import Tensors, Weights

LINEAR: Final = frozenset(
    {
        *("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "SGDRegressor"),
        *("LogisticRegression", "LogisticRegressionCV", "SGDClassifier", "RidgeClassifier", "LinearSVC", "LinearSVR"),
    }
)
"""Classes of scikit-learn whose prediction depends on `coef_` and `intercept_` alone, and on `loss` and `classes_`."""
_WEIGHTS: Final = ("coef_", "intercept_")
_FACTS: Final = ("classes_", "n_features_in_")
_PLAIN: Final = (str, bytes, bool, int, float, complex, type(None))
MAX_DEPTH: Final = 20
"""Of what is compared inside of a transformer; scikit-learn's own are flatter."""


def read(model: FrozenModel, files: Files) -> Weights:
    """Return coefficients as averaged, and what is fitted before them as fixed."""
    estimator = _estimator(model, files)
    last = _last(estimator)
    if type(last).__name__ not in LINEAR or not type(last).__module__.startswith("sklearn."):
        raise ModelError(
            f"the weights of model {model.label} cannot be averaged",
            f"one of {listed(sorted(LINEAR))} at its end",
            type(last).__name__,
            "Let such models be members of an ensemble.",
        )
    fixed = {name: np.asarray(getattr(last, name)) for name in _FACTS if hasattr(last, name)}
    lines = [f"{type(last).__name__}(loss={getattr(last, 'loss', None)!r})"]
    for path, value in _facts(estimator.steps[:-1] if last is not estimator else [], "pipeline"):
        if isinstance(value, np.ndarray):
            fixed[path] = value
        else:
            lines.append(f"{path} = {value}")
    averaged = {name: np.atleast_1d(np.asarray(getattr(last, name), dtype=np.float64)) for name in _WEIGHTS}
    return Weights(averaged, fixed, structure=tuple(lines))


def write(model: FrozenModel, files: Files, tensors: Tensors, rows: Batch | None) -> Files:
    """Return the artifact with other coefficients in its estimator; there are no statistics to recompute."""
    estimator = _estimator(model, files)
    last = _last(estimator)
    for name in _WEIGHTS:
        before = getattr(last, name)
        setattr(last, name, tensors[name].reshape(np.shape(before)) if np.ndim(before) else float(tensors[name][0]))
    return {**files, model.conf["pickled_model"]: skops.io.dumps(estimator)}


def _estimator(model: FrozenModel, files: Files) -> Any:
    """Return the estimator in an artifact; its types are audited as they are for scoring."""
    return load(model, files, LoadOptions(method="predict")).estimator


def _last(estimator: Any) -> Any:
    return estimator.steps[-1][1] if type(estimator).__name__ == "Pipeline" else estimator


def _facts(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, npt.NDArray[Any] | str]]:
    """Yield what a fitted object consists of, by path: arrays of numbers as they are, all else as text."""
    if isinstance(value, np.ndarray | np.generic):
        yield path, np.asarray(value) if value.dtype.kind in "biuf" else repr(value.tolist())
    elif isinstance(value, _PLAIN):
        yield path, repr(value)
    elif isinstance(value, type | slice | np.dtype) or callable(value):
        yield path, getattr(value, "__qualname__", repr(value))
    elif depth > MAX_DEPTH:
        yield path, f"{type(value).__name__}, too deep to be compared ({id(value)})"
    else:
        yield path, type(value).__qualname__
        for key, inner in _parts(value):
            yield from _facts(inner, path + key, depth + 1)


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Return what a container or an object consists of, in an order that is always the same."""
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", inner) for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{position}]", inner) for position, inner in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [(f"[{inner!r}]", inner) for inner in sorted(value, key=repr)]
    return [(f".{name}", inner) for name, inner in sorted(getattr(value, "__dict__", {}).items())]
