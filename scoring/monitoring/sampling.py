"""Samples rows by a hash of their keys: the same rows in every process, whatever the splits and batches.

The hash decides alone, so a row that is kept at a rate is also kept at every higher one, and samples of several
partitions lie on one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

HASH_KEY: Final = "scoring-sampling"
"""16 characters that pandas mixes into hashes of text; another key would choose other rows."""
NULL_HASH: Final = 0x9E3779B97F4A7C15
LOOKED_AT: Final = 1_024
"""Values that are looked at to see whether a column repeats itself."""
HASHES: Final = 2.0**64
"""Number of different hashes."""

Hashes = npt.NDArray[np.uint64]


def rate_for(rows: int, wanted: int) -> float:
    """Return the rate at which about `wanted` of `rows` rows are kept."""
    return min(1.0, wanted / rows) if rows > 0 else 1.0


def keep_mask(table: pa.Table, *, keys: Sequence[str], rate: float) -> npt.NDArray[np.bool_]:
    """Return which rows belong to the sample at `rate`; runs on the Spark executor, and in process for references."""
    if rate >= 1:
        return np.ones(table.num_rows, dtype=bool)
    return _hashes(table, keys) < np.uint64(max(rate, 0.0) * HASHES)


def smallest(table: pa.Table, *, keys: Sequence[str], rows: int) -> pa.Table:
    """Return exactly `rows` rows, those with the smallest hashes, in their order; the table itself if it is smaller.

    Samples taken at different rates become one sample of all their rows, each partition weighing what it has.
    Without keys the rows are spread evenly over the table.
    """
    if table.num_rows <= rows:
        return table
    if keys:
        chosen = np.sort(np.argsort(_hashes(table, keys), kind="stable")[:rows])
    else:
        chosen = np.linspace(0, table.num_rows - 1, rows).astype(np.int64)
    return table.take(pa.array(chosen))


def _hashes(table: pa.Table, keys: Sequence[str]) -> Hashes:
    hashes = np.zeros(table.num_rows, dtype=np.uint64)
    for key in keys:
        hashes = _mixed(hashes * np.uint64(31) + _column_hashes(table.column(key)))
    return hashes


def _column_hashes(column: pa.ChunkedArray) -> Hashes:
    values = _widened(column)
    nulls = values.is_null().to_numpy(zero_copy_only=False)
    if values.null_count:
        values = values.fill_null(pa.scalar("" if pa.types.is_large_string(values.type) else 0, values.type))
    return np.where(nulls, np.uint64(NULL_HASH), _value_hashes(values))


def _value_hashes(values: pa.Array) -> Hashes:
    from pandas.util import hash_array

    if pa.types.is_large_string(values.type) and _repeats(values):
        encoded = values.dictionary_encode()
        hashes: Hashes = _value_hashes(encoded.dictionary)[encoded.indices.to_numpy()]
        return hashes
    # pandas would look for equal text itself, at three times the cost of hashing text that is unique.
    return hash_array(values.to_numpy(zero_copy_only=False), hash_key=HASH_KEY, categorize=False)


def _repeats(values: pa.Array) -> bool:
    """Return whether most values are equal to others, as far as the first ones show; decides the speed only."""
    head = values.slice(0, LOOKED_AT)
    return bool(2 * pc.count_distinct(head).as_py() < len(head))


def _widened(column: pa.ChunkedArray) -> pa.Array:
    """Return values of one width per kind: a key has one hash, whether it was stored as int32 or int64."""
    values = column.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_timestamp(values.type):
        values = pc.cast(values, pa.timestamp("us"), safe=False)
    elif pa.types.is_date(values.type):
        values = pc.cast(values, pa.date32()).view(pa.int32())
    if pa.types.is_uint64(values.type) or pa.types.is_temporal(values.type):
        return values.view(pa.int64())
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        return pc.cast(values, pa.int64())
    if pa.types.is_floating(values.type):
        return pc.cast(values, pa.float64())
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        return pa.array([value if value is None else value.hex() for value in values.to_pylist()], pa.large_string())
    return pc.cast(values, pa.large_string())


def _mixed(hashes: Hashes) -> Hashes:
    """Spread every bit over all bits (the finaliser of splitmix64), since a rate looks at the highest ones."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
