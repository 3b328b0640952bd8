from __future__ import annotations

import zlib
from datetime import date
from pathlib import Path
from types import ModuleType

import pyarrow as pa

from tests.flights.partitions import read

CALENDAR = ["day_of_week", "dep_minute_of_day", "planned_minutes"]
CODES = ["carrier_code", "origin_code", "dest_code"]


def flights(**columns: list[object]) -> pa.Table:
    rows = len(next(iter(columns.values())))
    defaults: dict[str, tuple[pa.DataType, object]] = {
        "flight_id": (pa.string(), "a"),
        "flight_date": (pa.string(), "2013-01-01"),
        "carrier": (pa.string(), "UA"),
        "origin": (pa.string(), "EWR"),
        "dest": (pa.string(), "IAH"),
        "sched_dep_hour": (pa.int32(), 5),
        "sched_dep_minute": (pa.int32(), 15),
        "sched_arr_hour": (pa.int32(), 8),
        "sched_arr_minute": (pa.int32(), 19),
    }
    return pa.table(
        {name: pa.array(columns.get(name, [value] * rows), type_) for name, (type_, value) in defaults.items()}
    )


def test_rules_on_an_empty_table_give_the_schema_that_they_give_on_rows(rules: ModuleType) -> None:
    some = flights(flight_id=["a"])
    full = rules.add_codes(rules.add_calendar(some))
    empty = rules.add_codes(rules.add_calendar(some.schema.empty_table()))
    assert empty.num_rows == 0
    assert empty.schema == full.schema
    assert full.schema.names == [*some.schema.names, *CALENDAR, *CODES]
    assert {full.schema.field(name).type for name in (*CALENDAR, *CODES)} == {pa.int32()}


def test_rules_keep_rows_order_and_columns_of_a_table_in_chunks(rules: ModuleType, lake: Path) -> None:
    batch = read(lake, "flights", "2013-07-01", "2013-07-03")
    assert batch["carrier"].num_chunks > 1
    shuffled = batch.take(pa.array(range(batch.num_rows - 1, -1, -1)))
    for table in (batch, shuffled):
        result = rules.add_codes(rules.add_calendar(table))
        assert result.select(table.column_names).equals(table)
        assert result["day_of_week"].to_pylist() == [
            date.fromisoformat(day).isoweekday() for day in table["flight_date"].to_pylist()
        ]
        assert result["dest_code"].to_pylist() == [
            zlib.crc32(name.encode()) % rules.CODE_BUCKETS for name in table["dest"].to_pylist()
        ]


def test_planned_minutes_pass_midnight(rules: ModuleType) -> None:
    batch = flights(
        sched_dep_hour=[5, 23, 0], sched_dep_minute=[15, 59, 5], sched_arr_hour=[8, 0, 0], sched_arr_minute=[19, 1, 5]
    )
    result = rules.add_calendar(batch)
    assert result["dep_minute_of_day"].to_pylist() == [315, 1439, 5]
    assert result["planned_minutes"].to_pylist() == [184, 2, 0]


def test_names_never_seen_get_codes_and_null_stays_null(rules: ModuleType) -> None:
    result = rules.add_codes(flights(dest=["IAH", "ÄÖÜ", None, "", "IAH"]))
    first, unseen, missing, empty, again = result["dest_code"].to_pylist()
    assert first == again
    assert missing is None
    assert all(0 <= code < rules.CODE_BUCKETS for code in (first, unseen, empty))


def test_origins_and_carriers_of_the_year_have_codes_of_their_own(rules: ModuleType, lake: Path) -> None:
    result = rules.add_codes(read(lake, "flights", "2013-01-01", "2013-12-31"))
    for name in ("origin", "carrier"):
        assert len(result[f"{name}_code"].unique()) == len(result[name].unique())
    assert len(result["dest_code"].unique()) >= 0.98 * len(result["dest"].unique())
