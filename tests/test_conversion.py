from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.conversion import convert, has_nan
from tests import drawing

MANY_DIGITS = "0.1882783227681248635387883305541352861350507581226245841774162225409560525179"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0.7", pa.decimal128(1, 1)),
        ("-577.7760", pa.decimal128(7, 4)),
        ("-1.91", pa.decimal32(9, 2)),
        ("49236601852188.91", pa.decimal64(18, 2)),
        ("12345678901234567890123456789012345.678", pa.decimal128(38, 3)),
        ("0.00000000000000000000000007", pa.decimal128(38, 26)),
        (MANY_DIGITS, pa.decimal256(76, 76)),
    ],
)
def test_a_decimal_becomes_the_nearest_float(text: str, kind: pa.DataType) -> None:
    values = drawing.column([None, Decimal(text)], kind).slice(1)
    assert convert(values, pa.float64()).to_pylist() == [float(text)]
    assert convert(values, pa.float32()).to_pylist() == [float(np.float32(float(text)))]


def test_arrow_itself_does_not_find_the_nearest_float() -> None:
    assert pa.array([Decimal("0.7")]).cast(pa.float64()).to_pylist() != [0.7], "why `_nearest_doubles` is there"


@pytest.mark.parametrize("kind", drawing.DECIMALS, ids=str)
@given(st.data())
def test_decimals_become_what_python_makes_of_them(kind: pa.DataType, data: st.DataObject) -> None:
    if kind.scale <= 0:
        return
    values = data.draw(drawing.columns(kind, 5))
    expected = [None if value is None else float(value) for value in values.to_pylist()]
    assert convert(values, pa.float64()).to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "wanted", "message"),
    [
        (pa.array([Decimal(2**53 + 1)]), pa.float64(), "not in range"),
        (pa.array([Decimal(2**24 + 1)]), pa.float32(), "not in range"),
        (pa.array([Decimal(10) ** 30]), pa.float64(), "would not fit|out of bounds"),
        (drawing.column([Decimal(10) ** 70], pa.decimal256(76, 2)), pa.float32(), "too large for float"),
        (pa.array([1e39]), pa.float32(), "too large for float"),
        (pa.array([None, -1e39, math.inf]), pa.float32(), "too large for float"),
        (pa.array(["1e400"]), pa.float64(), "too large for double"),
        (pa.array([" -1e39 ", "inf"]), pa.float32(), "too large for float"),
        (pa.array([2]), pa.bool_(), "neither 0 nor 1"),
        (pa.array([1], pa.timestamp("us")), pa.int64(), "measure different things"),
        (pa.array([1]), pa.timestamp("us"), "measure different things"),
        (pa.array([86_400_001], pa.timestamp("ms")), pa.date32(), "time of day"),
        (pa.array([1], pa.timestamp("ns")), pa.timestamp("us"), "would lose data"),
    ],
)
def test_a_value_that_would_be_lost_is_refused(values: pa.Array, wanted: pa.DataType, message: str) -> None:
    with pytest.raises(pa.ArrowInvalid, match=message):
        convert(values, wanted)


@pytest.mark.parametrize(
    ("values", "wanted", "expected"),
    [
        (pa.array([Decimal(2**53)]), pa.float64(), [2.0**53]),
        (pa.array([math.inf, None, -math.inf]), pa.float32(), [math.inf, None, -math.inf]),
        (pa.array(["Infinity", " -inf", "1e39"]), pa.float64(), [math.inf, -math.inf, 1e39]),
        (pa.array([0, 1, None]), pa.bool_(), [False, True, None]),
        (pa.array([np.float16(2), None, np.float16("nan")], pa.float16()), pa.int8(), [2, None, None]),
        (pa.array([None, 5]).dictionary_encode(), pa.float32(), [None, 5.0]),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([None, 5])), pa.float32(), [None, 5.0]),
        (pa.nulls(2), pa.timestamp("us"), [None, None]),
    ],
)
def test_values_that_fit_stay_as_they_are(values: pa.Array, wanted: pa.DataType, expected: list[object]) -> None:
    assert convert(values, wanted).to_pylist() == expected


def test_a_nan_is_found_wherever_and_of_whatever_kind() -> None:
    signalling = np.array([1.0, 2.0, 3.0])
    signalling.view(np.uint64)[1] = 0x7FF0000000000001
    assert has_nan(signalling)
    assert has_nan(np.array([math.inf, math.nan, -math.inf], np.float32))
    assert not has_nan(np.array([math.inf, -math.inf, 0.0]))
    assert not has_nan(np.array([]))
