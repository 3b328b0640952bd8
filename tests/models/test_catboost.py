"""What each method means for CatBoost's kinds of models, and which columns are which features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.models.cache import PredictorCache
from tests.models.saving import FEATURES, FRAME, LABEL, ROWS, THREE, predicted, saved

catboost = pytest.importorskip("catboost")
SMALL: dict[str, Any] = {"iterations": 5, "depth": 3, "thread_count": 1, "verbose": 0, "allow_writing_files": False}


def test_methods_of_a_classifier_are_those_of_the_classifier(tmp_path: Path) -> None:
    native = catboost.CatBoostClassifier(**SMALL).fit(FEATURES, LABEL)
    model = saved(mlflow.catboost, native, tmp_path)
    np.testing.assert_array_equal(predicted(model), native.predict_proba(FEATURES)[:, 1])
    np.testing.assert_array_equal(predicted(model, method="predict"), native.predict(FEATURES))
    np.testing.assert_array_equal(predicted(model, outputs=2), native.predict_proba(FEATURES))


def test_three_classes_are_predicted_or_have_three_probabilities(tmp_path: Path) -> None:
    native = catboost.CatBoostClassifier(**SMALL).fit(FEATURES, THREE)
    model = saved(mlflow.catboost, native, tmp_path)
    np.testing.assert_array_equal(predicted(model), native.predict(FEATURES)[:, 0])
    np.testing.assert_array_equal(predicted(model, outputs=3), native.predict_proba(FEATURES))
    with pytest.raises(ModelError, match="is not a binary classifier"):
        predicted(model, method="predict_proba")


def test_regressions_predict_one_or_several_targets_and_have_no_probability(tmp_path: Path) -> None:
    native = catboost.CatBoostRegressor(**SMALL).fit(FEATURES, FRAME["x"])
    model = saved(mlflow.catboost, native, tmp_path / "one")
    np.testing.assert_array_equal(predicted(model), native.predict(FEATURES))
    with pytest.raises(ModelError, match=r"is not a binary classifier\. Set 'method: predict'"):
        predicted(model, method="predict_proba")
    several = catboost.CatBoostRegressor(loss_function="MultiRMSE", **SMALL).fit(FEATURES, FEATURES)
    model = saved(mlflow.catboost, several, tmp_path / "two")
    np.testing.assert_array_equal(predicted(model, outputs=2), several.predict(FEATURES))


def test_features_go_by_name_and_those_of_an_array_by_position(tmp_path: Path) -> None:
    turned = catboost.CatBoostRegressor(**SMALL).fit(FEATURES[["y", "x"]], FRAME["x"])
    found = predicted(saved(mlflow.catboost, turned, tmp_path / "turned"))
    np.testing.assert_array_equal(found, turned.predict(FEATURES[["y", "x"]]))
    array = catboost.CatBoostRegressor(**SMALL).fit(FEATURES.to_numpy(), FRAME["x"])
    found = predicted(saved(mlflow.catboost, array, tmp_path / "array"))
    np.testing.assert_array_equal(found, array.predict(FEATURES.to_numpy()))
    renamed = catboost.CatBoostRegressor(**SMALL).fit(FEATURES.rename(columns={"y": "z"}), FRAME["x"])
    with pytest.raises(ModelError, match="needs features that its signature lacks: expected x, z, got no z"):
        predicted(saved(mlflow.catboost, renamed, tmp_path / "renamed"))


def test_text_without_a_value_is_said(tmp_path: Path) -> None:
    features: pd.DataFrame = FRAME[["city", "x"]]
    native = catboost.CatBoostClassifier(cat_features=["city"], **SMALL).fit(features, LABEL)
    model = saved(mlflow.catboost, native, tmp_path, features=features)
    np.testing.assert_array_equal(predicted(model), native.predict_proba(features)[:, 1])
    nulls = ROWS.set_column(ROWS.schema.get_field_index("city"), "city", pa.nulls(ROWS.num_rows, pa.string()))
    with pytest.raises(TypeError, match="NoneType"):
        PredictorCache().get(*model).predict(Batch(nulls))


def test_another_format_is_refused(tmp_path: Path) -> None:
    native = catboost.CatBoostRegressor(**SMALL).fit(FEATURES, FRAME["x"])
    model = saved(mlflow.catboost, native, tmp_path, format="json")
    with pytest.raises(ModelError, match="'model' version 1 is stored in another format: expected cbm, got 'json'"):
        predicted(model)
