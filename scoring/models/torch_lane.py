"""How rows of a host's matrix reach a program on a device, and its results come back.

A lane cuts a matrix into pieces, because on every device pieces are faster than the whole: a processor finds what a
layer left in its cache, and a GPU computes on one piece while the next is copied to it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import torch  # noqa: TID253 - part of the flavor's module torch.py

HOST_PIECE_ROWS: Final = 4_096
"""Rows of a piece by thread. Measured with layers of 64 to 1,024 units: 2 to 4 times as fast as 131,072 at once."""
DEVICE_PIECE_ROWS: Final = 262_144
"""Rows of a piece on a GPU at most."""
OVERLAPPED_PIECE_ROWS: Final = 16_384
"""Rows of a piece on a GPU at least: with fewer, starting kernels takes longer than they do."""
OVERLAPPED_PIECES: Final = 4
"""Pieces of a batch at least, if they have enough rows: with n pieces, 1/n of the copying overlaps nothing."""
INPUT_SHARE: Final = 1 / 16
"""Of the free device memory, for one piece of features: there are two, and layers are often wider than features."""
SLOTS: Final = 2

Program = Callable[[torch.Tensor], torch.Tensor]


class Lane(Protocol):
    """Runs a program on all rows of a matrix."""

    def run(self, program: Program, features: torch.Tensor) -> torch.Tensor:
        """Return the program's results for a float32 matrix of the host, as float64 on the host."""
        ...


@dataclass(frozen=True, slots=True)
class HostLane:
    """Pieces of a size that stays in the processor's cache."""

    threads: int

    def run(self, program: Program, features: torch.Tensor) -> torch.Tensor:
        """Return the program's results, as float64."""
        pieces = features.split(HOST_PIECE_ROWS * self.threads)
        return torch.cat([torch.atleast_1d(program(piece).to(torch.float64)) for piece in pieces])


@dataclass(slots=True)
class StagedLane:
    """Pieces that a stream of their own copies from pinned memory to the device, while that computes.

    Two slots take turns: one is filled while the program reads the other. Events say when a slot is free again, to the
    processor and to the device. Streams and events of a CPU do nothing, so there the same steps run one by one.
    """

    device: torch.device
    max_rows: int = DEVICE_PIECE_ROWS
    _pinned: dict[str, torch.Tensor] = field(default_factory=dict)
    """Host memory that the device reads and writes itself; kept between batches, since pinning is slow."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def for_columns(columns: int, device: torch.device) -> StagedLane:
        """Return a lane whose pieces suit the memory that the device has free now."""
        free, _ = torch.cuda.mem_get_info(device)
        return StagedLane(device, min(DEVICE_PIECE_ROWS, max(1, int(free * INPUT_SHARE) // (4 * columns))))

    def run(self, program: Program, features: torch.Tensor) -> torch.Tensor:
        """Return the program's results, as float64."""
        backend = torch.get_device_module(self.device)
        with self._lock, torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            try:
                results = self._queue(backend, program, features)
            finally:
                backend.synchronize()  # after an error too: pinned memory is used again
            return results.clone()

    def _queue(self, backend: Any, program: Program, features: torch.Tensor) -> torch.Tensor:
        """Queue the work on all pieces, and return the memory that has the results when the device is done."""
        rows, columns = self._piece_rows(len(features)), features.shape[1]
        sources = [self._host(f"features {slot}", (rows, columns), torch.float32) for slot in range(SLOTS)]
        targets = [torch.empty((rows, columns), device=self.device) for _ in range(SLOTS)]
        copied, computed = ([backend.Event() for _ in range(SLOTS)] for _ in range(2))
        computing, copying = backend.current_stream(), backend.Stream()
        copying.wait_stream(computing)  # the memory of the targets may have been something else's
        results = None
        for number, piece in enumerate(features.split(rows)):
            slot, start, stop = number % SLOTS, number * rows, number * rows + len(piece)
            source, target = sources[slot][: len(piece)], targets[slot][: len(piece)]
            copied[slot].synchronize()
            source.copy_(piece)
            with backend.stream(copying):
                copying.wait_event(computed[slot])
                target.copy_(source, non_blocking=True)
                copied[slot].record()
            computing.wait_event(copied[slot])
            values = program(target).to(torch.float64)
            computed[slot].record()
            if values.shape[:1] != (len(piece),):
                return values.cpu()  # not one result per row: whoever asked says so
            if results is None:
                results = self._host("results", (len(features), *values.shape[1:]), torch.float64)
            results[start:stop].copy_(values, non_blocking=True)
        return torch.empty(0, dtype=torch.float64) if results is None else results

    def _piece_rows(self, rows: int) -> int:
        return min(self.max_rows, max(OVERLAPPED_PIECE_ROWS, -(-rows // OVERLAPPED_PIECES)), rows)

    def _host(self, name: str, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        """Return pinned memory of a shape, the same as before if that was large enough."""
        numbers = math.prod(shape)
        if name not in self._pinned or self._pinned[name].numel() < numbers:
            self._pinned[name] = torch.empty(numbers, dtype=kind, pin_memory=self.device.type == "cuda")
        return self._pinned[name][:numbers].view(shape)


def empty_cache() -> None:
    """Return device memory that PyTorch keeps for reuse."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
