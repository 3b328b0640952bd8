"""What a value of a file becomes, said in plain Python, one value at a time: exactly, as the nearest float, or not."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

LOST = object()
"""Stands for a value that another type cannot hold."""
EXACT = {pa.float32(): 2**24, pa.float64(): 2**53}
"""Integers up to this size are exact in a float."""


def become(value: Any, given: pa.DataType, wanted: pa.DataType) -> Any:
    """Return the Python value, None or `LOST` that a value of a type becomes in another.

    Moments with nanoseconds are pandas', as pyarrow gives them.
    """
    if value is None or given == wanted:
        return value
    if pa.types.is_integer(wanted):
        return _integer(value, wanted)
    if pa.types.is_floating(wanted):
        is_whole = isinstance(value, int) or (isinstance(value, Decimal) and given.scale <= 0)
        return _float(value, wanted, is_whole=is_whole)
    if wanted == pa.timestamp("us"):
        return _moment(value)
    if wanted == pa.date32():
        moment = _moment(value)
        return LOST if moment is LOST or moment.time() != dt.time() else moment.date()
    return value


def _integer(value: Any, wanted: pa.DataType) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if value in (math.inf, -math.inf) or value != int(value):
        return LOST
    least = 0 if pa.types.is_unsigned_integer(wanted) else -(2 ** (wanted.bit_width - 1))
    return int(value) if least <= value < least + 2**wanted.bit_width else LOST


def _float(value: Any, wanted: pa.DataType, *, is_whole: bool) -> Any:
    if is_whole and abs(value) > EXACT[wanted]:
        return LOST
    double = float(value)
    if wanted == pa.float64():
        return double
    with np.errstate(over="ignore"):
        single = float(np.float32(double))
    return LOST if math.isinf(single) and not math.isinf(double) else single


def _moment(value: Any) -> Any:
    if not isinstance(value, dt.datetime):
        return dt.datetime(value.year, value.month, value.day)
    if getattr(value, "nanosecond", 0):
        return LOST
    moment = value if value.tzinfo is None else value.astimezone(dt.UTC).replace(tzinfo=None)
    return moment.to_pydatetime() if hasattr(moment, "to_pydatetime") else moment


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same: NaN is NaN, and the zeros differ."""
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return type(one) is type(other) and bool(one == other)


def is_missing(value: Any) -> bool:
    """Return whether a value is null or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))
