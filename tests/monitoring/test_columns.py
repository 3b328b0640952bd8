from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from scoring.errors import MAX_EXAMPLE_CHARS
from scoring.monitoring.columns import OTHER, PreparedColumn, categories_told_apart, prepare, readable
from scoring.monitoring.report import ColumnKind, DriftMethod, SkippedColumn

NUMERIC, CATEGORICAL = ColumnKind.NUMERIC, ColumnKind.CATEGORICAL
WASSERSTEIN, JENSEN_SHANNON, MISSING = DriftMethod.WASSERSTEIN, DriftMethod.JENSEN_SHANNON, DriftMethod.MISSING


def column(values: Any, arrow_type: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([values if isinstance(values, pa.Array) else pa.array(values, arrow_type)])


def prepared(reference: Any, current: Any, arrow_type: pa.DataType | None = None) -> PreparedColumn | SkippedColumn:
    return prepare("x", column(reference, arrow_type), column(current, arrow_type), threshold=0.1)


def compared(reference: Any, current: Any, arrow_type: pa.DataType | None = None) -> PreparedColumn:
    found = prepared(reference, current, arrow_type)
    assert isinstance(found, PreparedColumn)
    return found


MANY = list(range(3_000))
WIDE = [value / 8 for value in MANY]


@pytest.mark.parametrize(
    ("values", "arrow_type", "kind", "method"),
    [
        (WIDE, pa.float32(), NUMERIC, WASSERSTEIN),
        (MANY, pa.int16(), NUMERIC, WASSERSTEIN),
        (MANY, pa.uint64(), NUMERIC, WASSERSTEIN),
        ([Decimal(value) / 4 for value in MANY], pa.decimal128(10, 2), NUMERIC, WASSERSTEIN),
        ([value % 12 for value in MANY], pa.int64(), CATEGORICAL, JENSEN_SHANNON),
        ([value % 12 / 2 for value in MANY], pa.float64(), NUMERIC, WASSERSTEIN),
        ([value % 2 == 0 for value in MANY], pa.bool_(), CATEGORICAL, JENSEN_SHANNON),
        ([f"c{value % 3}" for value in MANY], pa.string(), CATEGORICAL, JENSEN_SHANNON),
        ([f"c{value % 3}" for value in MANY], pa.large_string(), CATEGORICAL, JENSEN_SHANNON),
        ([f"c{value % 3}" for value in MANY], pa.string_view(), CATEGORICAL, JENSEN_SHANNON),
        ([f"c{value % 3}" for value in MANY], pa.dictionary(pa.int8(), pa.string()), CATEGORICAL, JENSEN_SHANNON),
        (MANY, pa.dictionary(pa.int16(), pa.int64()), NUMERIC, WASSERSTEIN),
    ],
    ids=lambda value: str(value) if isinstance(value, pa.DataType) else "",
)
def test_the_type_decides_how_a_column_is_compared(
    values: Any, arrow_type: pa.DataType, kind: ColumnKind, method: DriftMethod
) -> None:
    found = compared(values, values, arrow_type)
    assert (found.kind, found.method, found.note) == (kind, method, "")
    assert len(found.reference) == len(found.current) == len(values)


@pytest.mark.parametrize(
    ("values", "arrow_type"),
    [
        ([date(2013, 1, 1)], pa.date32()),
        ([datetime(2013, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        ([b"x"], pa.binary()),
        ([[1.0]], pa.list_(pa.float64())),
        ([{"a": 1}], pa.struct({"a": pa.int64()})),
    ],
    ids=str,
)
def test_other_types_are_skipped_with_a_reason(values: Any, arrow_type: pa.DataType) -> None:
    assert prepared(values, values, arrow_type) == SkippedColumn("x", f"values of type {arrow_type} are not compared")


def test_types_that_differ_are_skipped_with_a_reason() -> None:
    assert prepared([1, 2], ["a", "b"]) == SkippedColumn(
        "x", "its type is int64 in the reference, string in the current window"
    )
    assert compared(MANY, WIDE).method is WASSERSTEIN


@pytest.mark.parametrize(
    "empty", [pa.nulls(3), pa.nulls(3, pa.float64()), pa.nulls(3, pa.string()), pa.array([np.nan, np.inf])]
)
def test_a_column_without_values_on_both_sides_is_skipped(empty: pa.Array) -> None:
    assert prepared(empty, empty) == SkippedColumn("x", "no values on either side")


@pytest.mark.parametrize("empty", [pa.nulls(5), pa.nulls(5, pa.float64()), pa.array([np.nan, np.inf, -np.inf])])
def test_a_column_that_lost_all_values_is_compared_by_what_is_missing(empty: pa.Array) -> None:
    found = compared(WIDE, empty)
    assert (found.kind, found.method) == (NUMERIC, MISSING)
    assert found.note == "missing: 0.0 % in the reference, 100.0 % now"
    assert set(found.reference) == {"(present)"}
    assert set(found.current) == {"(missing)"}


def test_a_changed_share_of_missing_numbers_counts_for_more_than_their_values() -> None:
    half = [None if value % 2 else value / 8 for value in MANY]
    assert compared(WIDE, half).note == "missing: 0.0 % in the reference, 50.0 % now"
    assert compared(half, half).method is WASSERSTEIN
    assert np.isnan(compared(half, half).reference.astype(float)).sum() == len(MANY) / 2


def test_missing_text_is_a_category() -> None:
    found = compared(["a", None, ""], [None, None, None], pa.string())
    assert found.reference.tolist() == ["a", "(missing)", "(empty)"]
    assert set(found.current) == {"(missing)"}


def test_infinite_numbers_are_missing() -> None:
    found = compared([*WIDE, np.inf], [*WIDE, -np.inf])
    assert found.method is WASSERSTEIN
    assert np.isnan(found.reference.astype(float)).sum() == 1


def test_codes_of_the_reference_stay_codes_when_the_current_window_has_many() -> None:
    found = compared([1, 2, 3] * 1000, list(range(3000)))
    assert found.kind is CATEGORICAL
    assert OTHER in found.current
    assert {"1", "2", "3"} <= set(found.current)


@pytest.mark.parametrize("arrow_type", [pa.float64(), pa.float32()])
def test_a_constant_reference_has_no_scale(arrow_type: pa.DataType) -> None:
    found = compared([0.1] * 100, [0.1] * 50 + [7.0] * 49 + [None], arrow_type)
    assert (found.kind, found.method, found.note) == (NUMERIC, JENSEN_SHANNON, "always 0.1 in the reference")
    assert found.current.tolist() == ["0.1"] * 50 + [OTHER] * 49 + ["(missing)"]


def test_a_constant_current_window_is_compared_by_its_values() -> None:
    assert compared(WIDE, [3.0] * 10).method is WASSERSTEIN


def test_small_numbers_are_scaled_up() -> None:
    found = compared([value * 1e-8 for value in MANY], [value * 2e-8 for value in MANY])
    assert found.note == "shown times 1e6"
    assert found.reference.astype(float).std() == pytest.approx(np.std(MANY) / 100)


def test_large_numbers_that_hardly_differ_are_shown_without_their_mean() -> None:
    found = compared([1e12 + value for value in WIDE], [1e12 + value + 100 for value in WIDE])
    assert found.note == "shown minus 1e+12"
    assert found.reference.astype(float).mean() == pytest.approx(0, abs=0.01)
    assert found.current.astype(float).mean() == pytest.approx(100, abs=0.01)


def test_rounding_errors_are_no_differences() -> None:
    found = compared([0.3, 0.1 + 0.2] * 10, [0.30000000000000016] * 20)
    assert found.note == "always 0.3 in the reference"
    assert set(found.reference) == set(found.current) == {"0.3"}


@pytest.mark.parametrize("huge", [1e9, 1e100, 1.7e308, -1.7e308])
def test_one_corrupt_number_overflows_nothing(huge: float) -> None:
    with np.errstate(all="raise", under="ignore"):
        for reference, current in (([*WIDE, huge], WIDE), (WIDE, [*WIDE, huge])):
            found = compared(reference, current)
            assert np.isfinite(np.nanstd(np.concatenate([found.reference, found.current]).astype(float)))


def test_many_categories_are_taken_together() -> None:
    rng = default_rng(0)
    tails = [f"N{number}" for number in rng.integers(0, 4000, 5000)]
    found = compared(["WN"] * 2000 + tails, ["WN"] * 500 + ["new"] * 1500 + tails)
    assert found.note == f"{len({*tails}) + 2} categories, all but the 49 most frequent taken as one"
    assert len(set(found.reference) | set(found.current)) <= 50
    assert {"WN", OTHER} <= set(found.reference)
    assert {"WN", "new", OTHER} <= set(found.current)


@pytest.mark.parametrize(
    ("reference_rows", "current_rows", "most"), [(5000, 5000, 50), (5000, 500, 10), (500, 500, 6), (10, 10, 3)]
)
def test_fewer_rows_tell_fewer_categories_apart(reference_rows: int, current_rows: int, most: int) -> None:
    assert categories_told_apart(reference_rows, current_rows, threshold=0.1) == most


@given(st.lists(st.text(), unique=True))
def test_labels_are_short_different_and_harmless(names: list[str]) -> None:
    labels = readable(names)
    assert list(labels) == names
    assert len(set(labels.values())) == len(names)
    assert all(labels.values())
    assert not any(character in label for label in labels.values() for character in "<>&")


def test_long_names_are_cut() -> None:
    labels = readable(["a" * 100, "a" * 101])
    assert labels["a" * 100] == "a" * (MAX_EXAMPLE_CHARS - 1) + "…"
    assert labels["a" * 101].endswith("… #2")
