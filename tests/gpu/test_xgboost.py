"""Boosters on a real GPU: the scores of the CPU, by both ways, without a warning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scoring.batch import Batch
from scoring.models.base import FrozenModel, SignatureColumn, digest_of
from scoring.models.cache import PredictorCache
from tests.gpu.conftest import COLUMNS, random_table

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"


@pytest.fixture
def booster(cuda: Any) -> Any:
    """A booster trained on the CPU, that predicts on the GPU."""
    xgboost = pytest.importorskip("xgboost")
    if not xgboost.build_info().get("USE_CUDA"):
        pytest.skip("this XGBoost was built without CUDA")
    frame = random_table(5000).to_pandas()
    frame.iloc[::3, 2] = np.nan
    data = xgboost.DMatrix(frame, (frame["c0"] + frame["c1"] > 0).astype(float))
    found = xgboost.train({"objective": "binary:logistic", "max_depth": 6, "nthread": 2}, data, 100)
    found.set_param({"device": DEVICE})
    return found


@pytest.mark.parametrize("rows", [1, 1000, 131_072])
def test_scores_are_those_of_the_cpu(booster: Any, rows: int) -> None:
    files = {"model.ubj": bytes(booster.save_raw("ubj"))}
    inputs = tuple(SignatureColumn(f"c{position}", "float", required=False) for position in range(COLUMNS))
    frozen = FrozenModel("booster", 1, digest_of(files), "xgboost", {"data": "model.ubj"}, inputs, 0)
    batch, cache = Batch(random_table(rows, seed=1)), PredictorCache()
    found, expected = (cache.get(frozen, files, device=device).predict(batch) for device in (DEVICE, "cpu"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("iterations", [(0, 0), (0, 17)])
def test_device_memory_is_taken_from_pytorch(booster: Any, iterations: tuple[int, int]) -> None:
    from scoring.models.xgboost_device import direct_compute, matrix_compute

    matrix = Batch(random_table(100_000, seed=2)).matrix(tuple(f"c{position}" for position in range(COLUMNS)))
    matrix[::5, 3] = np.nan
    direct = direct_compute(booster, iterations, device=DEVICE)
    expected = matrix_compute(booster, iterations, threads=2)(matrix)
    for _ in range(5):
        np.testing.assert_allclose(direct(matrix), expected, rtol=0, atol=1e-6)
