from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from scoring.data.parts import Part, writing_part
from scoring.data.table import METADATA_KEY, Change, PublishedPartition, Table
from scoring.errors import ContractError, StorageError, SupersededError

SCHEMA = pa.schema([("id", pa.int64()), ("score", pa.float64())])
Row = tuple[int, float | None, str]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path / "predictions"), "day")


def rows_of(run_id: str, *ids: int) -> pa.Table:
    scores = [None if number % 7 == 3 else number / 4 for number in ids]
    """Rows with the run that publishes them, which is no column of part files."""
    return pa.table([pa.array(ids, pa.int64()), scores], schema=SCHEMA).append_column("run_id", [[run_id] * len(ids)])


def stage(table: Table, day: str, rows: pa.Table, *, name: str | None = None) -> Part:
    path = f"day={day}/{name or rows.column('run_id')[0]}-00000.parquet"
    written = rows.drop_columns(["run_id"])
    with writing_part(table.path, path, written.schema) as writer:
        writer.write(written)
    assert writer.part is not None
    return writer.part


def publish(table: Table, day: str, *parts: pa.Table, generation: int | None = None, **facts: Any) -> int:
    run_id = parts[0].column("run_id")[0].as_py()
    staged = [stage(table, day, rows, name=f"{run_id}-{at}") for at, rows in enumerate(parts)]
    known = table.generation(day) if generation is None else generation
    schema = parts[0].drop_columns(["run_id"]).schema
    return table.publish(Change(day, staged, schema, run_id, known, facts))


def by_deltalake(table: Table, version: int | None = None) -> dict[str, list[Row]]:
    rows = DeltaTable(table.path, version=version).to_pyarrow_table().to_pylist()
    return _by_day((row["day"], row["id"], row["score"], row["run_id"]) for row in rows)


def by_duckdb(table: Table) -> dict[str, list[Row]]:
    with duckdb.connect() as connection:
        actions = pa.table(DeltaTable(table.path).get_add_actions(flatten=True))
        connection.register("actions", actions.append_column("file", _files(table, actions)))
        query = """
            select "partition.day", id, score, "partition.run_id"
            from read_parquet(?, filename = true) join actions on filename = file
        """
        return _by_day(connection.execute(query, [_files(table, actions).to_pylist()]).fetchall())


def _files(table: Table, actions: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table.path, actions.column("path").cast(pa.string()), "/")


def _by_day(rows: Any) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for day, *rest in sorted(rows):
        found.setdefault(day, []).append(tuple(rest))
    return found


# ------------------------------------------------------------------------------------------------------ publishing


def test_a_table_that_does_not_exist_has_nothing(table: Table) -> None:
    assert not DeltaTable.is_deltatable(table.path)
    assert table.generation("2013-01-01") == 0
    assert table.published() == {}


def test_published_rows_are_read_back_by_deltalake_and_by_duckdb(table: Table) -> None:
    first, second = rows_of("a", 1, 2, 3), rows_of("a", 4)
    version = publish(table, "2013-01-01", first, second)
    expected = {"2013-01-01": [(1, 0.25, "a"), (2, 0.5, "a"), (3, None, "a"), (4, 1.0, "a")]}
    assert by_deltalake(table) == by_duckdb(table) == expected
    assert version == DeltaTable(table.path).version()
    assert table.published() == {
        "2013-01-01": PublishedPartition(
            "2013-01-01",
            4,
            ("day=2013-01-01/a-0-00000.parquet", "day=2013-01-01/a-1-00000.parquet"),
            frozenset({"a"}),
        )
    }


def test_publishing_again_replaces_exactly_one_partition(table: Table) -> None:
    for day in ("2013-01-01", "2013-01-02", "2013-01-03"):
        before = publish(table, day, rows_of("a", 1, 2))
    publish(table, "2013-01-02", rows_of("b", 2, 9))
    old = [(1, 0.25, "a"), (2, 0.5, "a")]
    expected = {"2013-01-01": old, "2013-01-02": [(2, 0.5, "b"), (9, 2.25, "b")], "2013-01-03": old}
    assert by_deltalake(table) == by_duckdb(table) == expected
    assert by_deltalake(table, before) == dict.fromkeys(expected, old), "the old version is still there"
    assert [table.generation(day) for day in (*expected, "2013-01-04")] == [1, 2, 1, 0]


def test_parts_that_no_transaction_names_are_not_seen(table: Table) -> None:
    publish(table, "2013-01-01", rows_of("a", 1))
    stage(table, "2013-01-01", rows_of("b", 2, 3))
    assert by_deltalake(table) == {"2013-01-01": [(1, 0.25, "a")]}
    assert table.published()["2013-01-01"].rows == 1


def test_no_parts_make_a_partition_empty(table: Table) -> None:
    publish(table, "2013-01-01", rows_of("a", 1))
    publish(table, "2013-01-02", rows_of("a", 1))
    table.publish(Change("2013-01-01", [], SCHEMA, "b", generation=1))
    assert by_deltalake(table) == {"2013-01-02": [(1, 0.25, "a")]}


def test_the_facts_of_a_run_are_in_the_tables_history(table: Table) -> None:
    publish(table, "2013-01-01", rows_of("a", 1), models={"trees": 3})
    newest = DeltaTable(table.path).history(1)[0]
    assert json.loads(newest[METADATA_KEY]) == {
        "partition": "2013-01-01",
        "generation": 1,
        "run_id": "a",
        "models": {"trees": 3},
    }


@pytest.mark.parametrize("day", ["2013-01-01", "eu_west", "a.b", "05:00"])
def test_every_valid_partition_value_can_be_published(table: Table, day: str) -> None:
    publish(table, day, rows_of("a", 1))
    publish(table, day, rows_of("b", 2))
    assert by_deltalake(table) == {day: [(2, 0.5, "b")]}


@pytest.mark.parametrize("scores", [[np.nan, 0.5, None], [0.0, 0.5, 0.1], [None, None, None], [np.nan] * 3])
def test_statistics_hide_no_row_from_a_readers_filter(table: Table, scores: list[float | None]) -> None:
    rows = rows_of("a", 1, 2, 3).set_column(1, "score", pa.array(scores, pa.float64()))
    publish(table, "2013-01-01", rows)
    publish(table, "2013-01-02", rows)
    delta = DeltaTable(table.path)
    for condition in (
        pc.field("id") >= 2,
        pc.field("score") > 0.1,
        pc.field("score") <= 0.5,
        pc.field("score").is_null(),
        pc.field("score").is_valid(),
        pc.field("run_id") == "a",
        pc.field("run_id") == "b",
        pc.field("day") == "2013-01-01",
    ):
        expected = delta.to_pyarrow_table().filter(condition).sort_by([("day", "ascending"), ("id", "ascending")])
        found = delta.to_pyarrow_dataset().to_table(filter=condition)
        assert str(found.sort_by([("day", "ascending"), ("id", "ascending")]).to_pylist()) == str(expected.to_pylist())


# ------------------------------------------------------------------------------------------------------ two runs


def test_a_run_that_started_before_another_published_learns_that_it_lost(table: Table) -> None:
    generation = table.generation("2013-01-01")
    publish(table, "2013-01-01", rows_of("winner", 1))
    with pytest.raises(
        SupersededError, match=r"partition '2013-01-01' was published by another run after .*Nothing of this"
    ):
        publish(table, "2013-01-01", rows_of("loser", 2), generation=generation)
    assert by_deltalake(table) == {"2013-01-01": [(1, 0.25, "winner")]}


def test_a_run_of_another_partition_does_not_supersede(table: Table) -> None:
    generation = table.generation("2013-01-01")
    publish(table, "2013-01-02", rows_of("other", 1))
    publish(table, "2013-01-01", rows_of("mine", 1), generation=generation)
    assert set(by_deltalake(table)) == {"2013-01-01", "2013-01-02"}


def test_the_version_is_that_of_the_own_commit(table: Table) -> None:
    versions = {day: publish(table, day, rows_of("a", 1)) for day in ("2013-01-01", "2013-01-02")}
    for day, version in versions.items():
        facts = [entry for entry in DeltaTable(table.path).history() if entry["version"] == version]
        assert json.loads(facts[0][METADATA_KEY])["partition"] == day
    assert set(by_deltalake(table, versions["2013-01-01"])) == {"2013-01-01"}


def attempt(path: str, run_id: str, day: str, meet: Callable[[], object]) -> str:
    """Stage one part, wait for the others, publish; return how it ended."""
    table = Table(path, "day")
    part = stage(table, day, rows_of(run_id, 1, 2))
    generation = table.generation(day)
    meet()
    try:
        table.publish(Change(day, [part], SCHEMA, run_id, generation))
    except (SupersededError, StorageError) as error:
        return type(error).__name__
    return run_id


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("attempts", [2, 6])
def test_of_runs_that_publish_one_partition_at_once_exactly_one_wins(table: Table, attempts: int, is_new: bool) -> None:
    if not is_new:
        publish(table, "2013-01-01", rows_of("old", 1))
    barrier = threading.Barrier(attempts)
    with ThreadPoolExecutor(attempts) as pool:
        runs = [pool.submit(attempt, table.path, f"r{at}", "2013-01-01", barrier.wait) for at in range(attempts)]
        ends = [run.result(timeout=60) for run in runs]
    (winner,) = [end for end in ends if not end.endswith("Error")]
    assert [end for end in ends if end.endswith("Error")] == ["SupersededError"] * (attempts - 1)
    assert by_deltalake(table) == by_duckdb(table) == {"2013-01-01": [(1, 0.25, winner), (2, 0.5, winner)]}
    assert table.generation("2013-01-01") == (1 if is_new else 2)


def test_of_processes_that_publish_one_partition_at_once_exactly_one_wins(table: Table) -> None:
    publish(table, "2013-01-01", rows_of("old", 1))
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(2, mp_context=context) as pool:
        barrier = manager.Barrier(2)
        runs = [pool.submit(attempt, table.path, f"r{at}", "2013-01-01", barrier.wait) for at in range(2)]
        ends = sorted(run.result(timeout=120) for run in runs)
    assert ends[0] == "SupersededError"
    assert by_deltalake(table) == {"2013-01-01": [(1, 0.25, ends[1]), (2, 0.5, ends[1])]}


@pytest.mark.parametrize("is_new", [True, False])
def test_runs_that_publish_different_partitions_at_once_do_not_disturb_each_other(table: Table, is_new: bool) -> None:
    if not is_new:
        publish(table, "2012-12-31", rows_of("old", 1))
    days = [f"2013-01-0{day}" for day in range(1, 6)]
    barrier = threading.Barrier(len(days))
    with ThreadPoolExecutor(len(days)) as pool:
        runs = [pool.submit(attempt, table.path, f"r{day}", day, barrier.wait) for day in days]
        ends = [run.result(timeout=60) for run in runs]
    assert sorted(ends) == [f"r{day}" for day in days]
    assert set(by_deltalake(table)) - {"2012-12-31"} == set(days)
    assert all(table.generation(day) == 1 for day in days)


# ------------------------------------------------------------------------------------------------------ columns


def test_a_new_column_is_added_and_old_rows_have_null_there(table: Table) -> None:
    publish(table, "2013-01-01", rows_of("a", 1))
    wider = rows_of("b", 2).append_column("is_late", pa.array([True]))
    publish(table, "2013-01-02", wider)
    found = {row["day"]: row["is_late"] for row in DeltaTable(table.path).to_pyarrow_table().to_pylist()}
    assert found == {"2013-01-01": None, "2013-01-02": True}


def test_runs_that_add_the_same_column_at_once_do_not_disturb_each_other(table: Table) -> None:
    publish(table, "2012-12-31", rows_of("old", 1))
    days = ["2013-01-01", "2013-01-02", "2013-01-03"]
    barrier = threading.Barrier(len(days))

    def widen(day: str) -> int:
        part = stage(table, day, rows_of(day, 1).append_column("is_late", pa.array([True])))
        barrier.wait()
        schema = SCHEMA.append(pa.field("is_late", pa.bool_()))
        return table.publish(Change(day, [part], schema, day, generation=0))

    with ThreadPoolExecutor(len(days)) as pool:
        versions = list(pool.map(widen, days))
    assert len(set(versions)) == len(days)
    found = {row["day"]: row["is_late"] for row in DeltaTable(table.path).to_pyarrow_table().to_pylist()}
    assert found == {"2012-12-31": None, **dict.fromkeys(days, True)}


def test_a_column_that_is_no_longer_written_is_null(table: Table) -> None:
    publish(table, "2013-01-01", rows_of("a", 1))
    publish(table, "2013-01-02", rows_of("b", 2).drop_columns(["score"]))
    assert by_deltalake(table) == {"2013-01-01": [(1, 0.25, "a")], "2013-01-02": [(2, None, "b")]}


def test_a_column_of_another_type_is_refused_and_nothing_changes(table: Table) -> None:
    version = publish(table, "2013-01-01", rows_of("a", 1))
    retyped = rows_of("b", 2).set_column(1, "score", pa.array(["high"]))
    with pytest.raises(
        ContractError, match=r"the outputs do not fit the table .*expected score: .*double.*got score: .*string"
    ):
        publish(table, "2013-01-02", retyped)
    assert DeltaTable(table.path).version() == version
    assert by_deltalake(table) == {"2013-01-01": [(1, 0.25, "a")]}


def test_all_types_that_outputs_have_survive(table: Table) -> None:
    rows = pa.table(
        {
            "id": pa.array([1, 2], pa.int64()),
            "i8": pa.array([1, None], pa.int8()),
            "i32": pa.array([1, None], pa.int32()),
            "f32": pa.array([0.5, None], pa.float32()),
            "flag": pa.array([True, None]),
            "text": pa.array(["ä", None]),
            "night": pa.array([dt.date(2013, 1, 1), None]),
            "moment": pa.array([dt.datetime(2013, 1, 1, 5), None], pa.timestamp("us")),
            "run_id": ["a", "a"],
        }
    )
    publish(table, "2013-01-01", rows)
    found = DeltaTable(table.path).to_pyarrow_table().select(rows.column_names)
    assert found.to_pylist() == rows.to_pylist()
