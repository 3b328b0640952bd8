"""Tests of this folder are collected everywhere and run where there is a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

COLUMNS = 30


def random_table(rows: int, *, seed: int = 0) -> pa.Table:
    """Return rows with the features `c0`, `c1` and so on."""
    random = np.random.default_rng(seed)
    return pa.table({f"c{position}": random.standard_normal(rows, dtype=np.float32) for position in range(COLUMNS)})


@pytest.fixture
def cuda() -> Iterator[Any]:
    """PyTorch, on a machine with a GPU that it can use, whose memory is given back afterwards."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU that PyTorch can use")
    yield torch
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
