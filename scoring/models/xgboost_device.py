"""XGBoost on a GPU, given its features in device memory.

XGBoost's Python package takes device memory from CuPy only. PyTorch has device memory, too, and XGBoost's C interface
takes it from anybody: so features travel through PyTorch's lane where PyTorch is installed and can use the GPU. What
this relies on is not part of XGBoost's Python interface, so a predictor is compared with the public way before it is
used.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xgboost  # noqa: TID253 - part of the flavor's module xgboost.py

AGREEMENT: Final = 1e-6
"""Between two ways to the same prediction: trees may be added up in another order."""
Compute = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]
"""From a matrix of shape (rows, columns) to predictions."""


def device_compute(booster: xgboost.Booster, iterations: tuple[int, int], *, device: str, threads: int) -> Compute:
    """Return how `booster` predicts on a GPU: from device memory where that works, else from a `DMatrix`."""
    compute = matrix_compute(booster, iterations, threads=threads)
    try:
        direct = direct_compute(booster, iterations, device=device)
        examples = np.random.default_rng(0).normal(size=(64, booster.num_features())).astype(np.float32)
        examples[::2, ::3] = np.nan
        return direct if np.allclose(direct(examples), compute(examples), rtol=0, atol=AGREEMENT) else compute
    except Exception:  # noqa: BLE001 - whatever a release of either library has changed, there is the other way
        return compute


def matrix_compute(booster: xgboost.Booster, iterations: tuple[int, int], *, threads: int) -> Compute:
    """Return a function that predicts by a `DMatrix`, which the host builds.

    `inplace_predict` on an array of the host would do the same, with a warning and one thread.
    """

    def compute(matrix: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        data = xgboost.DMatrix(matrix, missing=np.nan, nthread=threads)
        values: npt.NDArray[Any] = booster.predict(data, iteration_range=iterations, validate_features=False)
        return values

    return compute


def direct_compute(booster: xgboost.Booster, iterations: tuple[int, int], *, device: str) -> Compute:
    """Return a function that predicts from device memory.

    Raises:
        ImportError, RuntimeError: there is no PyTorch that can use the device.
    """
    import torch

    from scoring.models.torch_lane import StagedLane

    target = torch.device(device)
    lane = StagedLane.for_columns(booster.num_features(), target)
    library: Any = xgboost.core._LIB  # noqa: SLF001 - the C interface, which is documented
    settings = {"type": 0, "training": False, "missing": float("nan"), "strict_shape": False, "cache_id": 0}
    begin, end = iterations
    configuration = json.dumps({**settings, "iteration_begin": begin, "iteration_end": end}).encode()

    def program(features: torch.Tensor) -> torch.Tensor:
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        values = ctypes.POINTER(ctypes.c_float)()
        status = library.XGBoosterPredictFromCudaArray(
            booster.handle,
            json.dumps(features.__cuda_array_interface__).encode(),
            configuration,
            None,
            ctypes.byref(shape),
            ctypes.byref(dimensions),
            ctypes.byref(values),
        )
        if status != 0:
            raise xgboost.core.XGBoostError(library.XGBGetLastError().decode())
        address = ctypes.cast(values, ctypes.c_void_p).value
        found = _DeviceArray(address or 0, tuple(shape[: dimensions.value]))
        # XGBoost's memory, which it uses again for the next piece.
        return torch.as_tensor(found, device=target).clone()

    def compute(matrix: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = lane.run(program, torch.from_numpy(matrix)).numpy()
        return values

    return compute


class _DeviceArray:
    """Floats in device memory, as libraries describe them to each other.

    No stream is named: PyTorch computes on CUDA's default stream and XGBoost on that of the thread, and these wait for
    each other.
    """

    def __init__(self, address: int, shape: tuple[int, ...]) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "strides": None,
            "typestr": "<f4",
            "version": 3,
        }
