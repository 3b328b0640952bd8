"""Delta tables as input, compared with delta-rs's own reading of the same version."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from scoring.data.partition import Partition, existing_values, list_partition
from scoring.data.reading import BatchLimit, read_piece
from scoring.data.snapshot import Snapshot, open_snapshot
from scoring.data.splits import plan_splits
from scoring.deployment import Input
from scoring.errors import ConfigurationError, PartitionMissingError
from tests.object_store import ObjectStore

DAY = "2013-01-01"
NEXT = "2013-01-02"


def rows(*ids: int, day: Any = DAY, region: str = "north") -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "day": [day] * len(ids), "region": [region] * len(ids)})


def write(path: Path | str, table: pa.Table, *, mode: Any = "append", **options: Any) -> None:
    write_deltalake(path, table, partition_by=["day", "region"], mode=mode, **options)


def partition(path: Path | str, value: str = DAY) -> Partition:
    return list_partition(Input(path=str(path), partition="day", keys=("id",)), value)


def scored(path: Path | str, value: str = DAY) -> list[int]:
    """Return the keys that workers would read, in the order in which they read them."""
    found: list[int] = []
    for split in plan_splits(partition(path, value), split_bytes=1):
        for piece in split.pieces:
            for raw in read_piece(str(path), piece, columns=["id"], limit=BatchLimit(10, 1_000), use_threads=False):
                found += raw.table["id"].to_pylist()
    return found


def by_deltalake(path: Path | str, value: str = DAY, version: int | None = None) -> list[int]:
    table = DeltaTable(path, version=version).to_pyarrow_table(filters=[("day", "=", value)])
    return sorted(table["id"].to_pylist())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table"
    write(path, rows(1, 2, 3))
    write(path, rows(4, region="south & west"))
    write(path, rows(5, day=NEXT))
    return path


def test_the_log_says_what_a_partition_holds(table: Path) -> None:
    assert sorted(scored(table)) == by_deltalake(table) == [1, 2, 3, 4]
    assert scored(table, NEXT) == by_deltalake(table, NEXT) == [5]
    assert existing_values(str(table), "day") == [DAY, NEXT]
    assert partition(table).version == DeltaTable(table).version() == 2


def test_files_that_the_log_does_not_name_are_not_read(table: Path) -> None:
    pq.write_table(pa.table({"id": [77]}), table / f"day={DAY}" / "region=north" / "uncommitted.parquet")
    (table / "day=2013-01-03").mkdir()
    pq.write_table(pa.table({"id": [78]}), table / "day=2013-01-03" / "uncommitted.parquet")
    assert sorted(scored(table)) == by_deltalake(table) == [1, 2, 3, 4]
    with pytest.raises(PartitionMissingError, match=rf"files in version 2 of Delta table {table}, got none\. Nearest"):
        partition(table, "2013-01-03")


def replace(table: Path) -> None:
    write(table, rows(8, 9), mode="overwrite", predicate=f"day = '{DAY}'")


def delete(table: Path) -> None:
    DeltaTable(table).delete("id = 2")


def compact(table: Path) -> None:
    write(table, rows(6))
    DeltaTable(table).optimize.compact()


def checkpoint(table: Path) -> None:
    delete(table)
    DeltaTable(table).create_checkpoint()
    for entry in (table / "_delta_log").glob("*.json"):
        if not entry.name.endswith(f"{DeltaTable(table).version():020d}.json"):
            entry.unlink()


@pytest.mark.parametrize("change", [replace, delete, compact, checkpoint])
def test_rows_that_were_removed_are_not_read(table: Path, change: Any) -> None:
    listed = len(list(table.rglob("*.parquet")))
    change(table)
    assert sorted(scored(table)) == by_deltalake(table)
    assert len(partition(table).files) < listed + 1 <= len(list(table.rglob("*.parquet")))


def test_a_listed_partition_stays_at_its_version(table: Path) -> None:
    before = partition(table)
    replace(table)
    assert before.rows == 4
    assert sorted(row for file in before.files for row in pq.ParquetFile(file.path).read()["id"].to_pylist()) == [
        *by_deltalake(table, version=before.version or 0)
    ]
    assert partition(table).rows == 2


@pytest.mark.parametrize("value", ["05:00", "a.b", "ü"])
def test_values_that_a_folder_name_changes_are_those_of_the_log(tmp_path: Path, value: str) -> None:
    write(tmp_path / "table", rows(1, day=value, region="a b/c%20d"))
    write(tmp_path / "table", rows(2, day="other"))
    assert scored(tmp_path / "table", value) == [1]
    assert existing_values(str(tmp_path / "table"), "day") == sorted([value, "other"])


def test_partition_columns_of_other_types_are_named_by_their_text(tmp_path: Path) -> None:
    days = pa.array([dt.date(2013, 1, 1), dt.date(2013, 1, 2), None])
    table = pa.table({"id": [1, 2, 3], "day": days, "region": ["a", "a", "a"]})
    write(tmp_path / "table", table)
    assert existing_values(str(tmp_path / "table"), "day") == [DAY, NEXT]
    assert scored(tmp_path / "table", NEXT) == [2]


def test_a_partition_whose_rows_were_all_deleted_is_missing(table: Path) -> None:
    DeltaTable(table).delete(f"day = '{NEXT}'")
    assert existing_values(str(table), "day") == [DAY]
    with pytest.raises(PartitionMissingError):
        partition(table, NEXT)


def test_a_delta_table_in_a_bucket_is_read_like_one_on_disk(object_store: ObjectStore, table: Path) -> None:
    replace(table)
    object_store.upload(table, "table")
    url = f"{object_store.url}/table"
    assert scored(url) == [8, 9]
    assert existing_values(url, "day") == [DAY, NEXT]
    assert partition(url).version == 3


def test_folders_without_a_log_are_no_snapshot(tmp_path: Path) -> None:
    assert open_snapshot(str(tmp_path), "day") is None


# ------------------------------------------------------------------------------------------------------ refused


def rewrite_log(table: Path, change: Any) -> None:
    file = table / "_delta_log" / f"{0:020d}.json"
    entries = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for entry in entries:
        change(entry)
    file.write_text("\n".join(map(json.dumps, entries)), "utf-8")


def test_a_table_that_is_partitioned_otherwise_is_refused(table: Path) -> None:
    source = Input(path=str(table), partition="hour", keys=("id",))
    with pytest.raises(ConfigurationError, match=r"not partitioned by 'input.partition': .*'hour', got day, region\."):
        list_partition(source, DAY)


def test_column_mapping_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "table"
    write(table, rows(1))

    def mapped(entry: dict[str, Any]) -> None:
        if "metaData" in entry:
            entry["metaData"]["configuration"]["delta.columnMapping.mode"] = "name"
            schema = json.loads(entry["metaData"]["schemaString"])
            for number, field in enumerate(schema["fields"]):
                name = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": f"col-{number}"}
                field["metadata"] = name
            entry["metaData"]["schemaString"] = json.dumps(schema)
        if "protocol" in entry:
            entry["protocol"] = {"minReaderVersion": 2, "minWriterVersion": 5}
        if "add" in entry:
            entry["add"]["partitionValues"] = {"col-1": DAY, "col-2": "north"}

    rewrite_log(table, mapped)
    with pytest.raises(ConfigurationError, match=r"maps its columns to other names: .*got name\. Write it again"):
        partition(table)


def test_deletion_vectors_are_refused_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "table"
    write(path, rows(1, 2), configuration={"delta.enableDeletionVectors": "true"})
    write(path, rows(3, day=NEXT))
    assert scored(path) == [1, 2]
    (action,) = [
        entry
        for entry in pa.table(DeltaTable(path).get_add_actions(flatten=True)).to_pylist()
        if entry["partition.day"] == NEXT
    ]
    common = {
        "path": action["path"],
        "partitionValues": {"day": NEXT, "region": "north"},
        "size": action["size_bytes"],
        "dataChange": True,
    }
    deleted = {"storageType": "i", "pathOrInlineDv": FIRST_ROW, "sizeInBytes": 34, "cardinality": 1}
    entries = [
        {"remove": {**common, "deletionTimestamp": 1}},
        {"add": {**common, "modificationTime": 1, "stats": '{"numRecords":1}', "deletionVector": deleted}},
    ]
    (path / "_delta_log" / f"{2:020d}.json").write_text("\n".join(map(json.dumps, entries)), "utf-8")
    assert scored(path) == [1, 2], "partitions without deleted rows are read"
    with pytest.raises(ConfigurationError, match=rf"\(version 2\) has deletion vectors in partition '{NEXT}': .*REORG"):
        partition(path, NEXT)


FIRST_ROW = "^Bg9^0rr910000000000iXQKl0rr91000005c8Xg00000"
"""A deletion vector without row 0, as Delta writes it into the log: a roaring bitmap in Z85."""


def test_files_of_another_table_are_refused(table: Path) -> None:
    def cloned(entry: dict[str, Any]) -> None:
        if "add" in entry:
            entry["add"]["path"] = "s3://elsewhere/table/a.parquet"

    rewrite_log(table, cloned)
    with pytest.raises(ConfigurationError, match=r"names files of another table: .*got s3://elsewhere"):
        partition(table)


def test_a_log_that_is_damaged_is_said(table: Path) -> None:
    (table / "_delta_log" / f"{1:020d}.json").write_text("no JSON", "utf-8")
    with pytest.raises(ConfigurationError, match=r"Delta table .* cannot be read"):
        partition(table)


def test_values_are_looked_for_once(table: Path) -> None:
    snapshot = open_snapshot(str(table), "day")
    assert isinstance(snapshot, Snapshot)
    replace(table)
    assert snapshot.version == 2
    assert len(snapshot.files(DAY)) == 2
