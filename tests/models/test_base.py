"""How many numbers a step gets from a model is chosen and checked in one place."""

from __future__ import annotations

import numpy as np
import pytest

from scoring import testing
from scoring.errors import ModelError
from scoring.models.base import check_features, class_probabilities, expected_columns

MODEL = testing.frozen_model("m", {"x": "double", "y": "double"})
TWO = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
THREE = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]], np.float32)


def test_one_output_of_two_classes_is_the_probability_of_the_second() -> None:
    found = class_probabilities(MODEL, TWO, 1)
    np.testing.assert_array_equal(found, TWO[:, 1].astype(np.float64))
    np.testing.assert_array_equal(class_probabilities(MODEL, TWO[:, 1], 1), found)
    assert found.dtype == np.float64


def test_several_outputs_are_the_probabilities_of_all_classes() -> None:
    np.testing.assert_array_equal(class_probabilities(MODEL, THREE, 3), THREE.astype(np.float64))
    np.testing.assert_array_equal(class_probabilities(MODEL, TWO, 2), TWO.astype(np.float64))
    np.testing.assert_allclose(class_probabilities(MODEL, TWO[:, 1], 2), TWO, atol=1e-7)


@pytest.mark.parametrize("values", [THREE, THREE[:, :1], np.zeros((2, 2, 2))])
def test_one_output_needs_two_classes(values: np.ndarray) -> None:
    sentence = r"model 'm' version 1 is not a binary classifier: expected probabilities of shape \(rows, 2\), got \(2, "
    with pytest.raises(ModelError, match=sentence):
        class_probabilities(MODEL, values, 1)


def test_a_single_column_is_no_matrix() -> None:
    np.testing.assert_array_equal(expected_columns(MODEL, THREE[:, :1], 1), THREE[:, 0].astype(np.float64))
    assert expected_columns(MODEL, np.zeros((0, 1)), 1).shape == (0,)
    assert expected_columns(MODEL, np.array([1, 2]), 1).dtype == np.float64
    assert expected_columns(MODEL, THREE, 3).shape == (2, 3)


@pytest.mark.parametrize(
    ("values", "outputs", "found"),
    [
        (THREE, 1, r"expected 1 output, as the step names, got 3\. Name 3 on the model step: 'outputs: \[\.\.\.\]'"),
        (THREE, 4, r"expected 4 outputs, as the step names, got 3\."),
        (THREE[:, 0], 2, r"expected 2 outputs, as the step names, got 1\. Name one: 'output: \.\.\.'"),
        (np.zeros((2, 3, 1)), 3, r"expected 3 outputs, as the step names, got shape \(2, 3, 1\)"),
    ],
)
def test_both_numbers_are_named_when_they_differ(values: np.ndarray, outputs: int, found: str) -> None:
    with pytest.raises(ModelError, match=f"model 'm' version 1 predicted another number of columns: {found}"):
        expected_columns(MODEL, values, outputs)


def test_features_that_the_signature_lacks_are_named() -> None:
    assert check_features(MODEL, ["y", "x"]) == ("y", "x")
    with pytest.raises(ModelError, match=r"needs features that its signature lacks: expected y, z, got no z"):
        check_features(MODEL, ["y", "z"])
