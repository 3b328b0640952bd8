"""What `method` means for each framework."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from scoring import testing
from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.registry import Registry
from scoring.scorer import PREDICTORS

ROWS = testing.example_rows(300, seed=21).to_pandas()
FEATURES, LABEL = ROWS[["x", "y"]], ROWS["label"]
THREE = (FEATURES["x"] > 0).astype(int) + (FEATURES["y"] > 0).astype(int)
Predict = Callable[[str], np.ndarray]


def predict_with(home: Path, name: str) -> Predict:
    """Return a function that predicts the rows by a method of a registered model."""

    def predict(method: str) -> np.ndarray:
        step = {"model": f"models:/{name}@champion", "method": method}
        deployment = testing.write_deployment(home / "deployments" / name, score=step)
        models, files = Registry().freeze(deployment)
        (frozen,) = models.values()
        graph = testing.make_graph(
            step,
            models={
                f"models:/{name}@champion": (
                    frozen,
                    PREDICTORS.get(frozen, files[frozen.digest], method=method, device="cpu", threads=1),
                )
            },
        )
        return graph.run(pa.Table.from_pandas(ROWS, preserve_index=False)).column("score").to_numpy()

    return predict


def test_methods_of_scikit_learn(home: Path) -> None:
    model = RandomForestClassifier(20, max_depth=3, random_state=0)
    native = testing.register_sklearn("forest", FEATURES, LABEL, estimator=model).native
    predict = predict_with(home, "forest")
    probability = native.predict_proba(FEATURES)[:, 1]
    np.testing.assert_array_equal(predict("auto"), probability)
    np.testing.assert_array_equal(predict("predict_proba"), probability)
    np.testing.assert_array_equal(predict("predict"), native.predict(FEATURES))


@pytest.mark.parametrize(
    "estimator",
    [
        GradientBoostingClassifier(n_estimators=5),
        HistGradientBoostingClassifier(max_iter=5),
        KNeighborsClassifier(3),
        KNeighborsClassifier(3, algorithm="ball_tree"),
        MLPClassifier((4,), max_iter=2000, random_state=0),
        MLPClassifier((4,), solver="sgd", max_iter=5000, random_state=0),
        CalibratedClassifierCV(LogisticRegression(), cv=2),
        make_pipeline(StandardScaler(), SVC()),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_common_estimators_of_scikit_learn_can_be_scored(home: Path, estimator: Any) -> None:
    native = testing.register_sklearn("any", FEATURES, LABEL, estimator=estimator).native
    has_probabilities = hasattr(native, "predict_proba")
    expected = native.predict_proba(FEATURES)[:, 1] if has_probabilities else native.predict(FEATURES)
    np.testing.assert_array_equal(predict_with(home, "any")("auto"), expected)


def test_a_regression_and_a_classifier_without_probabilities_predict(home: Path) -> None:
    testing.register_sklearn("line", FEATURES, ROWS["x"] * 2 + 1, estimator=LinearRegression())
    np.testing.assert_allclose(predict_with(home, "line")("auto"), ROWS["x"] * 2 + 1)
    svc = testing.register_sklearn("svc", FEATURES, LABEL, estimator=LinearSVC()).native
    predict = predict_with(home, "svc")
    np.testing.assert_array_equal(predict("auto"), svc.predict(FEATURES))
    with pytest.raises(ModelError, match=r"'svc' version 1 raised while predicting 300 rows: got AttributeError"):
        predict("predict_proba")


def test_three_classes_have_no_probability_of_the_second(home: Path) -> None:
    native = testing.register_sklearn("three", FEATURES, THREE, estimator=LogisticRegression()).native
    predict = predict_with(home, "three")
    np.testing.assert_array_equal(predict("auto"), native.predict(FEATURES))
    with pytest.raises(
        ModelError, match=r"'three' version 1 is not a binary classifier: .*got \(300, 3\)\. Set 'method"
    ):
        predict("predict_proba")


def test_methods_of_a_booster_are_those_of_the_booster(home: Path) -> None:
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(FEATURES, LABEL), 5)
    testing.register_xgboost("booster", FEATURES, booster)
    predict = predict_with(home, "booster")
    for method in ("auto", "predict", "predict_proba"):
        np.testing.assert_array_equal(predict(method), booster.predict(xgboost.DMatrix(FEATURES)))


def test_methods_of_the_wrapper_are_those_of_the_wrapper_and_it_stops_early(home: Path) -> None:
    wrapper = xgboost.XGBClassifier(n_estimators=200, max_depth=4, early_stopping_rounds=2, n_jobs=1, random_state=0)
    noise = np.random.default_rng(0).permutation(LABEL.to_numpy())
    wrapper.fit(FEATURES, LABEL, eval_set=[(FEATURES, noise)], verbose=False)
    assert wrapper.best_iteration < wrapper.get_booster().num_boosted_rounds() - 1
    testing.register_xgboost("wrapper", FEATURES, wrapper)
    predict = predict_with(home, "wrapper")
    np.testing.assert_array_equal(predict("auto"), wrapper.predict_proba(FEATURES)[:, 1])
    np.testing.assert_array_equal(predict("predict_proba"), wrapper.predict_proba(FEATURES)[:, 1])
    np.testing.assert_array_equal(predict("predict"), wrapper.predict(FEATURES))


def test_regressions_of_xgboost_predict_and_have_no_probability(home: Path) -> None:
    wrapper = xgboost.XGBRegressor(n_estimators=5, n_jobs=1).fit(FEATURES, ROWS["x"])
    testing.register_xgboost("regressor", FEATURES, wrapper)
    predict = predict_with(home, "regressor")
    np.testing.assert_array_equal(predict("auto"), wrapper.predict(FEATURES))
    np.testing.assert_array_equal(predict("predict"), wrapper.predict(FEATURES))
    with pytest.raises(ModelError, match=r"'regressor' version 1 is not a binary classifier\. Set 'method: predict'"):
        predict("predict_proba")


def test_a_booster_takes_its_features_by_name(home: Path) -> None:
    swapped = FEATURES[["y", "x"]]
    booster = xgboost.train({"objective": "reg:squarederror", "nthread": 1}, xgboost.DMatrix(swapped, ROWS["x"]), 5)
    testing.register_xgboost("swapped", FEATURES, booster)
    np.testing.assert_array_equal(predict_with(home, "swapped")("auto"), booster.predict(xgboost.DMatrix(swapped)))


def test_a_booster_whose_features_are_not_in_its_signature_is_refused(home: Path) -> None:
    renamed = FEATURES.rename(columns={"y": "z"})
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(renamed, LABEL), 1)
    testing.register_xgboost("renamed", FEATURES, booster)
    with pytest.raises(
        ModelError, match=r"'renamed' version 1 needs features that its signature lacks: expected x, z, got no z"
    ):
        predict_with(home, "renamed")("auto")


@pytest.mark.parametrize("columns", [1, 2])
def test_a_net_returns_one_number_per_row(home: Path, columns: int) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, columns)).eval()
    testing.register_torch("net", FEATURES, net)
    predict = predict_with(home, "net")
    if columns == 1:
        with torch.no_grad():
            expected = net(torch.from_numpy(FEATURES.to_numpy(np.float32))).numpy()[:, 0]
        np.testing.assert_allclose(predict("auto"), expected, atol=1e-7)
    else:
        with pytest.raises(
            ModelError, match=r"'net' version 1 predicted another number of columns: expected 1 output, .* got 2"
        ):
            predict("auto")


def test_a_model_that_needs_a_null_free_column_says_what_it_got(home: Path) -> None:
    testing.register_sklearn("strict", FEATURES, LABEL)
    predict_with(home, "strict")
    frame = FEATURES.copy()
    frame.loc[3, "x"] = np.nan
    deployment = testing.write_deployment(home / "deployments" / "strict", score={"model": "models:/strict/1"})
    models, files = Registry().freeze(deployment)
    frozen = models["models:/strict/1"]
    predictor = PREDICTORS.get(frozen, files[frozen.digest], method="auto", device="cpu", threads=1)
    graph = testing.make_graph({"model": "models:/strict/1"}, models={"models:/strict/1": (frozen, predictor)})
    table = pa.Table.from_pandas(pd.concat([ROWS[["id"]], frame], axis=1), preserve_index=False)
    with pytest.raises(ModelError, match=r"'strict' version 1 raised while predicting 300 rows: got ValueError: .*NaN"):
        graph.run(table)
    assert predictor.predict(Batch(table.slice(0, 3))).shape == (3,)


# ------------------------------------------------------------------------------------------------- several outputs


def predictions(home: Path, name: str, outputs: int, **options: str) -> np.ndarray:
    """Return what a registered model predicts for the rows, one column per output."""
    deployment = testing.write_deployment(home / "deployments" / name, score={"model": f"models:/{name}@champion"})
    models, files = Registry().freeze(deployment)
    (frozen,) = models.values()
    predictor = PREDICTORS.get(frozen, files[frozen.digest], outputs=outputs, **options)  # type: ignore[arg-type]
    return predictor.predict(Batch(pa.Table.from_pandas(ROWS, preserve_index=False)))


def test_several_targets_of_scikit_learn(home: Path) -> None:
    targets = np.column_stack([FEATURES["x"] * 2, FEATURES["y"] - 1, FEATURES["x"]])
    testing.register_sklearn("targets", FEATURES, targets, estimator=LinearRegression())
    np.testing.assert_allclose(predictions(home, "targets", 3), targets, atol=1e-12)
    with pytest.raises(ModelError, match="expected 2 outputs, as the step names, got 3"):
        predictions(home, "targets", 2)


def test_both_probabilities_of_a_binary_classifier(home: Path) -> None:
    native = testing.register_sklearn("both", FEATURES, LABEL, estimator=LogisticRegression()).native
    np.testing.assert_array_equal(predictions(home, "both", 2), native.predict_proba(FEATURES))
    wrapper = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(FEATURES, LABEL)
    testing.register_xgboost("wrapper", FEATURES, wrapper)
    np.testing.assert_allclose(predictions(home, "wrapper", 2), wrapper.predict_proba(FEATURES), atol=1e-7)


def test_a_wrapper_of_three_classes_predicts_the_class_or_all_probabilities(home: Path) -> None:
    wrapper = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(FEATURES, THREE)
    testing.register_xgboost("wrapper", FEATURES, wrapper)
    np.testing.assert_array_equal(predictions(home, "wrapper", 1), wrapper.predict(FEATURES))
    np.testing.assert_array_equal(predictions(home, "wrapper", 3), wrapper.predict_proba(FEATURES))
    np.testing.assert_array_equal(
        predictions(home, "wrapper", 3, method="predict_proba"), wrapper.predict_proba(FEATURES)
    )
    with pytest.raises(ModelError, match="expected 3 outputs, as the step names, got 1"):
        predictions(home, "wrapper", 3, method="predict")


def test_several_targets_of_xgboost(home: Path) -> None:
    wrapper = xgboost.XGBRegressor(n_estimators=5, n_jobs=1).fit(FEATURES, FEATURES)
    testing.register_xgboost("targets", FEATURES, wrapper)
    np.testing.assert_array_equal(predictions(home, "targets", 2), wrapper.predict(FEATURES))
