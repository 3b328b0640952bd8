from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.batch import FLOAT32_EXACT, Batch
from scoring.errors import ContractError


def batch(**columns: object) -> Batch:
    return Batch(pa.table({name: v if isinstance(v, pa.Array) else pa.array(v) for name, v in columns.items()}))


# ------------------------------------------------------------------------------------------------------ matrices


def test_a_matrix_holds_columns_in_the_asked_order_as_contiguous_float32() -> None:
    matrix = batch(a=[1, 2], b=[0.5, 0.25], c=[True, False]).matrix(("c", "a", "b"))
    assert matrix.dtype == np.float32
    assert matrix.flags["C_CONTIGUOUS"]
    assert matrix.tolist() == [[1.0, 1.0, 0.5], [0.0, 2.0, 0.25]]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, None, 3], pa.int32()),
        pa.array([1, None, 3], pa.uint8()),
        pa.array([1.0, None, 3.0], pa.float64()),
        pa.array([1.0, None, 3.0], pa.float32()),
        pa.array([1.0, float("nan"), 3.0], pa.float64()),
        pa.chunked_array([[1], [None, 3]], pa.int64()),
    ],
)
def test_null_and_nan_are_nan_in_a_matrix(values: pa.Array) -> None:
    found = Batch(pa.table({"a": values})).matrix(("a",))
    np.testing.assert_array_equal(found, np.array([[1], [np.nan], [3]], np.float32))


def test_a_boolean_with_null_is_one_zero_or_nan() -> None:
    found = batch(a=pa.array([True, None, False])).matrix(("a",))
    np.testing.assert_array_equal(found, np.array([[1], [np.nan], [0]], np.float32))


def test_a_column_of_nothing_but_null_is_nan() -> None:
    assert np.isnan(batch(a=pa.nulls(3, pa.int64())).matrix(("a",))).all()
    assert batch(a=pa.array([], pa.int64())).matrix(("a",)).shape == (0, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_integers_that_float32_cannot_hold_are_refused(sign: int) -> None:
    assert batch(a=[sign * FLOAT32_EXACT]).matrix(("a",)).tolist() == [[sign * 16777216.0]]
    assert np.float32(FLOAT32_EXACT + 1) == np.float32(FLOAT32_EXACT), "why the limit is there"
    sentence = (
        r"column 'a' does not fit a float32 feature matrix: expected integers up to 16777216, got 16777217\. Scale"
    )
    with pytest.raises(ContractError, match=sentence):
        batch(a=[1, sign * (FLOAT32_EXACT + 1)]).matrix(("a",))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array(["1"]), "string"),
        (pa.array([date(2013, 1, 1)]), "date32"),
        (pa.array([1]).cast(pa.decimal128(20)), "decimal"),
    ],
)
def test_a_column_that_is_no_number_is_refused(values: pa.Array, kind: str) -> None:
    with pytest.raises(
        ContractError, match=rf"column 'a' is not numeric: expected a number or boolean, got {kind}.*Encode"
    ):
        batch(a=values).matrix(("a",))


LARGEST = float(np.finfo(np.float32).max)


@given(st.lists(st.floats(-LARGEST, LARGEST) | st.sampled_from([None, np.nan, np.inf, -np.inf]), max_size=20))
def test_doubles_become_the_nearest_float32(values: list[float | None]) -> None:
    found = batch(a=pa.array(values, pa.float64())).matrix(("a",))
    expected = np.array([np.nan if v is None else v for v in values], np.float64).astype(np.float32)
    np.testing.assert_array_equal(found[:, 0], expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_doubles_that_float32_cannot_hold_are_refused(sign: int) -> None:
    sentence = r"column 'b' does not fit a float32 feature matrix: expected numbers up to 3\.4028235e\+38, got 1e\+39\."
    with pytest.raises(ContractError, match=sentence):
        batch(a=[1.0, np.inf], b=[np.nan, sign * 1e39]).matrix(("a", "b"))


@pytest.mark.parametrize("rows", [1, 4095, 4096, 4097, 10_000])
@pytest.mark.parametrize("columns", [1, 3, 300])
def test_a_matrix_is_the_columns_side_by_side_whatever_its_shape(rows: int, columns: int) -> None:
    numbers = np.random.default_rng(rows).normal(size=(columns, rows)).astype(np.float32)
    names = tuple(f"c{position}" for position in range(columns))
    whole = Batch(pa.table(dict(zip(names, numbers, strict=True))))
    np.testing.assert_array_equal(whole.matrix(names), numbers.T)
    np.testing.assert_array_equal(Batch(whole.table.slice(1)).matrix(names), numbers.T[1:])


# ------------------------------------------------------------------------------------------------------ sharing


def test_a_matrix_is_built_once() -> None:
    shared = batch(a=[1.0], b=[2.0])
    assert shared.matrix(("a", "b")) is shared.matrix(("a", "b"))
    assert shared.matrix(("b", "a")) is not shared.matrix(("a", "b"))


def test_a_new_column_keeps_matrices_and_frames_of_the_others() -> None:
    first = batch(a=[1.0], b=[2.0])
    matrix, frame = first.matrix(("a",)), first.frame((("a", pa.float64()),))
    second = first.with_column("c", np.array([3.0]))
    assert second.matrix(("a",)) is matrix
    assert second.frame((("a", pa.float64()),)) is frame
    assert first.table.column_names == ["a", "b"]


def test_a_replaced_column_is_seen_by_matrices_and_frames() -> None:
    first = batch(a=[1.0], b=[2.0])
    types = (("a", pa.float64()), ("b", pa.float64()))
    first.matrix(("a", "b")), first.matrix(("b",)), first.frame(types)
    second = first.with_column("a", pa.array([9.0]))
    assert second.table.column_names == ["a", "b"]
    assert second.matrix(("a", "b")).tolist() == [[9.0, 2.0]]
    assert second.matrix(("b",)) is first.matrix(("b",))
    assert second.frame(types).to_numpy().tolist() == [[9.0, 2.0]]
    assert first.matrix(("a", "b")).tolist() == [[1.0, 2.0]]


def test_a_slice_is_rows_of_its_own() -> None:
    whole = batch(a=[1.0, 2.0, 3.0])
    part = whole.slice(1, 5)
    assert part.rows == 2
    assert part.matrix(("a",)).tolist() == [[2.0], [3.0]]
    assert part.frame((("a", pa.float64()),)).index.tolist() == [0, 1]
    assert part.slice(1, 1).matrix(("a",)).tolist() == [[3.0]]


def test_slices_share_what_is_built_once_for_the_whole() -> None:
    whole = batch(a=[1, 2, 3, 4, 5], b=[0.5, None, 0.25, 1.0, 2.0], t=["u", "v", None, "w", "x"])
    columns, types = ("b", "a"), (("a", pa.float64()), ("b", pa.float64()), ("t", pa.string()))
    matrices = [whole.slice(at, 2).matrix(columns) for at in range(0, 5, 2)]
    assert all(np.shares_memory(matrix, whole.matrix(columns)) for matrix in matrices)
    assert all(matrix.flags["C_CONTIGUOUS"] for matrix in matrices)
    for at, matrix in zip(range(0, 5, 2), matrices, strict=True):
        alone = Batch(whole.table.slice(at, 2))
        np.testing.assert_array_equal(matrix, alone.matrix(columns))
        pd.testing.assert_frame_equal(whole.slice(at, 2).frame(types), alone.frame(types))


def test_a_slice_has_the_dtypes_of_the_whole() -> None:
    types = (("a", pa.int32()),)
    whole = batch(a=pa.array([1, 2, None, 4], pa.int32()))
    assert str(whole.slice(0, 2).frame(types).dtypes["a"]) == str(whole.frame(types).dtypes["a"]) == "float64"


def test_a_model_that_changes_the_frame_of_a_slice_changes_no_others() -> None:
    types = (("a", pa.float64()),)
    whole = batch(a=[1.0, 2.0, 3.0])
    changed = whole.slice(1, 2).frame(types)
    changed.loc[:, "a"] = 9.0
    assert whole.frame(types)["a"].tolist() == [1.0, 2.0, 3.0]


def test_a_column_replaced_in_a_slice_is_seen() -> None:
    part = batch(a=[1.0, 2.0, 3.0], b=[4.0, 5.0, 6.0]).slice(1, 2)
    shared = part.matrix(("b",))
    second = part.with_column("a", pa.array([8.0, 9.0]))
    assert second.matrix(("a", "b")).tolist() == [[8.0, 5.0], [9.0, 6.0]]
    assert second.matrix(("b",)) is shared


# ------------------------------------------------------------------------------------------------------ frames


def test_a_frame_has_the_dtypes_that_pandas_gives() -> None:
    whole = batch(
        number=pa.array([1, 2], pa.int32()),
        missing=pa.array([1, None], pa.int32()),
        text=pa.array(["a", None]),
        flag=pa.array([True, False]),
        moment=pa.array([datetime(2013, 1, 1, 12, tzinfo=UTC), None], pa.timestamp("us")),
    )
    frame = whole.frame(tuple((name, whole.table.schema.field(name).type) for name in whole.table.column_names))
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        "number": "int32",
        "missing": "float64",
        "text": "object",
        "flag": "bool",
        "moment": "datetime64[us]",
    }
    assert frame["text"].tolist() == ["a", None]


def test_a_frame_converts_to_the_signatures_types() -> None:
    frame = batch(a=pa.array([1, 2], pa.int8()), t=pa.array(["x", "y"]).dictionary_encode()).frame(
        (("a", pa.float64()), ("t", pa.string()))
    )
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"a": [1.0, 2.0], "t": ["x", "y"]}))


def test_a_frame_holds_the_doubles_nearest_to_a_rules_decimals() -> None:
    values = pa.chunked_array([[Decimal("0.7")], [Decimal("-1.91"), None]], pa.decimal128(5, 2))
    found = Batch(pa.table({"a": values})).frame((("a", pa.float64()),))["a"]
    np.testing.assert_array_equal(found, [0.7, -1.91, np.nan])


@pytest.mark.parametrize(
    ("values", "wanted", "sentence"),
    [
        (pa.array([1.5]), pa.int64(), r"'a' does not convert: expected values of type int64, got double \(.*1\.5"),
        (pa.array([2**40]), pa.int32(), r"'a' does not convert: expected values of type int32, got int64"),
        (pa.array(["x"]), pa.float64(), r"'a' does not convert: expected values of type double, got string"),
        (
            pa.array([1e39]),
            pa.float32(),
            r"'a' does not convert: expected values of type float, got double \(.*too large",
        ),
        (
            pa.array([2]),
            pa.bool_(),
            r"'a' does not convert: expected values of type bool, got int64 \(.*neither 0 nor 1",
        ),
        (
            pa.array([1], pa.timestamp("us")),
            pa.int64(),
            r"'a' does not convert: expected values of type int64, got time",
        ),
        (
            pa.array([2**53 + 1, None]),
            pa.int64(),
            r"'a' has nulls, so that pandas makes .*, got 9007199254740993\. Fill",
        ),
    ],
)
def test_a_value_that_does_not_convert_is_refused(values: pa.Array, wanted: pa.DataType, sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        batch(a=values).frame((("a", wanted),))
