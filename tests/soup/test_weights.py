from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from scoring.errors import ModelError
from scoring.models.soup.weights import Weights, average, check_compatible

FINITE = st.floats(-1e6, 1e6, width=32)


@given(st.data())
def test_an_average_is_that_of_numpy(data: st.DataObject) -> None:
    parents = data.draw(st.integers(2, 5))
    shape = data.draw(npst.array_shapes(min_dims=0, max_dims=3, max_side=4))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    stacked = data.draw(npst.arrays(dtype, (parents, *shape), elements=FINITE))
    shares = np.array(data.draw(st.lists(st.floats(0, 1), min_size=parents, max_size=parents)))
    mixing = shares / shares.sum() if shares.sum() > 1e-3 else np.full(parents, 1 / parents)
    mixed = average([{"w": tensor} for tensor in stacked], mixing)["w"]
    expected = np.average(stacked.astype(np.float64), axis=0, weights=mixing)
    assert (mixed.dtype, mixed.shape) == (dtype, shape)
    np.testing.assert_allclose(mixed, expected, rtol=1e-6, atol=1e-6)


def test_a_parent_without_a_share_leaves_no_trace() -> None:
    broken = np.array([np.inf, np.nan])
    mixed = average([{"w": np.array([1.0, 2.0])}, {"w": broken}], [1, 0])
    np.testing.assert_array_equal(mixed["w"], [1.0, 2.0])


FIRST = Weights(
    {"a.weight": np.zeros((2, 3), np.float32), "a.bias": np.zeros(2, np.float32)},
    {"means": np.array([0.5, np.nan])},
    structure=("linear", "relu"),
)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            Weights({"a.weight": np.zeros((4, 3), np.float32), "a.bias": np.zeros(4, np.float32)}, FIRST.fixed),
            r"'m' version 3 cannot be averaged: tensor 'a\.weight' differs: .*\(2, 3\) as in .*, got .*\(4, 3\)",
        ),
        (
            Weights({**FIRST.averaged, "a.bias": np.zeros(2)}, FIRST.fixed),
            r"tensor 'a\.bias' differs: expected float32 of shape \(2,\) .*, got float64 of shape \(2,\)",
        ),
        (
            Weights({"a.weight": FIRST.averaged["a.weight"]}, FIRST.fixed),
            r"tensor 'a\.bias' differs: .*, got none in 'm' version 4",
        ),
        (
            Weights({**FIRST.averaged, "b": np.zeros(1)}, FIRST.fixed),
            r"tensor 'b' differs: expected none as in 'm' version 3, got float64 of shape \(1,\)",
        ),
        (
            Weights(FIRST.averaged, FIRST.fixed, structure=("linear", "tanh")),
            r"their computations differ in line 2: expected 'relu' as in .*, got 'tanh' in",
        ),
        (
            Weights(FIRST.averaged, FIRST.fixed, structure=("linear",)),
            r"their computations differ in line 2: expected 'relu' as in .*, got 'nothing' in",
        ),
        (
            Weights(FIRST.averaged, {"means": np.array([0.25, np.nan])}, structure=FIRST.structure),
            r"'means', which prepares features and is not averaged, differs at \[0\]: expected 0\.5 .*, got 0\.25",
        ),
    ],
)
def test_the_first_difference_is_named(other: Weights, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        check_compatible({"'m' version 3": FIRST, "'m' version 4": other})


def test_equal_architectures_are_compatible() -> None:
    trained = Weights(
        {name: tensor + 1 for name, tensor in FIRST.averaged.items()}, FIRST.fixed, frozenset(), FIRST.structure
    )
    check_compatible({"v3": FIRST, "v4": trained, "v5": FIRST})


def test_the_third_parent_is_compared_too() -> None:
    other = Weights({}, FIRST.fixed, structure=FIRST.structure)
    with pytest.raises(ModelError, match=re.escape("the weights of v5 and v3 cannot be averaged")):
        check_compatible({"v3": FIRST, "v4": FIRST, "v5": other})
