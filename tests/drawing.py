"""Hypothesis strategies: columns of every type that a lake may hold, and the ways in which files may hold them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
FLOATS = (pa.float16(), pa.float32(), pa.float64())
DECIMALS = (
    *(pa.decimal32(7, 2), pa.decimal64(18, 6), pa.decimal128(12, 2), pa.decimal128(20), pa.decimal128(38, 18)),
    *(pa.decimal128(9, 0), pa.decimal256(40, 3), pa.decimal256(76, 76), pa.decimal256(76, 2)),
)
TEXTS = (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))
BYTES = (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3))
DAYS = (pa.date32(), pa.date64())
MOMENTS = tuple(pa.timestamp(unit, tz) for unit in ("s", "ms", "us", "ns") for tz in (None, "UTC", "Europe/Oslo"))
SPANS = (pa.time32("ms"), pa.time64("ns"), pa.duration("us"))
NESTED = (pa.list_(pa.int32()), pa.struct([("a", pa.int8()), ("b", pa.string())]))
NUMBERS = (*INTEGERS, *FLOATS, *DECIMALS)
ALL = (*NUMBERS, pa.bool_(), *TEXTS, *BYTES, *DAYS, *MOMENTS, *SPANS, *NESTED, pa.null())

EDGES = sorted(
    {sign * (2**bits + step) for sign in (1, -1) for bits in (0, 7, 8, 11, 24, 31, 32, 53, 63) for step in (-1, 0, 1)}
)
"""Where integers and floats of some width end."""
SECONDS = -8 * 10**9, 8 * 10**9
"""First and last moment: within the reach of all units."""
MANY_DIGITS = Context(prec=100)
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def values(kind: pa.DataType) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one for each kind of type
    """Values of a type, as `column` takes them; not null."""
    if pa.types.is_dictionary(kind):
        return values(kind.value_type)
    if pa.types.is_integer(kind):
        least = 0 if pa.types.is_unsigned_integer(kind) else -(2 ** (kind.bit_width - 1))
        most = least + 2**kind.bit_width - 1
        return st.integers(least, most) | st.sampled_from([edge for edge in EDGES if least <= edge <= most])
    if pa.types.is_floating(kind):
        width = kind.bit_width
        largest = [float(np.finfo(f"float{bits}").max) for bits in (16, 32, 64) if bits <= width]
        odd = [math.nan, math.inf, -math.inf, -0.0, *largest, *(-2 * number for number in largest[:-1])]
        whole = [float(edge) for edge in EDGES if width == 64 or abs(edge) <= 2**11]
        return st.one_of(*map(st.sampled_from, (odd, whole)), st.floats(width=width)).map(
            np.dtype(f"float{width}").type
        )
    if pa.types.is_decimal(kind):
        most = 10**kind.precision - 1
        unscaled = st.integers(-most, most) | st.sampled_from([edge for edge in EDGES if abs(edge) <= most])
        return unscaled.map(lambda number: Decimal(number).scaleb(-kind.scale, MANY_DIGITS))
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_temporal(kind):
        return _times(kind)
    if pa.types.is_list(kind):
        return st.lists(values(kind.value_type), max_size=2)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({part.name: values(part.type) for part in kind})
    if kind in BYTES:
        least, most = (kind.byte_width,) * 2 if pa.types.is_fixed_size_binary(kind) else (0, 5)
        return st.binary(min_size=least, max_size=most)
    return st.sampled_from(["", "Oslo", "Ümlaut 東京"]) | st.text(max_size=4)


def _times(kind: pa.DataType) -> st.SearchStrategy[int]:
    """Times as the integers that Arrow keeps; of moments, half lie at midnight."""
    least, most = (second // 86_400 for second in SECONDS)
    if pa.types.is_date32(kind):
        return st.integers(least, most)
    if pa.types.is_date64(kind):
        return st.integers(least, most).map(lambda day: day * 86_400_000)
    scale = PER_SECOND[kind.unit]
    if pa.types.is_time(kind):
        return st.integers(0, 86_400 * scale - 1)
    midnights = st.integers(least, most).map(lambda day: day * 86_400 * scale)
    moments = st.integers(least * 86_400 * scale, most * 86_400 * scale)
    return midnights | (moments.map(lambda moment: moment // 1000 * 1000) if kind.unit == "ns" else moments) | moments


@st.composite
def columns(
    draw: st.DrawFn, kind: pa.DataType, rows: int, *, nulls: bool = True, items: st.SearchStrategy[Any] | None = None
) -> pa.Array:
    """A column of a type; with a few nulls or none."""
    if pa.types.is_null(kind):
        return pa.nulls(rows)
    wanted = values(kind) if items is None else items
    found = draw(st.lists(wanted, min_size=rows, max_size=rows))
    for row in draw(st.sets(st.integers(0, max(rows - 1, 0)), max_size=3)) if nulls and rows else ():
        found[row] = None
    return column(found, kind)


def column(items: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return a column of a type from Python values; moments are integers."""
    if pa.types.is_dictionary(kind):
        return pa.array(items, kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_temporal(kind) and all(isinstance(item, int) for item in items if item is not None):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(items, width).view(kind)
    if pa.types.is_decimal(kind):
        return pa.array(items, pa.decimal256(76, kind.scale)).cast(kind)
    return pa.array(items, kind)


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that a column of a file has once it is read: encodings and widths of text are gone."""
    return pa.string() if kind in TEXTS else pa.binary() if kind == pa.binary_view() else kind


@dataclass(frozen=True)
class Layout:
    """How rows lie in files."""

    bounds: tuple[int, ...]
    """Numbers of the rows at which a further file begins."""
    options: dict[str, Any] = field(hash=False)
    """Of `pyarrow.parquet.write_table`."""

    def write(self, folder: Path, tables: Sequence[pa.Table]) -> list[Path]:
        """Write one file per table and return their paths, in order."""
        folder.mkdir(parents=True)
        paths = [folder / f"part-{number:03d}.parquet" for number in range(len(tables))]
        for path, table in zip(paths, tables, strict=True):
            pq.write_table(table, path, **self.options)
        return paths

    def cut(self, rows: int) -> list[tuple[int, int]]:
        """Return first row and number of rows of each file."""
        return [(start, stop - start) for start, stop in pairwise((0, *self.bounds, rows))]


@st.composite
def layouts(draw: st.DrawFn, rows: int) -> Layout:
    """A layout of so many rows."""
    bounds = sorted(draw(st.lists(st.integers(0, rows), max_size=2)))
    options = {
        "row_group_size": draw(st.integers(max(rows // 5, 1), max(rows, 1))),
        "use_dictionary": draw(st.booleans()),
        "compression": draw(st.sampled_from(["none", "snappy", "zstd", "gzip", "lz4", "brotli"])),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "data_page_size": draw(st.sampled_from([None, 1, 64])),
        "write_statistics": draw(st.booleans()),
        "write_page_index": draw(st.booleans()),
        "store_schema": draw(st.booleans()),
        "use_byte_stream_split": False,
    }
    return Layout(tuple(bounds), options)
