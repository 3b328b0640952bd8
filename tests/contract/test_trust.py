"""Files that run code when they are loaded are refused, and nothing of them runs, unless the deployment trusts them."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.preprocessing import FunctionTransformer

from scoring import testing
from scoring.batch import Batch
from scoring.deployment import Deployment
from scoring.errors import ConfigurationError, ModelError
from scoring.models.base import Files, FrozenModel, SignatureColumn, digest_of
from scoring.models.cache import PredictorCache
from scoring.models.keras_audit import keras_findings
from scoring.registry import Registry
from tests.contract.conftest import Made
from tests.contract.models import KINDS, frozen
from tests.contract.payload import PAYLOADS, Touches, sklearn_pickle

ROWS = testing.example_rows(60, seed=2)
FRAME: pd.DataFrame = ROWS.to_pandas()
LIBRARIES = {kind.flavor: kind.library for kind in KINDS.values()}


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists when the payload ran."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "code-ran"


@pytest.fixture(params=PAYLOADS)
def payload(request: pytest.FixtureRequest, tmp_path: Path, marker: Path) -> tuple[FrozenModel, Files]:
    """A model of some format whose code has not run since it was saved."""
    pytest.importorskip(LIBRARIES[request.param.partition("-")[0]])
    folder = tmp_path / "model"
    PAYLOADS[request.param](folder, FRAME, marker)
    assert not marker.exists()
    return frozen(folder)


def test_code_in_a_file_does_not_run(payload: tuple[FrozenModel, Files], marker: Path) -> None:
    model, files = payload
    with pytest.raises(ModelError) as raised:
        PredictorCache().get(model, files)
    assert not marker.exists()
    sentence = str(raised.value)
    assert "Nothing of it was loaded" in sentence
    assert f"by this line of deployment.yaml: 'trust: [{model.digest}]'" in sentence


def test_with_its_digest_trusted_the_file_loads_and_predicts(payload: tuple[FrozenModel, Files], marker: Path) -> None:
    model, files = payload
    values = PredictorCache().get(replace(model, trusted=True), files).predict(Batch(ROWS))
    assert values.shape == (60,)
    assert marker.exists()


def test_what_one_deployment_trusts_another_does_not_get_from_the_cache(tmp_path: Path, marker: Path) -> None:
    sklearn_pickle(tmp_path / "model", FRAME, marker)
    (model, files), cache = frozen(tmp_path / "model"), PredictorCache()
    cache.get(replace(model, trusted=True), files)
    with pytest.raises(ModelError, match="is stored in a format that can run code"):
        cache.get(model, files)


# ---------------------------------------------------------------------------------------------------- the deployment


def deployment(home: Path, **sections: Any) -> Deployment:
    return testing.write_deployment(
        home / "deployments" / "tiny", score={"model": "models:/pickled@champion"}, **sections
    )


def register_pickle() -> Any:
    import mlflow
    from sklearn.linear_model import LogisticRegression

    from scoring.runs import RunStore

    run_id = RunStore().start("tiny")
    model = LogisticRegression().fit(FRAME[["x", "y"]], FRAME["label"])
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.sklearn.log_model(
            model,
            name="pickled",
            serialization_format="cloudpickle",
            signature=testing.signature(FRAME[["x", "y"]]),
            pip_requirements=["scikit-learn"],
        )
    Registry().register("pickled", logged.model_uri, training_run_id=run_id, alias="champion")
    return model


def test_the_line_that_the_refusal_names_lets_the_model_be_scored(home: Path) -> None:
    native = register_pickle()
    with pytest.raises(ModelError, match="model 'pickled' version 1 is stored in a format that can run code") as raised:
        Registry().freeze(deployment(home))
    found = re.search(r"trust: \[([0-9a-f]{64})\]", str(raised.value))
    assert found is not None
    models, files = Registry().freeze(deployment(home, trust=[found[1]]))
    (model,) = models.values()
    values = PredictorCache().get(model, files[model.digest]).predict(Batch(ROWS))
    np.testing.assert_array_equal(values, native.predict_proba(FRAME[["x", "y"]])[:, 1])


def test_a_digest_of_other_files_helps_nothing(home: Path) -> None:
    register_pickle()
    with pytest.raises(ModelError, match="'pickled' version 1 is stored in a format that can run code"):
        Registry().freeze(deployment(home, trust=["0" * 64]))


def test_what_is_no_digest_is_named_with_its_line(home: Path) -> None:
    sentence = (
        r"deployment\.yaml:\d+: 'trust\.0' is not valid\. expected the sha256 of a model's files, .* got 'latest'"
    )
    with pytest.raises(ConfigurationError, match=sentence):
        deployment(home, trust=["latest"])


# -------------------------------------------------------------------------------------------------- files that lie


def load(flavor: str, conf: dict[str, Any], files: dict[str, bytes], *, trusted: bool = False) -> Any:
    pytest.importorskip(LIBRARIES[flavor])
    columns = (SignatureColumn("x", "double", False), SignatureColumn("y", "double", False))
    return PredictorCache().get(FrozenModel("bad", 1, digest_of(files), flavor, conf, columns, 0, trusted), files)


def test_the_payload_works(marker: Path) -> None:
    pickle.loads(pickle.dumps(Touches(marker)))
    assert marker.exists()


@pytest.mark.parametrize(
    ("flavor", "conf", "path"),
    [
        ("sklearn", {"pickled_model": "model.skops", "serialization_format": "skops"}, "model.skops"),
        ("xgboost", {"data": "model.ubj"}, "model.ubj"),
        ("lightgbm", {"data": "model.lgb"}, "model.lgb"),
        ("lightgbm", {"data": "model.skops", "serialization_format": "skops"}, "model.skops"),
        ("catboost", {"data": "model.cb", "model_type": "CatBoostClassifier"}, "model.cb"),
        ("pytorch", {"model_data": "data"}, "data/model.pt2"),
        ("safetensors", {"class": "scoring_extension.nets:Net"}, "model.safetensors"),
        ("tensorflow", {"data": "data", "model_type": "keras"}, "data/model.keras"),
        ("keras", {"data": "data"}, "data/model.keras"),
        ("onnx", {"data": "model.onnx"}, "model.onnx"),
    ],
)
def test_a_pickle_that_calls_itself_something_else_is_not_opened(
    marker: Path, flavor: str, conf: dict[str, Any], path: str
) -> None:
    sentence = "model 'bad' version 1 (does not load|holds what could run code|is stored in a format that can run code)"
    with pytest.raises(ModelError, match=sentence):
        load(flavor, conf, {path: pickle.dumps(Touches(marker))})
    assert not marker.exists()


@pytest.mark.parametrize("path", ["data/model.pth", "data/model.pt", "model.pt2"])
def test_a_module_in_another_place_than_that_of_exported_programs_is_refused(path: str) -> None:
    with pytest.raises(ModelError, match=r"is stored in a format that can run code: expected a torch\.export file"):
        load("pytorch", {"model_data": "data"}, {path: b""})


def test_skops_with_a_function_of_the_system_is_refused() -> None:
    content = skops.io.dumps(FunctionTransformer(os.system))
    conf = {"pickled_model": "model.skops", "serialization_format": "skops"}
    with pytest.raises(
        ModelError, match=r"holds types that could run code: expected scikit-learn's own.*got posix\.system"
    ):
        load("sklearn", conf, {"model.skops": content})


def test_a_safetensors_file_cannot_name_what_is_no_module(marker: Path) -> None:
    conf = {"class": "os:system", "arguments": {"command": "touch code-ran"}}
    with pytest.raises(
        ModelError, match=r"names a class that no installed package offers: expected one of scoring_ext"
    ):
        load("safetensors", conf, {"model.safetensors": b""})
    with pytest.raises(ModelError, match=r"cannot be used: expected a torch\.nn\.Module, got os:system"):
        load("safetensors", conf, {"model.safetensors": b""}, trusted=True)
    assert not marker.exists()


def test_a_savedmodel_beside_a_keras_file_is_not_what_is_loaded(made: Made, marker: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    keras, folder = made("keras", 1), tmp_path / "model"
    PAYLOADS["tensorflow-savedmodel"](folder, FRAME, marker)
    program, programs = frozen(folder)
    inside = {path: content for path, content in programs.items() if path.startswith("tf2model/")}
    assert inside
    moved = {path.replace("tf2model/", "data/model/"): content for path, content in inside.items()}
    files = {**keras.files, **inside, **moved}
    model = replace(keras.frozen, digest=digest_of(files), conf={**keras.frozen.conf, **program.conf})
    PredictorCache().get(model, files).predict(Batch(ROWS))
    assert not marker.exists()


# ------------------------------------------------------------------------------------------------------------ Keras


def described(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return a `.keras` file whose description was changed."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(changed, "w") as copy:
        for name in archive.namelist():
            part = archive.read(name)
            if name == "config.json":
                document = json.loads(part)
                change(document)
                part = json.dumps(document).encode()
            copy.writestr(name, part)
    return changed.getvalue()


def layer(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["config"]["layers"][-1]
    return found


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: layer(d).update(class_name="Lambda"), "a layer Lambda"),
        (lambda d: layer(d).update(class_name="TFSMLayer"), "a layer TFSMLayer"),
        (lambda d: layer(d).update(class_name="TorchModuleWrapper"), "a layer TorchModuleWrapper"),
        (lambda d: layer(d).update(module="os", class_name="system"), r"os\.system"),
        (lambda d: layer(d).update(module="keras.utils", class_name="get_file"), r"keras\.utils\.get_file"),
        (lambda d: layer(d)["config"].update(activation={"class_name": "__lambda__", "config": {}}), "__lambda__"),
        (lambda d: layer(d)["config"].update(activation={"class_name": "f", "module": "keras.saving"}), r"saving\.f"),
    ],
)
def test_what_a_keras_file_may_not_describe(made: Made, change: Callable[[dict[str, Any]], object], found: str) -> None:
    files = made("tensorflow-keras", 1).files
    assert list(keras_findings(files["data/model.keras"])) == []
    bad = {**files, "data/model.keras": described(files["data/model.keras"], change)}
    with pytest.raises(ModelError, match=rf"can run code: expected layers of Keras alone, got .*{found}"):
        load("tensorflow", dict(made("tensorflow-keras", 1).frozen.conf), bad)


@pytest.mark.parametrize("content", [b"", b"[]", b'"text"'])
def test_a_keras_file_without_a_description_is_refused(content: bytes) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("config.json", content)
    with pytest.raises(ModelError, match="got a file that"):
        load("keras", {"data": "data"}, {"data/model.keras": packed.getvalue()})


# ------------------------------------------------------------------------------------------------------------- ONNX


def with_external_weights(location: str) -> bytes:
    """Return a graph that multiplies two features with weights in a file beside it."""
    from onnx import TensorProto, helper

    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[2, 1], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "8"}.items():
        tensor.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "weights"], ["score"])],
        "sum",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_tensors_of_an_onnx_model_are_read_from_its_artifact_and_from_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    weights = np.array([2, 3], np.float32).tobytes()
    (tmp_path / "weights.bin").write_bytes(weights)
    inside = {"model.onnx": with_external_weights("weights.bin"), "weights.bin": weights}
    found = load("onnx", {"data": "model.onnx"}, inside).predict(Batch(ROWS))
    np.testing.assert_allclose(found, FRAME[["x", "y"]].to_numpy(np.float32) @ [2, 3], rtol=1e-6)
    for location in ("weights.bin", "../weights.bin", str(tmp_path / "weights.bin")):
        with pytest.raises(ModelError, match=r"model 'bad' version 1 does not load: .* got Fail: .*xternal data path"):
            load("onnx", {"data": "model.onnx"}, {"model.onnx": with_external_weights(location)})


def test_a_path_out_of_the_artifact_is_not_written(tmp_path: Path) -> None:
    for path in ("../escaped", str(tmp_path / "escaped")):
        with pytest.raises(ModelError, match=r"does not load: .* leads out of the artifact"):
            load("onnx", {"data": "model.onnx"}, {path: b"", "model.onnx": b""})
    assert not (tmp_path / "escaped").exists()
