from __future__ import annotations

import datetime as dt
import os
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.data.partition import check_value, existing_values, list_partition, values_between
from scoring.deployment import Input
from scoring.errors import ConfigurationError, DataError, PartitionMissingError, StorageError
from scoring.testing import example_rows, write_partition


@pytest.fixture
def lake(tmp_path: Path) -> Input:
    return Input.model_validate({"path": str(tmp_path / "lake"), "partition": "day", "keys": ["id"]})


def write(lake: Input, value: str = "2013-01-01", rows: int = 100, **layout: int) -> Path:
    return write_partition(lake.path, "day", value, example_rows(rows), **layout)


def test_files_and_row_groups_are_read_from_footers_in_order(lake: Input) -> None:
    folder = write(lake, files=3, row_group_rows=10)
    found = list_partition(lake, "2013-01-01")
    assert (found.column, found.value, found.rows) == ("day", "2013-01-01", 100)
    assert [Path(file.path) for file in found.files] == sorted(folder.iterdir())
    for file in found.files:
        metadata = pq.read_metadata(file.path)
        assert file.size_bytes == Path(file.path).stat().st_size
        assert file.schema == example_rows(0).schema
        assert [group.rows for group in file.row_groups] == [
            metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)
        ]


def test_hidden_files_and_folders_are_no_data(lake: Input) -> None:
    folder = write(lake)
    for name in ("_SUCCESS", ".part-000.parquet.crc", "_temporary/0/part-000.parquet", ".spark/x"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"not Parquet")
    assert len(list_partition(lake, "2013-01-01").files) == 1


def test_files_of_folders_below_belong_to_the_partition(lake: Input) -> None:
    folder = write(lake)
    (folder / "hour=1").mkdir()
    pq.write_table(example_rows(5), folder / "hour=1" / "x.parquet")
    assert list_partition(lake, "2013-01-01").rows == 105


def test_a_partition_below_a_hidden_folder_is_found(tmp_path: Path) -> None:
    lake = Input.model_validate({"path": str(tmp_path / ".scoring/lake"), "partition": "day", "keys": ["id"]})
    write(lake)
    assert list_partition(lake, "2013-01-01").rows == 100


def test_a_missing_partition_names_the_nearest(lake: Input) -> None:
    for value in ("2013-01-01", "2013-01-09", "2013-01-11", "2013-01-12", "2014-01-01"):
        write(lake, value)
    sentence = (
        r"partition '2013-01-10' is missing: expected Parquet files in .*/day=2013-01-10, got none\. "
        r"Nearest partitions: 2013-01-09, 2013-01-11, 2013-01-12\. Run again when it has arrived\.$"
    )
    with pytest.raises(PartitionMissingError, match=sentence):
        list_partition(lake, "2013-01-10")


@pytest.mark.parametrize(
    ("value", "near"),
    [
        ("2012-12-31", "2013-01-01, 2013-01-02, 2013-01-03"),
        ("2013-01-07", "2013-01-06, 2013-01-08, 2013-01-09"),
        ("2014-01-01", "2013-01-07, 2013-01-08, 2013-01-09"),
    ],
)
def test_the_nearest_partitions_lie_on_both_sides_or_at_the_end(lake: Input, value: str, near: str) -> None:
    for day in range(1, 10):
        if value != f"2013-01-0{day}":
            (Path(lake.path) / f"day=2013-01-0{day}").mkdir(parents=True)
    with pytest.raises(PartitionMissingError, match=rf"Nearest partitions: {near}\. Run"):
        list_partition(lake, value)


def test_fewer_partitions_than_are_named_are_all_named(lake: Input) -> None:
    write(lake, "2013-01-05", rows=1)
    with pytest.raises(PartitionMissingError, match=r"Nearest partitions: 2013-01-05\. Run"):
        list_partition(lake, "2013-01-01")


def test_no_partition_at_all_asks_for_the_path(lake: Input) -> None:
    with pytest.raises(ConfigurationError, match=r"/lake has no partition at all: .* Is 'input\.path' right\?$"):
        list_partition(lake, "2013-01-10")


def test_a_folder_with_hidden_files_only_has_not_arrived(lake: Input) -> None:
    folder = Path(lake.path) / "day=2013-01-01"
    folder.mkdir(parents=True)
    (folder / "_SUCCESS").touch()
    with pytest.raises(PartitionMissingError, match=r"partition '2013-01-01' is missing"):
        list_partition(lake, "2013-01-01")


def test_a_partition_without_rows_is_no_partition_to_score(lake: Input) -> None:
    write(lake, rows=0, files=2)
    with pytest.raises(
        DataError, match=r"partition '2013-01-01' is empty: expected at least one row, got 2 files without"
    ):
        list_partition(lake, "2013-01-01")


def test_one_empty_file_among_others_is_fine(lake: Input) -> None:
    folder = write(lake, rows=3)
    pq.write_table(example_rows(0), folder / "part-999.parquet")
    assert list_partition(lake, "2013-01-01").rows == 3


@pytest.mark.parametrize("keep", [0, 3, 4, 100, -1, -9])
def test_a_file_that_is_cut_short_is_named(lake: Input, keep: int) -> None:
    (file,) = write(lake).iterdir()
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(
        DataError, match=r"file .*part-000\.parquet cannot be read: expected a whole Parquet file, got .*"
    ):
        list_partition(lake, "2013-01-01")


def test_a_file_that_is_no_parquet_is_named(lake: Input) -> None:
    folder = write(lake)
    (folder / "notes.csv").write_text("id,x\n1,2\n", "utf-8")
    with pytest.raises(
        DataError, match=r"file .*notes\.csv cannot be read: .*It may be still being written or cut short"
    ):
        list_partition(lake, "2013-01-01")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_the_stores_fault(lake: Input) -> None:
    (file,) = write(lake).iterdir()
    file.chmod(stat.S_IWUSR)
    with pytest.raises(StorageError, match=r"failed: got .*Permission denied"):
        list_partition(lake, "2013-01-01")


@pytest.mark.parametrize("value", ["", ".", "..", "../x", "a/b", "a b", "a=b", "a*", "$(x)", ".hidden", "a\n", "a%2F"])
def test_values_that_a_path_would_change_are_refused(lake: Input, value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"the partition is not valid: .*Example: 2013-01-31\.$"):
        list_partition(lake, value)


@pytest.mark.parametrize("value", ["2013-01-31", "2013-01-31T05:00", "eu_west.1", "7"])
def test_ordinary_values_are_taken(value: str) -> None:
    assert check_value(value) == value


def test_existing_values_are_sorted_and_know_their_column(lake: Input) -> None:
    for value in ("2013-01-02", "2013-01-01"):
        write(lake, value)
    (Path(lake.path) / "month=1").mkdir()
    assert existing_values(lake.path, "day") == ["2013-01-01", "2013-01-02"]
    assert existing_values(lake.path + "/nowhere", "day") == []


def test_days_between_include_both_ends() -> None:
    first = dt.date(2012, 2, 27)
    assert values_between(first, dt.date(2012, 3, 1)) == ["2012-02-27", "2012-02-28", "2012-02-29", "2012-03-01"]
    assert values_between(first, first) == ["2012-02-27"]
    assert values_between(first, dt.date(2012, 2, 26)) == []


def test_an_unknown_scheme_is_a_wrong_deployment() -> None:
    lake = Input.model_validate({"path": "ftpx://host/lake", "partition": "day", "keys": ["id"]})
    with pytest.raises(ConfigurationError, match=r"'ftpx://host/lake' has no file system"):
        list_partition(lake, "2013-01-01")


def test_a_local_url_is_a_path(tmp_path: Path) -> None:
    lake = Input.model_validate({"path": (tmp_path / "lake").as_uri(), "partition": "day", "keys": ["id"]})
    write_partition(tmp_path / "lake", "day", "2013-01-01", pa.table({"id": [1]}))
    assert list_partition(lake, "2013-01-01").rows == 1
