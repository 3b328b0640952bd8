"""Arrow tables as the pandas frames that Great Expectations checks, and arguments in the types of their columns.

pandas has no one frame that suits all expectations, so there are two:

- `values_frame` holds values as Great Expectations compares them best: numbers widened to int64 or float64 (its
  vectorised path), missing numbers as NaN. A NaN counts as missing, so `expect_column_values_to_not_be_null` finds it.
- `types_frame` keeps the exact types, whether or not values are missing: int16 stays int16.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pandas as pd

_EXACT_IN_FLOAT64: Final = 2**53
_BOUNDS: Final = ("min_value", "max_value")
_SETS: Final = ("value_set",)


def values_frame(table: pa.Table) -> pd.DataFrame:
    """Return the table for expectations about values; nulls stay nulls, integers and timestamps stay exact."""
    return _frame(pa.table({name: _plain(table[name]) for name in table.column_names}), table.num_rows)


def types_frame(table: pa.Table) -> pd.DataFrame:
    """Return the table for expectations about types; where pandas cannot hold null, null becomes 0 or False."""
    return _frame(pa.table({name: _filled(table[name]) for name in table.column_names}), table.num_rows)


def typed_kwargs(kwargs: Mapping[str, Any], type_: pa.DataType | None) -> dict[str, Any]:
    """Return arguments whose dates and times, as YAML gives them, compare with values of a column of `type_`."""

    def converted(value: Any) -> Any:
        return value if type_ is None else _moment(value, type_)

    return {
        key: converted(value) if key in _BOUNDS else [converted(item) for item in value] if key in _SETS else value
        for key, value in kwargs.items()
        if value is not None
    }


def is_text(type_: pa.DataType) -> bool:
    """Whether a column of `type_` holds texts."""
    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain))


def _frame(table: pa.Table, rows: int) -> pd.DataFrame:
    import pandas as pd

    if not table.num_columns:
        return pd.DataFrame(index=pd.RangeIndex(rows))
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    large = [field.name for field in table.schema if pa.types.is_integer(field.type) and _needs_mask(table[field.name])]
    if large:
        masked = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}
        frame[large] = table.select(large).to_pandas(types_mapper=masked.get)
    return frame


def _needs_mask(column: pa.ChunkedArray) -> bool:
    """Whether the column has nulls, for which pandas would take float64, and integers that float64 cannot hold."""
    if not column.null_count or column.null_count == len(column):
        return False
    extremes = pc.min_max(column)
    return bool(max(-extremes["min"].as_py(), extremes["max"].as_py()) > _EXACT_IN_FLOAT64)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    column = _decoded(column)
    type_ = column.type
    if pa.types.is_integer(type_) and not pa.types.is_uint64(type_):
        return column.cast(pa.int64())
    if pa.types.is_floating(type_):
        return column.cast(pa.float64())
    if pa.types.is_timestamp(type_):
        # Great Expectations compares nanoseconds fast, other units one by one and never with a text.
        try:
            return column.cast(pa.timestamp("ns", type_.tz))
        except pa.ArrowInvalid:
            return column  # a year that nanoseconds cannot express
    return column


def _filled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    column = _decoded(column)
    if pa.types.is_integer(column.type):
        return column.fill_null(0)
    if pa.types.is_boolean(column.type):
        return pc.fill_null(column, fill_value=False)
    return column


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _moment(value: Any, type_: pa.DataType) -> Any:
    if not isinstance(value, str | date):
        return value
    if pa.types.is_timestamp(type_):
        moment = _datetime(value)
        if moment is None:
            return value
        if type_.tz is None:
            return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if pa.types.is_date(type_):
        moment = _datetime(value)
        return moment.date() if moment is not None and moment.time() == time() else value
    return value


def _datetime(value: str | date) -> datetime | None:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None
