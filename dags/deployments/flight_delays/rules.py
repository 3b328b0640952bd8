"""Business logic of `flight_delays`: features that need no fitting. Table in, table out; rows stay in order."""

from __future__ import annotations

import zlib
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

MINUTES_PER_HOUR: Final = 60
MINUTES_PER_DAY: Final = 24 * MINUTES_PER_HOUR
CODE_BUCKETS: Final = 4096
"""Codes go from 0 to `CODE_BUCKETS - 1`; so many keep the three origins and the 16 carriers of 2013 apart."""


def add_calendar(batch: pa.Table) -> pa.Table:
    """Add `day_of_week` (1 is Monday), `dep_minute_of_day` and `planned_minutes`.

    Month and day of year are left out on purpose: a model that has seen January to March knows nothing of July from
    them, whereas weekdays and hours come back. `planned_minutes` compares local clocks, so it holds the difference of
    the time zones too, which is constant per route.
    """
    day = batch["flight_date"].cast(pa.date32())
    departure = _minute_of_day(batch["sched_dep_hour"], batch["sched_dep_minute"])
    arrival = _minute_of_day(batch["sched_arr_hour"], batch["sched_arr_minute"])
    ahead = pc.subtract(arrival, departure)
    overnight = pc.add(ahead, pa.scalar(MINUTES_PER_DAY, pa.int32()))
    columns = {
        "day_of_week": pc.day_of_week(day, count_from_zero=False).cast(pa.int32()),
        "dep_minute_of_day": departure,
        "planned_minutes": pc.if_else(pc.less(ahead, 0), overnight, ahead),
    }
    return _with_columns(batch, columns)


def add_codes(batch: pa.Table) -> pa.Table:
    """Add `carrier_code`, `origin_code` and `dest_code`: hashed names, so that no vocabulary has to travel.

    A name that was not there in training gets a code like any other.
    """
    return _with_columns(batch, {f"{name}_code": _codes(batch[name]) for name in ("carrier", "origin", "dest")})


def _minute_of_day(hour: pa.ChunkedArray, minute: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.add(pc.multiply(hour, pa.scalar(MINUTES_PER_HOUR, pa.int32())), minute)


def _codes(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return crc32 of each name modulo `CODE_BUCKETS`, computed once per distinct name; null stays null."""
    distinct = pc.unique(names)
    codes = [None if name is None else zlib.crc32(name.encode()) % CODE_BUCKETS for name in distinct.to_pylist()]
    return pc.take(pa.array(codes, pa.int32()), pc.index_in(names, value_set=distinct))


def _with_columns(batch: pa.Table, columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    for name, values in columns.items():
        batch = batch.append_column(name, values)
    return batch
