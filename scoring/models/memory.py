"""Out of memory: how it is recognised whatever the library, and with how many rows each model was seen to fit."""

from __future__ import annotations

import gc
import re
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

OUT_OF_MEMORY: Final = re.compile(
    r"out of memory|out_of_memory|bad_alloc|bad allocation|(can't|cannot) allocate memory|not enough memory"
    r"|ALLOC_FAILED|cudaErrorMemoryAllocation|memory allocation error",
    re.IGNORECASE,
)
"""What libraries say whose errors have no type of their own: PyTorch on the CPU, cuBLAS, XGBoost, Thrust."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, says that memory of the host or of a device did not suffice."""
    while error is not None:
        # NumPy's and Arrow's are MemoryErrors, PyTorch's for CUDA says so in its text.
        if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False


def free_memory() -> None:
    """Give back what is kept for reuse, so that whoever asks next for memory of a device can have it."""
    gc.collect()  # modules and the frames of errors hold tensors in cycles
    lane = sys.modules.get("scoring.models.torch_lane")
    if lane is not None:
        lane.empty_cache()


@dataclass(slots=True, eq=False)
class BatchSizes:
    """How many rows models of this process are given at once, by digest and device."""

    halvings: int = 0
    """How often a batch did not fit and was halved."""
    _limits: dict[tuple[str, str], int] = field(default_factory=dict)
    _used: dict[tuple[str, str], int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def limit(self, digest: str, device: str, *, at_most: int) -> int:
        """Return how many rows to try: `at_most`, or fewer if so many did not fit before."""
        return min(at_most, self._limits.get((digest, device), at_most))

    def halve(self, digest: str, device: str, rows: int) -> None:
        """Remember for the rest of the process that `rows` rows, at least two, did not fit."""
        with self._lock:
            self.halvings += 1
            self._limits[digest, device] = rows // 2
            self._used.pop((digest, device), None)

    def fitted(self, digest: str, device: str, rows: int) -> None:
        """Remember that `rows` rows did fit."""
        with self._lock:
            self._used[digest, device] = max(rows, self._used.get((digest, device), 0))

    def used(self, digests: Iterable[str]) -> dict[str, int]:
        """Return the largest batch that each model was given, by digest; those that were not used are left out."""
        wanted = set(digests)
        with self._lock:
            found = [(digest, rows) for (digest, _), rows in self._used.items() if digest in wanted]
        return {digest: max(rows for other, rows in found if other == digest) for digest, _ in found}


BATCH_SIZES: Final = BatchSizes()
"""The batch sizes of this process."""
