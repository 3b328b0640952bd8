"""PyTorch programs on a real GPU: the same scores as on the CPU, whatever the pieces, and memory that is given back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scoring.batch import Batch
from scoring.graph.model import Model
from scoring.models.base import Predictor
from scoring.models.cache import PredictorCache
from scoring.models.memory import BatchSizes
from tests.gpu.conftest import COLUMNS, random_table

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"
COMPILER_WARNINGS = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),  # compiling for the GPU suggests a setting
]


def loaded(*units: int, **options: Any) -> Predictor:
    from tests.models.programs import exported, layers

    return PredictorCache().get(*exported(layers(COLUMNS, *units), COLUMNS), **options)


def on_both(rows: int, *units: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    batch = Batch(random_table(rows))
    return loaded(*units, device=DEVICE, **options).predict(batch), loaded(*units).predict(batch)


@pytest.mark.parametrize("rows", [1, 1000, 16_385, 131_072, 300_000])
def test_scores_are_those_of_the_cpu(cuda: Any, rows: int) -> None:
    found, expected = on_both(rows, 128, 64)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_no_piece_overtakes_another(cuda: Any) -> None:
    from scoring.models.torch_lane import StagedLane

    lane = StagedLane(cuda.device(DEVICE), max_rows=257)
    with cuda.inference_mode():
        for number in range(50):
            features = cuda.randn(10_000, COLUMNS)
            # A slow program first, then a fast one: copies wait for it, or its features change while it computes.
            delay = cuda.randn(2000, 2000, device=DEVICE) if number % 2 else None

            def program(piece: Any, delay: Any = delay) -> Any:
                if delay is not None:
                    delay @ delay
                return piece[:, 0] * 2 + piece[:, -1]

            found = lane.run(program, features)
            np.testing.assert_array_equal(found, program(features).double())


def test_copies_go_through_pinned_memory(cuda: Any) -> None:
    predictor: Any = loaded(16, device=DEVICE)
    predictor.predict(Batch(random_table(1000)))
    assert predictor.lane._pinned
    assert all(memory.is_pinned() for memory in predictor.lane._pinned.values())


def test_results_are_not_overwritten_by_the_next_batch(cuda: Any) -> None:
    predictor = loaded(16, device=DEVICE)
    batches = [Batch(random_table(50_000, seed=seed)) for seed in range(3)]
    found = [predictor.predict(batch) for batch in batches]
    for batch, scores in zip(batches, found, strict=True):
        np.testing.assert_array_equal(scores, predictor.predict(batch))


def test_bfloat16_is_near(cuda: Any) -> None:
    found, expected = on_both(100_000, 128, 64, precision="bfloat16")
    assert 0 < np.abs(found - expected).max() < 0.03


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_programs_give_the_same(cuda: Any, precision: str, request: pytest.FixtureRequest) -> None:
    for mark in COMPILER_WARNINGS:
        request.applymarker(mark)
    for rows in (1, 777, 100_000):
        found, expected = on_both(rows, 128, 64, precision=precision, compile=True)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if precision == "float32" else 0.03)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(cuda: Any) -> None:
    from tests.models.programs import exported, layers

    frozen, files = exported(layers(COLUMNS, 4096, 4096), COLUMNS)
    predictor, sizes = PredictorCache().get(frozen, files, device=DEVICE), BatchSizes()
    table = random_table(131_072)
    expected = predictor.predict(Batch(table))
    cuda.cuda.empty_cache()
    room = cuda.cuda.memory_allocated() + 600 * 2**20
    cuda.cuda.set_per_process_memory_fraction(room / cuda.cuda.get_device_properties(0).total_memory)
    result = Model(frozen, ("score",), lambda: predictor, sizes=sizes).run(Batch(table)).table
    np.testing.assert_allclose(result.column("score"), expected, rtol=0, atol=1e-5)
    assert sizes.halvings > 0
    (used,) = sizes.used([frozen.digest]).values()
    assert 1 < used < table.num_rows


def test_evicted_models_give_their_memory_back(cuda: Any) -> None:
    from tests.models.programs import exported, layers

    cache = PredictorCache(limit_bytes=1)
    free = cuda.cuda.mem_get_info()[0]
    cache.get(*exported(layers(COLUMNS, 8192, 8192), COLUMNS, name="large"), device=DEVICE).predict(
        Batch(random_table(100))
    )
    assert cache.resident_bytes > 2**28
    assert cuda.cuda.memory_allocated() >= cache.resident_bytes
    cache.get(*exported(layers(COLUMNS, 8), COLUMNS, name="small"), device=DEVICE)
    assert cache.evictions == 1
    assert cuda.cuda.memory_allocated() < 2**27
    assert free - cuda.cuda.mem_get_info()[0] < 2**28, "the driver has it, not PyTorch's cache"
