"""Values of one Arrow type become values of another: exactly, as the nearest float, or not at all."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

EXACT_POWERS: Final = 22
"""Powers of ten up to this one are exact in float64."""
UNSCALED: Final = pa.decimal128(38)
"""The widest decimal whose buffer holds whole numbers."""


def convert(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Return values in another type; NaN, which is how pandas writes a missing integer, becomes a null integer.

    Arrow refuses what it would cut off, and integers that a float cannot hold. It does not mind, but this does: a
    number or text too large for a float, a time of day lost in a date, a number other than 0 and 1 as boolean, a time
    as a number, and decimals that do not become the nearest float.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError: a value is lost.
    """
    if values.type == wanted:
        return values
    if pa.types.is_dictionary(values.type):
        return convert(values.dictionary_decode(), wanted)
    given = _prepared(values, wanted)
    result = given.cast(wanted)
    if pa.types.is_floating(wanted):
        _check_finite(given, result)
    elif pa.types.is_date32(wanted) and pa.types.is_timestamp(given.type) and not result.cast(given.type).equals(given):
        raise pa.ArrowInvalid("a value has a time of day")
    elif pa.types.is_boolean(wanted) and pa.types.is_integer(given.type) and not result.cast(given.type).equals(given):
        raise pa.ArrowInvalid("a value is neither 0 nor 1")
    return result


def has_nan(numbers: npt.NDArray[np.floating]) -> bool:
    """Return whether floats hold a NaN: if so, their maximum is NaN, and nothing finds it faster."""
    with np.errstate(invalid="ignore"):  # a signalling NaN is one, too
        return bool(numbers.size) and bool(np.isnan(numbers.max()))


def is_text(kind: pa.DataType) -> bool:
    """Return whether values are text, encoded as a dictionary or not."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _prepared(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Return values of a type that Arrow casts to the wanted one with fewer surprises."""
    kind = values.type
    if is_text(kind):
        return values if is_text(wanted) else pc.utf8_trim_whitespace(values.cast(pa.string()))
    if pa.types.is_temporal(kind) != pa.types.is_temporal(wanted) and not pa.types.is_null(kind):
        raise pa.ArrowInvalid(f"{kind} and {wanted} measure different things")
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return values.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.timestamp(kind.unit))
    if pa.types.is_decimal(kind) and pa.types.is_floating(wanted):
        # Without a fraction they are integers, often identifiers, and must fit exactly as integers must.
        return _nearest_doubles(values) if kind.scale > 0 else values.cast(pa.int64())
    if pa.types.is_float16(kind):
        values = values.cast(pa.float32())  # exact, and Arrow has more functions for it
    if pa.types.is_floating(kind) and pa.types.is_integer(wanted):
        return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values


def _nearest_doubles(decimals: pa.Array) -> pa.Array:
    """Return the double nearest to each decimal, where Arrow multiplies by 10**-scale and makes 0.7 a bit more."""
    scale = decimals.type.scale
    if scale <= EXACT_POWERS:
        try:
            whole = decimals.cast(pa.decimal128(UNSCALED.precision, scale))
            unscaled = pa.Array.from_buffers(UNSCALED, len(whole), whole.buffers(), whole.null_count, whole.offset)
            # Both sides are exact, so that the division is the only rounding.
            return pc.divide(unscaled.cast(pa.int64()).cast(pa.float64()), 10.0**scale)
        except pa.ArrowInvalid:
            pass  # more digits than a double
    return decimals.cast(pa.string()).cast(pa.float64())


def _check_finite(given: pa.Array, result: pa.Array) -> None:
    """Refuse infinities that were not given."""
    is_narrower = pa.types.is_floating(given.type) and given.type.bit_width > result.type.bit_width
    if not is_narrower and not is_text(given.type):
        return
    if not np.isinf(result.to_numpy(zero_copy_only=False)).any():
        return
    spelled = pc.match_substring(given, "inf", ignore_case=True) if is_text(given.type) else pc.is_inf(given)
    if pc.any(pc.and_not(pc.is_inf(result), spelled)).as_py():
        raise pa.ArrowInvalid(f"a value is too large for {result.type}")
