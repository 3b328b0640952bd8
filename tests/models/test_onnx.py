"""Inputs and outputs of ONNX graphs, and what an artifact cannot choose."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from scoring.errors import ModelError
from tests.models.saving import FEATURES, FRAME, LABEL, THREE, predicted, saved

onnxruntime = pytest.importorskip("onnxruntime")
skl2onnx = pytest.importorskip("skl2onnx")
data_types = pytest.importorskip("skl2onnx.common.data_types")
MATRIX = FEATURES.to_numpy(np.float32)
NO_ZIPMAP = {"options": {"zipmap": False}}


def test_a_classifier_gives_its_class_or_probabilities(tmp_path: Path) -> None:
    native = LogisticRegression().fit(MATRIX, THREE)
    model = saved(mlflow.onnx, skl2onnx.to_onnx(native, MATRIX[:1], **NO_ZIPMAP), tmp_path)
    np.testing.assert_array_equal(predicted(model), native.predict(MATRIX))
    np.testing.assert_allclose(predicted(model, outputs=3), native.predict_proba(MATRIX), atol=1e-6)
    with pytest.raises(ModelError, match="is not a binary classifier"):
        predicted(model, method="predict_proba")


def test_a_binary_classifier_gives_the_probability_of_the_second_class(tmp_path: Path) -> None:
    native = LogisticRegression().fit(MATRIX, LABEL)
    model = saved(mlflow.onnx, skl2onnx.to_onnx(native, MATRIX[:1], **NO_ZIPMAP), tmp_path)
    np.testing.assert_allclose(predicted(model), native.predict_proba(MATRIX)[:, 1], atol=1e-6)
    np.testing.assert_array_equal(predicted(model, method="predict"), native.predict(MATRIX))


def test_a_regression_of_several_targets_on_doubles(tmp_path: Path) -> None:
    native = LinearRegression().fit(FEATURES.to_numpy(), FEATURES.to_numpy() * 2)
    model = saved(mlflow.onnx, skl2onnx.to_onnx(native, FEATURES.to_numpy()[:1]), tmp_path)
    np.testing.assert_allclose(predicted(model, outputs=2), FEATURES.to_numpy() * 2, atol=1e-9)
    with pytest.raises(ModelError, match="is not a binary classifier"):
        predicted(model, method="predict_proba")


def test_several_inputs_are_columns_by_name(tmp_path: Path) -> None:
    features = FRAME[["x", "city", "y"]]
    encode = ColumnTransformer([("city", OneHotEncoder(), ["city"])], remainder="passthrough")
    native = make_pipeline(encode, LogisticRegression()).fit(features, LABEL)
    number, text = (kind([None, 1]) for kind in (data_types.FloatTensorType, data_types.StringTensorType))
    graph = skl2onnx.to_onnx(native, initial_types=[("x", number), ("city", text), ("y", number)], **NO_ZIPMAP)
    assert sorted(tensor.name for tensor in graph.graph.input) == ["city", "x", "y"]
    model = saved(mlflow.onnx, graph, tmp_path / "all", features=features)
    np.testing.assert_allclose(predicted(model), native.predict_proba(features)[:, 1], atol=1e-6)
    with pytest.raises(ModelError, match="needs features that its signature lacks: expected x, city, y, got no city"):
        predicted(saved(mlflow.onnx, graph, tmp_path / "fewer", features=features[["x", "y"]]))


def test_dictionaries_of_probabilities_are_refused_with_the_way_out(tmp_path: Path) -> None:
    native = LogisticRegression().fit(MATRIX, LABEL)
    model = saved(mlflow.onnx, skl2onnx.to_onnx(native, MATRIX[:1]), tmp_path)
    with pytest.raises(ModelError, match=r"outputs that cannot be used: .*seq\(map.* Convert a classifier with"):
        predicted(model)


def test_the_artifact_does_not_choose_provider_and_threads(tmp_path: Path) -> None:
    native = LogisticRegression().fit(MATRIX, LABEL)
    model = saved(
        mlflow.onnx,
        skl2onnx.to_onnx(native, MATRIX[:1], **NO_ZIPMAP),
        tmp_path,
        onnx_execution_providers=["NoSuchProvider"],
        onnx_session_options={"execution_mode": "parallel"},
    )
    np.testing.assert_allclose(predicted(model), native.predict_proba(MATRIX)[:, 1], atol=1e-6)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime can use a GPU"
)
def test_a_gpu_needs_another_onnxruntime(tmp_path: Path) -> None:
    native = LogisticRegression().fit(MATRIX, LABEL)
    model = saved(mlflow.onnx, skl2onnx.to_onnx(native, MATRIX[:1], **NO_ZIPMAP), tmp_path)
    sentence = r"cannot run on cuda:0: expected an onnxruntime with CUDAExecutionProvider, .*onnxruntime-gpu"
    with pytest.raises(ModelError, match=sentence):
        predicted(model, device="cuda:0")
