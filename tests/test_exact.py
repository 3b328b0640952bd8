"""Properties of what a model is given: drawn columns of every type, against plain Python, NumPy and pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.batch import Batch
from scoring.data.contract import Contract, ContractColumn
from scoring.data.partition import InputFile, Partition
from scoring.errors import ContractError
from tests import drawing, oracle

ROWS = 12
WANTED = (*drawing.INTEGERS, pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.date32(), pa.timestamp("us"))
"""Types that a contract may name."""
EXAMPLES = settings().max_examples
NUMBERS = (*drawing.INTEGERS, pa.float16(), pa.float32(), pa.float64(), pa.bool_())


def convertible(given: pa.DataType) -> list[pa.DataType]:
    """Return the types of a contract that a file's type converts to, and its own."""
    for group in (drawing.NUMBERS, (*drawing.DAYS, *drawing.MOMENTS), drawing.TEXTS, (pa.bool_(),)):
        if given in group:
            return [wanted for wanted in WANTED if wanted in group]
    return [given]


@pytest.mark.parametrize("kind", [kind for kind in drawing.ALL if kind != pa.null()], ids=str)
@given(st.data())
@settings(max_examples=EXAMPLES // 3)
def test_a_row_keeps_its_exact_value_or_is_left_out_with_a_reason(kind: pa.DataType, data: st.DataObject) -> None:
    whole, wanted = data.draw(drawing.columns(kind, ROWS)), data.draw(st.sampled_from(convertible(kind)))
    cut, is_nullable = data.draw(st.integers(0, ROWS)), data.draw(st.booleans())
    column = pa.chunked_array(data.draw(st.sampled_from([[whole], [whole.slice(cut)], [whole[:cut], whole[cut:]]])))
    plain = drawing.plain(wanted)
    contract = Contract((ContractColumn("v", plain, is_nullable),), is_closed=False, parse_text=False)
    table = pa.table({"v": column})
    contract.check_files(Partition("day", "1", (InputFile("f", 1, table.schema, (), 0),)))
    result, reasons = contract.apply(table)
    expected, left_out = [], {}
    for row, value in enumerate(column.to_pylist()):
        became = oracle.become(value, column.type, plain)
        if became is oracle.LOST:
            left_out[row] = f"v: {value!r} is not {plain}"
        elif oracle.is_missing(became) and not is_nullable:
            left_out[row] = "v: null in a required column"
        else:
            expected.append(became)
    assert result.schema == pa.schema([("v", plain)])
    found = result.column("v").to_pylist()
    assert len(found) == len(expected)
    assert all(map(oracle.same, found, expected)), (found, expected)
    assert reasons == left_out


@st.composite
def numbers(draw: st.DrawFn) -> pa.Table:
    """A table of numbers in pieces, most of them small enough for float32."""
    rows = draw(st.integers(0, ROWS))
    kinds = draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=5))
    columns = []
    for kind in kinds:
        small = (
            drawing.values(kind).filter(lambda value: not abs(float(value)) > 2**24)
            if draw(st.integers(0, 3))
            else None
        )
        columns.append(draw(drawing.columns(kind, rows, items=small)))
    table = pa.table(columns, names=[f"c{number}" for number in range(len(kinds))])
    cut = draw(st.integers(0, rows))
    return pa.concat_tables([table.slice(0, cut), table.slice(cut)]) if draw(st.booleans()) else table.slice(cut)


def as_float32(column: pa.ChunkedArray) -> tuple[np.ndarray, bool]:
    """Return what NumPy makes of plain values, and whether each of them fits."""
    values = column.to_pylist()
    is_fitting = not any(isinstance(value, int) and abs(value) > 2**24 for value in values)
    doubles = np.array([np.nan if value is None else float(value) for value in values], np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        singles = doubles.astype(np.float32)
    return singles, is_fitting and not (np.isinf(singles) & ~np.isinf(doubles)).any()


@given(numbers(), st.integers(1, ROWS))
@settings(max_examples=5 * EXAMPLES)
def test_a_matrix_holds_the_exact_numbers_or_is_refused(table: pa.Table, size: int) -> None:
    expected = [as_float32(column) for column in table.columns]
    names = tuple(table.column_names)
    if not all(is_fitting for _, is_fitting in expected):
        with pytest.raises(ContractError, match=r"column 'c\d' does not fit a float32 feature matrix: expected "):
            Batch(table).matrix(names)
        return
    whole = Batch(table)
    matrix = whole.matrix(names)
    np.testing.assert_array_equal(matrix, np.column_stack([values for values, _ in expected]))
    assert matrix.dtype == np.float32
    assert matrix.flags["C_CONTIGUOUS"]
    for start in range(0, table.num_rows, size):
        np.testing.assert_array_equal(whole.slice(start, size).matrix(names), matrix[start : start + size])


SIGNATURE = (pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.timestamp("us"))


@given(st.data())
@settings(max_examples=3 * EXAMPLES)
def test_a_frame_is_that_of_pandas(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, ROWS))
    kinds = data.draw(st.lists(st.sampled_from(SIGNATURE), min_size=1, max_size=5))
    table = pa.table(
        [data.draw(drawing.columns(kind, rows)) for kind in kinds], names=[f"c{n}" for n in range(len(kinds))]
    )
    types = tuple(zip(table.column_names, kinds, strict=True))
    too_wide = [
        column
        for column in table.columns
        if column.null_count and column.type == pa.int64() and any(abs(v or 0) > 2**53 for v in column.to_pylist())
    ]
    if too_wide:
        with pytest.raises(ContractError, match=r"column 'c\d' has nulls, so that pandas makes its integers doubles"):
            Batch(table).frame(types)
        return
    pd.testing.assert_frame_equal(Batch(table).frame(types), table.to_pandas(), check_exact=True)
    size = data.draw(st.integers(1, ROWS))
    pieces = [Batch(table).slice(start, size).frame(types) for start in range(0, rows, size)]
    pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True), table.to_pandas(), check_exact=True)
