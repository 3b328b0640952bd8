"""Modules of installed classes are logged with MLflow, registered, and refused where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.models import Model

from scoring import testing
from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.models import safetensors
from scoring.models.base import FrozenModel, digest_of
from scoring.models.cache import PredictorCache
from scoring.registry import Registry
from scoring.runs import RunStore
from tests.contract.models import extension_installed, frozen, torch_native, torch_net
from tests.models.saving import FEATURES, ROWS


@pytest.fixture(scope="module", autouse=True)
def _extension() -> Iterator[None]:
    with extension_installed():
        yield


def test_a_logged_module_is_registered_and_scored(home: Path) -> None:
    run_id, net = RunStore().start("testing"), torch_net(3)
    with mlflow.start_run(run_id=run_id):
        logged = safetensors.log_model(net, name="net", signature=testing.signature(FEATURES), arguments={"outputs": 3})
    Registry().register("net", logged.model_uri, training_run_id=run_id, alias="champion")
    deployment = testing.write_deployment(home / "deployments" / "tiny", score={"model": "models:/net@champion"})
    models, files = Registry().freeze(deployment)
    (model,) = models.values()
    assert model.flavor == "safetensors"
    assert sorted(files[model.digest]) == ["MLmodel", "model.safetensors"]
    found = PredictorCache().get(model, files[model.digest], outputs=3).predict(Batch(ROWS))
    np.testing.assert_allclose(found, torch_native(net)(FEATURES), atol=3e-7)


def test_a_module_that_its_class_does_not_make_again_is_not_saved(tmp_path: Path) -> None:
    sentence = r"'scoring_extension\.nets:Net' cannot be logged: expected arguments with which it makes .* got "
    with pytest.raises(ModelError, match=rf"{sentence}RuntimeError: .*size mismatch"):
        save(torch_net(3), tmp_path, outputs=1)
    with pytest.raises(ModelError, match=rf"{sentence}TypeError: .*unexpected keyword argument 'units'"):
        save(torch_net(3), tmp_path, units=1)
    assert list(tmp_path.iterdir()) == []


def test_a_class_within_a_function_is_refused_when_it_is_logged(tmp_path: Path) -> None:
    class Local(torch.nn.Linear):
        """Cannot be imported."""

    with pytest.raises(ModelError, match=r"cannot be imported: expected an importable .*<locals>\.Local"):
        save(Local(2, 1), tmp_path)


def save(module: torch.nn.Module, folder: Path, **arguments: Any) -> None:
    safetensors.save_model(
        path=str(folder / "model"),
        mlflow_model=Model(),
        module=module,
        signature=testing.signature(FEATURES),
        arguments=arguments,
    )


@pytest.fixture
def artifact(tmp_path: Path) -> tuple[FrozenModel, dict[str, bytes]]:
    save(torch_net(1), tmp_path, outputs=1)
    model, files = frozen(tmp_path / "model")
    return model, dict(files)


def changed(
    artifact: tuple[FrozenModel, dict[str, bytes]], *, conf: dict[str, Any] | None = None, tensors: bytes | None = None
) -> Any:
    model, files = artifact
    files = {**files, "model.safetensors": tensors or files["model.safetensors"]}
    return PredictorCache().get(
        FrozenModel("m", 1, digest_of(files), "safetensors", {**model.conf, **(conf or {})}, model.inputs, 0), files
    )


def test_other_tensors_than_those_of_the_class_are_refused(artifact: tuple[FrozenModel, dict[str, bytes]]) -> None:
    assert changed(artifact).predict(Batch(ROWS)).shape == (ROWS.num_rows,)
    with pytest.raises(ModelError, match=r"'m' version 1 does not load: .*size mismatch"):
        changed(artifact, conf={"arguments": {"outputs": 3}})
    header = json.dumps({"other": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    with pytest.raises(ModelError, match=r"'m' version 1 does not load: .*Missing key"):
        changed(artifact, tensors=len(header).to_bytes(8, "little") + header + b"\0" * 4)


def test_options_of_pytorch_hold_here_too(artifact: tuple[FrozenModel, dict[str, bytes]]) -> None:
    model, files = artifact
    predictor = PredictorCache().get(model, files, precision="bfloat16")
    found, exact = predictor.predict(Batch(ROWS)), torch_native(torch_net(1))(FEATURES)
    assert 0 < np.abs(found - exact).max() < 0.02
    assert predictor.size_bytes == 4 * (2 + 1 + 1)  # type: ignore[attr-defined]
