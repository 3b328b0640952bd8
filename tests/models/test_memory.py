"""Errors of libraries that ran out of memory are known as such, and batch sizes are remembered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from scoring.models.memory import BatchSizes, is_out_of_memory

PROJECT = Path(__file__).parents[2]
REAL = """
import resource, sys
from pathlib import Path
import numpy, pyarrow, torch, xgboost
from scoring.models.memory import is_out_of_memory

features = numpy.zeros((20_000_000, 3), numpy.float32)
labels = numpy.zeros(100)
booster = xgboost.train({"max_depth": 2, "nthread": 1}, xgboost.DMatrix(features[:100], labels), 2)
booster.inplace_predict(features[:10])
attempts = {
    "Python": lambda: bytearray(10**10),
    "NumPy": lambda: numpy.zeros(10**10),
    "Arrow": lambda: pyarrow.allocate_buffer(10**10),
    "PyTorch": lambda: torch.nn.Linear(3, 512)(torch.from_numpy(features)),
    "XGBoost": lambda: booster.inplace_predict(features),
    "DMatrix": lambda: xgboost.DMatrix(features),
}
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 50_000_000
resource.setrlimit(resource.RLIMIT_AS, (size, size))
for library, attempt in attempts.items():
    try:
        attempt()
    except Exception as error:
        print(library, is_out_of_memory(error))
"""


def test_real_failures_of_all_libraries_are_recognised() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REAL], check=True, cwd=PROJECT, timeout=120, capture_output=True, text=True
    )
    assert done.stdout.split() == [
        word for library in ("Python", "NumPy", "Arrow", "PyTorch", "XGBoost", "DMatrix") for word in (library, "True")
    ]


DEVICE_MESSAGES = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "[12:00:00] device_vector.cu:23: Memory allocation error on worker 0: bad_alloc: cudaErrorMemoryAllocation",
    "std::bad_alloc: out_of_memory: CUDA error at: cuda_memory_resource.hpp",
)


@pytest.mark.parametrize("message", DEVICE_MESSAGES)
def test_messages_of_devices_are_recognised(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


def test_a_cause_counts_and_other_errors_do_not() -> None:
    wrapped = RuntimeError("backend failed")
    wrapped.__cause__ = pa.ArrowMemoryError("malloc of size 100 failed")
    assert is_out_of_memory(wrapped)
    for other in (ValueError("Input X contains NaN."), RuntimeError("mat1 and mat2 shapes"), IndexError(), None):
        assert not is_out_of_memory(other)


def test_sizes_are_remembered_by_digest_and_device() -> None:
    sizes = BatchSizes()
    assert sizes.limit("a", "cpu", at_most=1000) == 1000
    sizes.fitted("a", "cpu", 1000)
    sizes.halve("a", "cpu", 1000)
    assert sizes.limit("a", "cpu", at_most=1000) == 500
    assert sizes.limit("a", "cpu", at_most=300) == 300
    assert sizes.limit("a", "cuda:0", at_most=1000) == 1000
    assert sizes.limit("b", "cpu", at_most=1000) == 1000
    assert sizes.halvings == 1
    assert sizes.used("ab") == {}, "what fitted before fits no more"
    sizes.fitted("a", "cpu", 500)
    sizes.fitted("a", "cpu", 20)
    sizes.fitted("b", "cuda:0", 7)
    assert sizes.used("ab") == {"a": 500, "b": 7}
    assert sizes.used("b") == {"b": 7}
