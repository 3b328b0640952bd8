"""Predictors are loaded once, kept while a run needs them, and make room afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.models import flavors
from scoring.models.base import Files, FrozenModel, LoadOptions, digest_of
from scoring.models.cache import PredictorCache

SIZE = 100
"""Of a fake model's weights."""


@dataclass(frozen=True)
class Zeros:
    """A predictor of known size."""

    options: LoadOptions
    size_bytes: int = SIZE

    @property
    def device(self) -> str:
        return self.options.device

    def predict(self, batch: Batch) -> Any:
        return np.zeros(batch.rows)


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flavor loads `Zeros`."""
    load_with(monkeypatch, Zeros)


def load_with(monkeypatch: pytest.MonkeyPatch, make: Callable[[LoadOptions], object]) -> None:
    monkeypatch.setattr(flavors, "loader", lambda _: lambda _model, _files, options: make(options))


def model(name: str, *, flavor: str = "constant", size_bytes: int = SIZE // 5) -> tuple[FrozenModel, Files]:
    files = {"weights": name.encode()}
    return FrozenModel(name, 1, digest_of(files), flavor, {}, (), size_bytes, trusted=True), files


def test_options_tell_predictors_apart() -> None:
    found = PredictorCache()
    given: list[dict[str, Any]] = [
        {},
        {"method": "predict"},
        {"device": "cuda:1"},
        {"threads": 2},
    ]
    predictors = [found.get(*model("a"), **options) for options in given]
    assert found.loads == len({id(predictor) for predictor in predictors}) == len(given)
    assert found.get(*model("a"), threads=2) is predictors[3]
    assert found.loads == len(given)
    assert found.resident_bytes == SIZE * len(given)


def test_the_least_recently_used_model_makes_room() -> None:
    found = PredictorCache(limit_bytes=2 * SIZE)
    first, _ = found.get(*model("a")), found.get(*model("b"))
    assert found.get(*model("a")) is first
    found.get(*model("c"))
    assert (found.loads, found.evictions, found.resident_bytes) == (3, 1, 2 * SIZE)
    assert found.get(*model("a")) is first, "b was not used for longest"
    found.get(*model("b"))
    assert found.loads == 4


def test_models_of_a_run_stay_however_small_the_limit() -> None:
    found = PredictorCache(limit_bytes=1)
    old, _ = model("old")
    found.get(*model("old"))
    graph = [model("a"), model("b"), model("c")]
    with found.keeping(frozen.digest for frozen, _ in graph):
        for _ in range(3):
            for frozen, files in graph:
                found.get(frozen, files)
        assert (found.loads, found.evictions, found.resident_bytes) == (4, 1, 3 * SIZE)
        with found.keeping([graph[0][0].digest]):
            pass  # another user of the same model ends first
        found.get(*model("d"))
        assert found.evictions == 1
    found.get(old, {"weights": b"old"})
    assert found.resident_bytes == SIZE


def test_a_model_without_a_size_counts_what_its_flavor_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    load_with(monkeypatch, lambda _: object())
    found = PredictorCache()
    for flavor, factor in (("sklearn", 3), ("xgboost", 4), ("pytorch", 1), ("onnx", 5), ("constant", 5)):
        before = found.resident_bytes
        found.get(*model(flavor, flavor=flavor, size_bytes=1000))
        assert found.resident_bytes - before == 1000 * factor


def test_threads_that_ask_at_once_load_a_model_once() -> None:
    together = threading.Barrier(4)
    found = PredictorCache()

    def ask(_: int) -> object:
        together.wait(timeout=30)
        return found.get(*model("a"))

    with ThreadPoolExecutor(4) as threads:
        assert len({id(predictor) for predictor in threads.map(ask, range(4))}) == 1
    assert found.loads == 1


def test_files_that_are_read_when_asked_for_are_read_once() -> None:
    read: list[str] = []

    class Lazy(Mapping[str, bytes]):
        """Notes what is read."""

        def __getitem__(self, path: str) -> bytes:
            read.append(path)
            return path.encode()

        def __iter__(self) -> Iterator[str]:
            return iter(["one", "two"])

        def __len__(self) -> int:
            return 2

    files = Lazy()
    frozen = FrozenModel("lazy", 1, digest_of(dict(files)), "constant", {}, (), 6)
    read.clear()
    PredictorCache().get(frozen, files)
    assert sorted(read) == ["one", "two"], "what was verified is what is loaded"


def test_a_model_that_does_not_fit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(_: LoadOptions) -> Zeros:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    load_with(monkeypatch, make)
    sentence = (
        r"model 'a' version 1 does not fit on cuda:0: expected memory for about 100 bytes, "
        r"got RuntimeError: CUDA out of memory.*\. Give the Spark executors more memory"
    )
    with pytest.raises(ModelError, match=sentence):
        PredictorCache().get(*model("a"), device="cuda:0")


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"precision": "bfloat16"}, "got precision: bfloat16"),
        ({"compile": True}, "got compile: true"),
        ({"precision": "bfloat16", "compile": True}, "got precision: bfloat16, compile: true"),
    ],
)
def test_options_that_a_flavor_does_not_know_are_refused(options: dict[str, Any], got: str) -> None:
    sentence = (
        r"model 'a' version 1 of flavor 'xgboost' cannot be used as the step says: "
        rf"expected one of the flavors pytorch, safetensors, {got}\."
    )
    with pytest.raises(ModelError, match=sentence):
        PredictorCache().get(*model("a", flavor="xgboost"), **options)
    PredictorCache().get(*model("a", flavor="pytorch"), **options)
    PredictorCache().get(*model("a", flavor="constant"), **options)
