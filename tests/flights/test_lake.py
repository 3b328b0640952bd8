from __future__ import annotations

import csv
import hashlib
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from scoring.deployment import Deployment
from scoring.errors import ConfigurationError
from tests.flights.partitions import read

WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
KNOWN_ONLY_LATER = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "is_late"}
FLIGHT_ID_SQL = (
    "concat_ws('-', flight_date, carrier, flight, origin, lpad(sched_dep_time, 4, '0')) as flight_id"  # as documented
)


def rows_per_day(lake: Path, table: str) -> dict[str, int]:
    counts = read(lake, table, "2013-01-01", "2013-12-31").group_by("flight_date").aggregate([([], "count_all")])
    return dict(zip(counts["flight_date"].to_pylist(), counts["count_all"].to_pylist(), strict=True))


def part(lake: Path, table: str, day: str) -> pa.Table:
    return pq.ParquetFile(lake / table / f"flight_date={day}" / "part-0.parquet").read()


def test_every_flight_is_there_once(lake: Path, raw: duckdb.DuckDBPyConnection) -> None:
    expected = dict(raw.sql("select flight_date, count(*) from raw group by all").fetchall())
    assert rows_per_day(lake, "flights") == expected
    assert sum(expected.values()) == 336_776
    ids = read(lake, "flights", "2013-01-01", "2013-12-31")["flight_id"]
    assert ids.null_count == 0
    assert pc.count_distinct(ids).as_py() == 336_776


def test_flight_ids_are_those_of_the_raw_data(lake: Path, raw: duckdb.DuckDBPyConnection) -> None:
    found = read(lake, "flights", "2013-01-01", "2013-12-31").select(["flight_id", "flight_date"])
    raw.register("found", found)
    unmatched = raw.sql(
        f"select count(*) from found full join (select flight_date, {FLIGHT_ID_SQL} from raw) as expected"
        " using (flight_id, flight_date) where found.flight_id is null or expected.flight_id is null"
    )
    assert unmatched.fetchall() == [(0,)]


def test_columns_are_the_input_contract_and_nothing_that_is_known_only_later(
    lake: Path, deployment: Deployment
) -> None:
    schema = part(lake, "flights", "2013-06-13").schema
    contract = deployment.input.columns
    assert contract is not None
    assert {field.name: str(field.type) for field in schema} == {name: column.type for name, column in contract.items()}
    assert not KNOWN_ONLY_LATER & set(schema.names)


def test_columns_are_null_only_where_the_contract_allows_it(lake: Path, deployment: Deployment) -> None:
    flights = read(lake, "flights", "2013-01-01", "2013-12-31")
    assert deployment.input.columns is not None
    nullable = {name for name, column in deployment.input.columns.items() if column.nullable}
    assert {name for name in flights.column_names if flights[name].null_count} == nullable


def test_labels_say_which_arrivals_were_more_than_15_minutes_late(lake: Path, raw: duckdb.DuckDBPyConnection) -> None:
    labels = read(lake, "labels", "2013-01-01", "2013-12-31")
    raw.register("labels", labels)
    facts = raw.sql(
        f"select arr_delay::int as delay, is_late from labels join (select arr_delay, {FLIGHT_ID_SQL} from raw)"
        " using (flight_id)"
    )
    assert facts.filter("is_late <> (delay > 15) or delay is null or is_late is null").fetchall() == []
    assert facts.filter("delay in (15, 16)").aggregate("delay, is_late").order("delay").fetchall() == [
        (15, False),
        (16, True),
    ]
    assert labels.num_rows == 327_346


def test_cancelled_and_diverted_flights_are_scored_but_have_no_label(
    lake: Path, raw: duckdb.DuckDBPyConnection
) -> None:
    expected = dict(raw.sql("select flight_date, count(arr_delay) from raw group by all").fetchall())
    assert rows_per_day(lake, "labels") == expected
    flights, labels = part(lake, "flights", "2013-02-08"), part(lake, "labels", "2013-02-08")
    assert flights.num_rows - labels.num_rows == 475  # a snow storm
    assert set(labels["flight_id"].to_pylist()) < set(flights["flight_id"].to_pylist())


# The ends of summer time, both seasons, and a night whose late flights depart on another day in UTC.
@pytest.mark.parametrize("day", ["2013-01-06", "2013-03-10", "2013-07-02", "2013-11-03", "2013-12-30"])
def test_weather_is_that_of_the_origin_in_the_hour_of_schedule(lake: Path, data_folder: Path, day: str) -> None:
    with (data_folder / "weather.csv").open() as stream:
        observed = {(row["origin"], row["time_hour"]): row for row in csv.DictReader(stream)}
    for flight in part(lake, "flights", day).to_pylist():
        local = datetime.fromisoformat(day).replace(hour=flight["sched_dep_hour"], tzinfo=ZoneInfo("America/New_York"))
        hour = local.astimezone(UTC).strftime("%Y-%m-%dT%H:00:00Z")
        expected = observed.get((flight["origin"], hour), {})
        assert {name: flight[name] for name in WEATHER} == {name: number(expected.get(name)) for name in WEATHER}


def number(text: str | None) -> float | None:
    return None if text is None or text == "NA" else float(text)


def test_missing_weather_stays_null(lake: Path) -> None:
    last = part(lake, "flights", "2013-12-31")
    assert all(last[name].null_count == last.num_rows for name in WEATHER)
    august = part(lake, "flights", "2013-08-22")
    assert august["temp"].null_count == 147
    gusts = read(lake, "flights", "2013-01-01", "2013-12-31")["wind_gust"]
    assert 0.7 < gusts.null_count / len(gusts) < 0.8


def test_planes_come_from_the_registry_and_unknown_ones_are_null(
    lake: Path, raw: duckdb.DuckDBPyConnection, data_folder: Path
) -> None:
    with (data_folder / "planes.csv").open() as stream:
        planes = {row["tailnum"]: row for row in csv.DictReader(stream)}
    tails = dict(raw.sql(f"select {FLIGHT_ID_SQL}, tailnum from raw where flight_date = '2013-02-08'").fetchall())
    for flight in part(lake, "flights", "2013-02-08").to_pylist():
        plane: dict[str, Any] = planes.get(tails[flight["flight_id"]], {})
        built = number(plane.get("year"))
        assert flight["plane_age"] == (None if built is None else 2013 - built)
        assert (flight["seats"], flight["engines"]) == (number(plane.get("seats")), number(plane.get("engines")))


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_behind(
    lake: Path, lake_module: ModuleType, tmp_path: Path
) -> None:
    for _ in range(2):
        rows = lake_module.write_lake(tmp_path, first=date(2013, 2, 27), last=date(2013, 3, 1))
        assert digests(tmp_path) == {
            path: digest for path, digest in digests(lake).items() if path in digests(tmp_path)
        }
    assert sorted(digests(tmp_path)) == [
        f"{table}/flight_date={day}/part-0.parquet"
        for table in ("flights", "labels")
        for day in ("2013-02-27", "2013-02-28", "2013-03-01")
    ]
    assert rows == {"flights": 2_867, "labels": 2_800}


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_command_writes_below_the_home(
    lake_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCORING_HOME", str(tmp_path))
    lake_module.main(["--first", "2013-07-01", "--last", "2013-07-01"])
    assert (tmp_path / "lake" / "labels" / "flight_date=2013-07-01" / "part-0.parquet").is_file()
    captured = capsys.readouterr()
    assert "966 rows of flights" in captured.err
    assert captured.out == ""


def test_days_that_the_data_do_not_have_are_refused(
    lake_module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        lake_module.main(["--first", "2012-12-31"])
    assert "expected 2013-01-01 <= --first <= --last <= 2013-12-31" in capsys.readouterr().err


def test_missing_package_is_named(lake_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_module, "PACKAGE", "package_that_nobody_has")
    with pytest.raises(
        ConfigurationError, match=r"expected the package package_that_nobody_has, got none.*pip install"
    ):
        lake_module.flights_and_labels()
