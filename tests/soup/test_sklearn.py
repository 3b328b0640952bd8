"""Soups of linear scikit-learn models, against what their parents predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from scoring.errors import ModelError
from scoring.models.base import Files, FrozenModel
from scoring.models.sklearn import TRUSTED_TYPES
from scoring.models.soup import sklearn as soup
from scoring.models.soup.weights import average, check_compatible
from scoring.testing import example_rows

DATA = example_rows(400, seed=3).to_pandas()
FROZEN = FrozenModel("m", 1, "", "sklearn", {"pickled_model": "m.skops", "serialization_format": "skops"}, (), 0)


def prepared(estimator: Any, rows: pd.DataFrame = DATA) -> Any:
    columns = ColumnTransformer(
        [
            ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["x", "y"]),
        ]
    )
    return make_pipeline(columns, estimator).fit(rows, rows["label"])


def files_of(estimator: Any) -> Files:
    return {"m.skops": skops.io.dumps(estimator)}


def souped(parents: list[Any], mixing: list[float]) -> Any:
    files = [files_of(parent) for parent in parents]
    weights = [soup.read(FROZEN, found) for found in files]
    check_compatible({f"v{number}": found for number, found in enumerate(weights)})
    made = soup.write(FROZEN, files[0], average([found.averaged for found in weights], mixing), None)
    return skops.io.loads(made["m.skops"], trusted=sorted(TRUSTED_TYPES))


def test_log_odds_are_the_mean_of_the_parents() -> None:
    parents = [prepared(LogisticRegression(C=strength)) for strength in (0.001, 0.1, 10)]
    mixing = [0.2, 0.3, 0.5]
    expected = sum(share * parent.decision_function(DATA) for share, parent in zip(mixing, parents, strict=True))
    np.testing.assert_allclose(souped(parents, mixing).decision_function(DATA), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("targets", [["label"], ["label", "id"]])
def test_regressions_are_the_mean_of_the_parents(targets: list[str]) -> None:
    features, target = DATA[["x", "y"]], DATA[targets].squeeze(axis=1)
    parents = [Ridge(alpha=strength).fit(features, target) for strength in (0.1, 100)]
    expected = np.mean([parent.predict(features) for parent in parents], axis=0)
    np.testing.assert_allclose(souped(parents, [0.5, 0.5]).predict(features), expected, rtol=1e-10, atol=1e-10)


def test_a_model_without_intercept() -> None:
    features = DATA[["x", "y"]]
    parents = [LinearRegression(fit_intercept=False).fit(features[part], DATA["label"][part]) for part in HALVES]
    expected = np.mean([parent.predict(features) for parent in parents], axis=0)
    np.testing.assert_allclose(souped(parents, [0.5, 0.5]).predict(features), expected, rtol=1e-10, atol=1e-12)


HALVES = (slice(0, 200), slice(200, 400))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            lambda: prepared(LogisticRegression(), DATA.head(300)),
            r"statistics_', which prepares features .* differs at \[0\]",
        ),
        (lambda: prepared(SGDClassifier()), r"line 1: expected 'LogisticRegression\(.*got .SGDClassifier\(loss"),
        (
            lambda: LogisticRegression().fit(DATA[["x"]], DATA["label"]),
            r"tensor 'coef_' differs: .*\(1, 5\) .*\(1, 1\)",
        ),
        (
            lambda: prepared(LogisticRegression(), DATA.assign(city=DATA["city"].replace("Lima", "Rome"))),
            r"expected \"pipeline.*categories_\[0\] = \['Kyoto', 'Lima', 'Oslo'\]\" .*'Rome'",
        ),
        (
            lambda: prepared(LogisticRegression(), DATA.assign(label=DATA["label"] + 1)),
            r"'classes_', which .* differs at \[0\]",
        ),
    ],
)
def test_other_features_and_classes_are_refused(other: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        souped([prepared(LogisticRegression()), other()], [0.5, 0.5])


def test_trees_have_no_weights_to_average() -> None:
    forest = RandomForestClassifier(2).fit(DATA[["x", "y"]], DATA["label"])
    with pytest.raises(ModelError, match=r"cannot be averaged: expected one of .* got RandomForestClassifier\. Let"):
        soup.read(FROZEN, files_of(forest))


def test_a_class_that_only_has_the_name_of_a_linear_one_is_refused() -> None:
    class Ridge(LinearRegression):
        pass

    Ridge.__module__ = "elsewhere"
    with pytest.raises(ModelError, match=r"holds types that could run code"):
        soup.read(FROZEN, files_of(Ridge().fit(DATA[["x"]], DATA["y"])))
