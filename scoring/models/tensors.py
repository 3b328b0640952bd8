"""What a program of named input tensors is given: one matrix of all columns, or one tensor for each column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scoring.batch import Batch
from scoring.errors import ModelError, listed
from scoring.models.base import FrozenModel, check_features

TEXT: Final = "object"
"""NumPy's type of text."""
DTYPES: Final = ("float32", "float64", "int32", "int64", "bool", TEXT)
"""Types that columns can have as tensors, as NumPy calls them."""


@dataclass(frozen=True, slots=True)
class TensorInput:
    """One input of a program."""

    name: str
    dtype: str
    """One of `DTYPES`, else the input cannot be filled."""
    rank: int
    """1 for shape (rows,), 2 for (rows, columns)."""


@dataclass(frozen=True, slots=True)
class Feed:
    """How a batch becomes the inputs of a program."""

    model: FrozenModel
    inputs: tuple[TensorInput, ...]

    @classmethod
    def of(cls, model: FrozenModel, inputs: Sequence[TensorInput]) -> Feed:
        """Return how a model's columns become inputs.

        Raises:
            ModelError: an input is no column or matrix of columns, or one of several has not the name of a column.
        """
        if not inputs or any(tensor.dtype not in DTYPES or tensor.rank not in (1, 2) for tensor in inputs):
            raise ModelError(
                f"model {model.label} has inputs that columns cannot fill",
                f"tensors of rank 1 or 2 of {listed(DTYPES)}",
                listed(f"{tensor.name} of rank {tensor.rank} of {tensor.dtype}" for tensor in inputs) or "none",
            )
        if len(inputs) > 1:
            check_features(model, [tensor.name for tensor in inputs])
        return cls(model, tuple(inputs))

    def tensors(self, batch: Batch) -> dict[str, npt.NDArray[Any]]:
        """Return arrays by input; a single input takes all columns, in the order of the signature."""
        if len(self.inputs) > 1:
            frame = batch.frame(self.model.types)
            return {tensor.name: _shaped(tensor, frame[tensor.name].to_numpy()) for tensor in self.inputs}
        (tensor,) = self.inputs
        is_shared = tensor.dtype == "float32"
        values = batch.matrix(self.model.columns) if is_shared else batch.frame(self.model.types).to_numpy()
        return {tensor.name: _shaped(tensor, values)}


def _shaped(tensor: TensorInput, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    typed = np.ascontiguousarray(values.astype(tensor.dtype, copy=False))
    shape = (len(typed),) if tensor.rank == 1 else (len(typed), -1)
    return typed if typed.ndim == tensor.rank else typed.reshape(shape)
