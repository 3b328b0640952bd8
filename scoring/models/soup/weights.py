"""Weights as named arrays: whether those of two models can be averaged, and their average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scoring.errors import ModelError

Tensors = Mapping[str, npt.NDArray[Any]]
"""Arrays by the name that their framework gives them."""
MAX_LINE_CHARS: Final = 160
"""How much of a line of a structure a sentence repeats at most."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What of a model is averaged, and what must be equal for an average to mean something."""

    averaged: Tensors
    """Floats that training found."""
    fixed: Tensors = field(default_factory=dict)
    """All others that predictions depend on, such as means by which features are scaled."""
    statistics: frozenset[str] = frozenset()
    """Names among `averaged` that no average is right for: BatchNorm's running means and variances."""
    structure: tuple[str, ...] = ()
    """Lines that say what is computed with the tensors."""


def check_compatible(parents: Mapping[str, Weights]) -> None:
    """Check that models have one architecture, so that their weights can be averaged.

    Args:
        parents: by label, as sentences show it; compared with the first.

    Raises:
        ModelError: they have not; the first tensor that differs is named.
    """
    (first_label, first), *others = parents.items()
    for label, weights in others:
        for difference in (
            _other_shape(first.averaged, weights.averaged),
            _other_shape(first.fixed, weights.fixed),
            _other_line(first.structure, weights.structure),
            _other_values(first.fixed, weights.fixed),
        ):
            if difference is not None:
                what, expected, got = difference
                raise ModelError(
                    f"the weights of {label} and {first_label} cannot be averaged: {what}",
                    f"{expected} as in {first_label}",
                    f"{got} in {label}",
                    "A soup needs versions of one architecture on equally prepared features, best fine-tuned from one "
                    "common start.",
                )


def average(parents: Sequence[Tensors], mixing: npt.ArrayLike) -> dict[str, npt.NDArray[Any]]:
    """Return the weighted mean of compatible tensors, name by name.

    Args:
        parents: same names, shapes and dtypes.
        mixing: one weight per parent, shape (parents,); they should add up to 1.

    Returns:
        Tensors of the parents' dtypes; sums are made in float64.
    """
    shares = np.asarray(mixing, dtype=np.float64)
    mixed = {}
    for name, first in parents[0].items():
        total = np.zeros(first.shape, dtype=np.float64)
        for share, parent in zip(shares, parents, strict=True):
            if share:  # 0 times infinity would be no number
                total += share * parent[name]
        mixed[name] = total.astype(first.dtype)
    return mixed


_Difference = tuple[str, str, str]
"""What differs, expected, got."""


def _other_shape(first: Tensors, other: Tensors) -> _Difference | None:
    for name in (*first, *(name for name in other if name not in first)):
        expected, got = (_kind(tensors.get(name)) for tensors in (first, other))
        if expected != got:
            return f"tensor {name!r} differs", expected, got
    return None


def _kind(tensor: npt.NDArray[Any] | None) -> str:
    return "none" if tensor is None else f"{tensor.dtype} of shape {tensor.shape}"


def _other_line(first: Sequence[str], other: Sequence[str]) -> _Difference | None:
    for position in range(max(len(first), len(other))):
        expected, got = (lines[position] if position < len(lines) else "nothing" for lines in (first, other))
        if expected != got:
            return f"their computations differ in line {position + 1}", _cut(expected), _cut(got)
    return None


def _cut(line: str) -> str:
    return repr(line if len(line) <= MAX_LINE_CHARS else line[: MAX_LINE_CHARS - 1] + "…")


def _other_values(first: Tensors, other: Tensors) -> _Difference | None:
    for name, expected in first.items():
        got = other[name]
        is_float = expected.dtype.kind == "f"
        if np.array_equal(expected, got, equal_nan=is_float):
            continue
        same = expected == got
        if is_float:
            same |= np.isnan(expected) & np.isnan(got)
        place = tuple(int(axis) for axis in np.argwhere(~same)[0])
        where = f" at {list(place)}" if place else ""
        return (
            f"{name!r}, which prepares features and is not averaged, differs{where}",
            str(expected[place]),
            str(got[place]),
        )
    return None
