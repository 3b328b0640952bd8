"""Boosters and wrappers of LightGBM: what each method means, and which columns are which features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.models.cache import PredictorCache
from tests.models.saving import FEATURES, FRAME, LABEL, ROWS, THREE, predicted, saved

lightgbm = pytest.importorskip("lightgbm")
SMALL: dict[str, Any] = {"n_estimators": 5, "num_leaves": 5, "n_jobs": 1, "verbosity": -1}
TEXT = FRAME[["city", "x"]]


def trained(features: Any, target: Any, **goal: Any) -> Any:
    return lightgbm.train({"num_threads": 1, "verbosity": -1, **goal}, lightgbm.Dataset(features, target), 5)


def test_methods_of_a_wrapper_are_those_of_the_wrapper(tmp_path: Path) -> None:
    native = lightgbm.LGBMClassifier(**SMALL).fit(FEATURES, LABEL)
    model = saved(mlflow.lightgbm, native, tmp_path)
    assert "model.skops" in model[1]
    np.testing.assert_array_equal(predicted(model), native.predict_proba(FEATURES)[:, 1])
    np.testing.assert_array_equal(predicted(model, method="predict"), native.predict(FEATURES))
    np.testing.assert_array_equal(predicted(model, outputs=2), native.predict_proba(FEATURES))


def test_a_wrapper_of_three_classes_predicts_the_class_or_all_probabilities(tmp_path: Path) -> None:
    labels = THREE * 10 + 5
    native = lightgbm.LGBMClassifier(**SMALL).fit(FEATURES, labels)
    model = saved(mlflow.lightgbm, native, tmp_path)
    np.testing.assert_array_equal(predicted(model), native.predict(FEATURES))
    assert set(predicted(model)) <= {5.0, 15.0, 25.0}
    np.testing.assert_array_equal(predicted(model, outputs=3), native.predict_proba(FEATURES))
    with pytest.raises(ModelError, match="is not a binary classifier"):
        predicted(model, method="predict_proba")


def test_a_booster_that_stopped_early_uses_its_best_iteration(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).permutation(LABEL.to_numpy())
    data = lightgbm.Dataset(FEATURES, LABEL)
    goal = {"objective": "binary", "num_threads": 1, "verbosity": -1}
    stop = lightgbm.early_stopping(20, verbose=False)
    watched = lightgbm.Dataset(FEATURES, noise, reference=data)
    native = lightgbm.train(goal, data, 50, valid_sets=[watched], callbacks=[stop], keep_training_booster=True)
    assert native.best_iteration < native.current_iteration()
    found = predicted(saved(mlflow.lightgbm, native, tmp_path))
    np.testing.assert_array_equal(found, native.predict(FEATURES))
    assert np.abs(found - native.predict(FEATURES, num_iteration=-1)).max() > 0.1


@pytest.mark.parametrize("kind", ["LGBMRegressor", "Booster"])
def test_regressions_predict_and_have_no_probability(tmp_path: Path, kind: str) -> None:
    native = (
        trained(FEATURES, FRAME["x"])
        if kind == "Booster"
        else lightgbm.LGBMRegressor(**SMALL).fit(FEATURES, FRAME["x"])
    )
    model = saved(mlflow.lightgbm, native, tmp_path)
    for method in ("auto", "predict"):
        np.testing.assert_array_equal(predicted(model, method=method), native.predict(FEATURES))
    with pytest.raises(ModelError, match=r"is not a binary classifier\. Set 'method: predict'"):
        predicted(model, method="predict_proba")


def test_text_is_a_category_as_in_training(tmp_path: Path) -> None:
    features = TEXT.astype({"city": "category"})
    native = trained(features, LABEL, objective="binary")
    model = saved(mlflow.lightgbm, native, tmp_path, features=TEXT)
    np.testing.assert_array_equal(predicted(model), native.predict(features))
    one_city = ROWS.filter(np.asarray(FRAME["city"] == "Lima"))
    found = PredictorCache().get(*model).predict(Batch(one_city))
    np.testing.assert_array_equal(found, native.predict(features)[FRAME["city"] == "Lima"])


def test_features_go_by_name_and_those_of_an_array_by_position(tmp_path: Path) -> None:
    turned = trained(FEATURES[["y", "x"]], FRAME["x"])
    found = predicted(saved(mlflow.lightgbm, turned, tmp_path / "turned"))
    np.testing.assert_array_equal(found, turned.predict(FEATURES[["y", "x"]]))
    array = trained(FEATURES.to_numpy(), FRAME["x"])
    found = predicted(saved(mlflow.lightgbm, array, tmp_path / "array"))
    np.testing.assert_array_equal(found, array.predict(FEATURES.to_numpy()))
    renamed = trained(FEATURES.rename(columns={"y": "z"}), FRAME["x"])
    with pytest.raises(ModelError, match="needs features that its signature lacks: expected x, z, got no z"):
        predicted(saved(mlflow.lightgbm, renamed, tmp_path / "renamed"))
