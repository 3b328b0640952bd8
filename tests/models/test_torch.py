"""Lanes, threads, bfloat16 and compilation of PyTorch programs, on the CPU; `tests/gpu` does the same on a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.models import torch_lane
from scoring.models.cache import PredictorCache
from scoring.models.torch_lane import HOST_PIECE_ROWS, OVERLAPPED_PIECE_ROWS, HostLane, StagedLane
from tests.models.programs import exported, layers

PROJECT = Path(__file__).parents[2]
CPU = torch.device("cpu")
COMPILER_WARNING = "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
"""PyTorch's compiler imports a module of its own that warns."""


def rows(number: int, columns: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(number).normal(size=(number, columns)).astype(np.float32))


def twice(features: torch.Tensor) -> torch.Tensor:
    return features[:, 0] * 2


@given(number=st.integers(1, 300), most=st.integers(1, 100))
def test_staged_pieces_give_all_rows_in_order(number: int, most: int) -> None:
    sizes: list[int] = []

    def program(features: torch.Tensor) -> torch.Tensor:
        sizes.append(len(features))
        return twice(features)

    features = rows(number)
    with torch.inference_mode():
        found = StagedLane(CPU, max_rows=most).run(program, features)
    np.testing.assert_array_equal(found, twice(features).double())
    assert found.dtype == torch.float64
    assert sizes == [most] * (number // most) + ([number % most] if number % most else [])


def test_staged_results_are_not_overwritten_by_the_next_batch() -> None:
    lane = StagedLane(CPU, max_rows=10)
    with torch.inference_mode():
        batches = [rows(number) for number in (35, 40, 7)]
        found = [lane.run(twice, features) for features in batches]
    for features, result in zip(batches, found, strict=True):
        np.testing.assert_array_equal(result, twice(features).double())


def test_staging_memory_is_kept_between_batches() -> None:
    lane = StagedLane(CPU)
    with torch.inference_mode():
        lane.run(twice, rows(100))
        kept = dict(lane._pinned)
        lane.run(twice, rows(60))
        assert lane._pinned == kept
        lane.run(twice, rows(200))
        assert all(lane._pinned[name].numel() > kept[name].numel() for name in kept)


def test_a_batch_overlaps_in_several_pieces_that_are_not_small() -> None:
    sizes: list[int] = []

    def program(features: torch.Tensor) -> torch.Tensor:
        sizes.append(len(features))
        return features[:, 0]

    with torch.inference_mode():
        for number in (100, OVERLAPPED_PIECE_ROWS, 4 * OVERLAPPED_PIECE_ROWS, 131_072):
            StagedLane(CPU).run(program, torch.zeros(number, 1))
    assert sizes == [100, OVERLAPPED_PIECE_ROWS, *[OVERLAPPED_PIECE_ROWS] * 4, *[32_768] * 4]


def test_a_failed_batch_leaves_the_lane_usable() -> None:
    def fails(features: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA out of memory.")

    lane, features = StagedLane(CPU, max_rows=4), rows(10)
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match="out of memory"):
            lane.run(fails, features)
        np.testing.assert_array_equal(lane.run(twice, features), twice(features).double())


@pytest.mark.parametrize("lane", [HostLane(1), HostLane(2), StagedLane(CPU), StagedLane(CPU, max_rows=1000)])
def test_lanes_give_what_the_program_gives(lane: Any) -> None:
    net, features = layers(3, 16), rows(2 * HOST_PIECE_ROWS + 17)
    with torch.inference_mode():
        np.testing.assert_allclose(lane.run(net, features), net(features).double(), rtol=0, atol=1e-7)
        assert lane.run(lambda piece: piece.sum(), features[:100]).shape != (100,), "not one number per row"
        assert lane.run(lambda piece: piece[:, :2], features).shape == (len(features), 2)


def predictor(columns: int = 3, **options: Any) -> Any:
    return PredictorCache().get(*exported(layers(columns, 16), columns), **options)


def table(number: int, columns: int = 3) -> pa.Table:
    values = rows(number, columns).numpy()
    return pa.table({f"c{position}": values[:, position] for position in range(columns)})


def native(features: pa.Table) -> np.ndarray:
    with torch.inference_mode():
        matrix = np.column_stack([column.to_numpy() for column in features.columns])
        result: np.ndarray = layers(features.num_columns, 16)(torch.from_numpy(matrix)).double().numpy()[:, 0]
    return result


def test_a_predictor_knows_the_size_of_its_weights() -> None:
    assert predictor().size_bytes == 4 * (3 * 16 + 16 + 16 + 1)
    assert predictor().device == "cpu"


def test_each_model_has_its_own_number_of_threads_in_every_thread() -> None:
    one, two, batch = predictor(threads=1), predictor(threads=2), Batch(table(10))
    seen: list[int] = []

    def use() -> None:
        for found in (one, two, one):
            found.predict(batch)
            seen.append(torch.get_num_threads())

    use()
    other = threading.Thread(target=use)
    other.start()
    other.join(timeout=60)
    assert seen == [1, 2, 1] * 2


def test_bfloat16_is_near_and_the_result_is_a_double() -> None:
    features = table(500)
    found = predictor(precision="bfloat16").predict(Batch(features))
    assert found.dtype == np.float64
    difference = np.abs(found - native(features))
    assert 0 < difference.max() < 0.02
    np.testing.assert_array_equal(found, predictor(precision="bfloat16").predict(Batch(features)))


@pytest.mark.filterwarnings(COMPILER_WARNING)
def test_a_compiled_program_gives_the_same_for_every_size() -> None:
    found = predictor(compile=True)
    for number in (1, 2, 77, 5000):
        features = table(number)
        np.testing.assert_allclose(found.predict(Batch(features)), native(features), rtol=0, atol=1e-6)


def test_what_cannot_be_compiled_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    program = """
from scoring.errors import ModelError
from scoring.models.cache import PredictorCache
from tests.models.programs import exported, layers
try:
    PredictorCache().get(*exported(layers(4, 11), 4), compile=True)
except ModelError as error:
    print(error)
"""
    # PyTorch reads its environment once.
    environment = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=PROJECT,
        env=environment,
        timeout=120,
        capture_output=True,
        text=True,
    )
    sentence = (
        r"model 'net' version 1 does not run with precision: float32, compile: true on cpu: expected a program whose "
        r"operators all can, got .*C\+\+ compiler.*\. Remove 'compile' and 'precision'"
    )
    assert re.match(sentence, done.stdout)


def test_a_program_that_insists_on_a_type_is_refused_in_bfloat16() -> None:
    class Strict(torch.nn.Module):
        """Asserts the type of what its layer returns, as exported programs with conversions do."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.layer(features).to(torch.float32).squeeze(1)

    given = exported(Strict().eval(), 3)
    assert PredictorCache().get(*given).predict(Batch(table(5))).shape == (5,)
    with pytest.raises(ModelError, match=r"does not run with precision: bfloat16, compile: false on cpu: .*Remove"):
        PredictorCache().get(*given, precision="bfloat16")


def test_giving_memory_back_needs_no_gpu() -> None:
    torch_lane.empty_cache()
