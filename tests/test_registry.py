from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from sklearn.linear_model import LogisticRegression

from scoring import settings, testing
from scoring.deployment import Deployment
from scoring.errors import ConfigurationError, ModelError, RegistryUnavailableError
from scoring.models.base import digest_of
from scoring.registry import CHALLENGER, CHAMPION, DIGEST_TAG, Registry, names
from scoring.runs import RunStore
from scoring.stack import health, processes
from scoring.stack.ports import LOOPBACK, Ports

ROWS = testing.example_rows(100, seed=1).to_pandas()
FEATURES, LABEL = ROWS[["x", "y"]], ROWS["label"]


def deployment(home: Path, *uris: str) -> Deployment:
    members = {f"m{number}": {"model": uri} for number, uri in enumerate(uris)}
    score = {"ensemble": {"combine": "mean", "members": members}} if len(uris) > 1 else {"model": uris[0]}
    return testing.write_deployment(home / "deployments" / "tiny", score=score)


def register(name: str = "m", *, alias: str | None = CHAMPION, strength: float = 1.0) -> int:
    return testing.register_sklearn(
        name, FEATURES, LABEL, estimator=LogisticRegression(C=strength), alias=alias
    ).version


# ------------------------------------------------------------------------------------------------------ freezing


def test_an_alias_is_resolved_once_and_pinned(home: Path) -> None:
    register(strength=1)
    source = deployment(home, "models:/m@champion", "models:/m@champion")
    models, files = Registry().freeze(source)
    register(strength=9)
    (frozen,) = models.values()
    assert (frozen.name, frozen.version, frozen.flavor) == ("m", 1, "sklearn")
    assert digest_of(files[frozen.digest]) == frozen.digest
    assert frozen.size_bytes == sum(map(len, files[frozen.digest].values()))
    later, _ = Registry().freeze(source)
    assert later["models:/m@champion"].version == 2
    assert later["models:/m@champion"].digest != frozen.digest


def test_the_signature_comes_with_the_model(home: Path) -> None:
    frame = FEATURES.assign(n=ROWS["id"].astype("int32"), flag=ROWS["x"] > 0)
    testing.register_sklearn("m", frame, LABEL)
    models, _ = Registry().freeze(deployment(home, "models:/m/1"))
    found = [(column.name, column.type, column.required) for column in models["models:/m/1"].inputs]
    assert found == [("x", "double", False), ("y", "double", False), ("n", "integer", True), ("flag", "boolean", True)]


def test_a_version_can_be_put_in_place_of_an_alias(home: Path) -> None:
    register(strength=1)
    challenger = register(strength=9, alias=CHALLENGER)
    register("other")
    models, _ = Registry().freeze(deployment(home, "models:/m@champion", "models:/other/1"), {"m": challenger, "no": 7})
    assert {uri: model.version for uri, model in models.items()} == {"models:/m@champion": 2, "models:/other/1": 1}


def test_equal_files_have_one_digest_and_registering_keeps_it_in_a_tag(home: Path) -> None:
    register()
    models, _ = Registry().freeze(deployment(home, "models:/m/1"))
    assert Registry().version("m", "1").tags[DIGEST_TAG] == models["models:/m/1"].digest


def test_freezing_leaves_nothing_behind(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    register()
    Registry().freeze(deployment(home, "models:/m@champion"))
    assert list((home / "artifacts").rglob("model.skops"))
    assert not list((home / "artifacts").rglob("registered_model_meta")), "MLflow's note on a download"
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        (
            "models:/other@champion",
            r"model 'other' is not registered: expected one of m, n, got 'other'\. Train and register",
        ),
        (
            "models:/m@best",
            r"model 'm' has no alias '@best': expected one of @champion, got '@best'\. Set it: scoring promote",
        ),
        ("models:/m/7", r"model 'm' has no version '7'"),
        ("models:/n@champion", r"model 'n' has no alias '@champion': expected an alias, got '@champion'"),
    ],
)
def test_what_is_not_registered_is_named_with_what_is(home: Path, uri: str, sentence: str) -> None:
    register("m")
    register("n", alias=None)
    with pytest.raises(ConfigurationError, match=sentence):
        Registry().freeze(deployment(home, uri))


def test_an_empty_registry_is_said(home: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model 'm' is not registered: expected a registered model, got 'm'"):
        Registry().freeze(deployment(home, "models:/m@champion"))


def test_a_byte_that_changed_after_registration_is_noticed(home: Path) -> None:
    register()
    (file,) = (home / "artifacts").rglob("model.skops")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        ModelError, match=r"'m' version 1 were changed after it was registered: expected sha256 [0-9a-f]{64}"
    ):
        Registry().freeze(deployment(home, "models:/m@champion"))


def test_a_model_without_named_input_columns_is_refused(home: Path) -> None:
    run_id = RunStore().start("tiny")
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.sklearn.log_model(
            LogisticRegression().fit(FEATURES, LABEL),
            name="m",
            serialization_format="skops",
            pip_requirements=["skops"],
        )
    Registry().register("m", logged.model_uri, training_run_id=run_id, alias=CHAMPION)
    with pytest.raises(
        ModelError, match=r"model 'm' version 1 has no usable signature: .*got none\. Log it with signature="
    ):
        Registry().freeze(deployment(home, "models:/m@champion"))


# ------------------------------------------------------------------------------------------------------ aliases


def test_versions_are_numbered_and_aliases_move(home: Path) -> None:
    assert [register(), register(alias=CHALLENGER)] == [1, 2]
    registry = Registry()
    assert (registry.aliased("m", CHAMPION), registry.aliased("m", CHALLENGER)) == (1, 2)
    registry.set_alias("m", CHAMPION, 2)
    assert registry.aliased("m", CHAMPION) == 2
    with pytest.raises(ConfigurationError, match=r"model 'm' has no version '3'"):
        registry.set_alias("m", CHAMPION, 3)
    assert registry.aliased("m", "nobody") is None
    assert registry.aliased("nobody", CHAMPION) is None


def test_names_are_those_of_the_graph_each_once(home: Path) -> None:
    assert names(deployment(home, "models:/b@champion", "models:/a/1", "models:/b@champion")) == ["b", "a"]


# ------------------------------------------------------------------------------------------------------ server


@pytest.fixture
def server(home: Path, tmp_path: Path, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """MLflow as a tracking server that also carries the artifacts; returns the folder that only the server reads."""
    folder, port = tmp_path / "server", Ports.free().mlflow
    folder.mkdir()
    shutil.copy(mlflow_template, folder / "mlflow.db")
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process, popen = processes.start(
        "mlflow", command, environment=environment, folder=folder, log=folder / "server.log"
    )
    try:
        deadline = time.monotonic() + 120
        while not health.answers_http(f"http://{LOOPBACK}:{port}/health"):
            log = (folder / "server.log").read_text("utf-8")
            assert popen.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.1)
        monkeypatch.setenv(settings.TRACKING_VARIABLE, f"http://{LOOPBACK}:{port}")
        yield folder
    finally:
        processes.stop([process])
        popen.wait()


def test_models_are_registered_and_frozen_through_a_server_and_leave_nothing_behind(
    home: Path, server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert register() == 1
    assert list((server / "artifacts").rglob("model.skops")), "the server has the model"
    assert not (home / "artifacts").exists(), "this machine has not"
    before = set((tmp_path / "temporary").iterdir())
    source = deployment(home, "models:/m@champion")
    first, files = Registry().freeze(source)
    again, _ = Registry().freeze(source)
    assert set((tmp_path / "temporary").iterdir()) == before
    assert again == first
    digest = Registry().version("m", "1").tags[DIGEST_TAG]
    assert first["models:/m@champion"].digest == digest
    assert digest_of(files[digest]) == digest


# ------------------------------------------------------------------------------------------------------ unavailable


def test_a_registry_that_is_down_is_said_within_seconds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv(settings.TRACKING_VARIABLE, f"http://127.0.0.1:{port}")
    source = deployment(home, "models:/m@champion")
    start = time.monotonic()
    sentence = (
        rf"the MLflow store does not answer: expected an answer from http://127\.0\.0\.1:{port}, got no connection"
    )
    with pytest.raises(RegistryUnavailableError, match=sentence):
        Registry().freeze(source)
    assert time.monotonic() - start < 20
