"""Ways to a booster's predictions. On a GPU they are compared in `tests/gpu`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xgboost

from scoring.models.xgboost_device import device_compute, direct_compute, matrix_compute

FEATURES = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
FEATURES[::3, 2] = np.nan


def trained(objective: str = "binary:logistic") -> xgboost.Booster:
    names = [f"c{position}" for position in range(FEATURES.shape[1])]
    data = xgboost.DMatrix(FEATURES, (FEATURES[:, 0] > 0).astype(np.float32), feature_names=names)
    return xgboost.train({"objective": objective, "nthread": 1, "max_depth": 4}, data, 20)


@pytest.mark.parametrize("iterations", [(0, 0), (0, 7)])
def test_a_matrix_of_xgboost_predicts_as_an_array_does(iterations: tuple[int, int]) -> None:
    booster = trained()
    expected = booster.inplace_predict(FEATURES, iteration_range=iterations, validate_features=False)
    found = matrix_compute(booster, iterations, threads=2)(FEATURES)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_the_public_way() -> None:
    booster = trained()
    with pytest.raises((AssertionError, RuntimeError)):
        direct_compute(booster, (0, 0), device="cuda:0")
    found = device_compute(booster, (0, 0), device="cuda:0", threads=1)(FEATURES)
    np.testing.assert_array_equal(found, matrix_compute(booster, (0, 0), threads=1)(FEATURES))
