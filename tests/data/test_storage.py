"""File systems by URL, and what is said when one cannot be used."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.data.partition import existing_values, list_partition
from scoring.data.parts import absent_parts, discard_files, read_parts, writing_file, writing_part
from scoring.data.storage import delta_options, open_storage
from scoring.data.table import Change, Table
from scoring.deployment import Input
from scoring.errors import ConfigurationError, PartitionMissingError, ScoringError, StorageError, SupersededError
from tests.object_store import ObjectStore, running_store

ROWS = pa.table({"id": pa.array([1, 2, 3], pa.int64())})
DAY = "2013-01-01"


def source(path: str) -> Input:
    return Input(path=path, partition="day", keys=("id",))


@pytest.fixture
def guarded_store(tmp_path: Path) -> Iterator[str]:
    """The address of an S3 server that asks who is there; nobody has an account."""
    with running_store(tmp_path / "server.log", INITIAL_NO_AUTH_ACTION_COUNT="0") as address:
        yield address


# ------------------------------------------------------------------------------------------------------ S3


def test_parts_on_s3_are_read_back_and_discarded(object_store: ObjectStore) -> None:
    root = f"{object_store.url}/table"
    with writing_part(root, f"day={DAY}/a b-00000.parquet", ROWS.schema) as writer:
        assert object_store.files() == [], "nothing is seen of a part that is being written"
        writer.write(ROWS)
    assert writer.part is not None
    assert object_store.files() == [f"table/day={DAY}/a b-00000.parquet"]
    assert absent_parts(root, [writer.part]) == []
    assert read_parts(root, [writer.part.path]).equals(ROWS)
    discard_files(root, f"day={DAY}", "a b")
    assert object_store.files() == []
    assert absent_parts(root, [writer.part]) == [writer.part.path]


def test_a_file_that_was_given_up_is_not_there(object_store: ObjectStore) -> None:
    with pytest.raises(ZeroDivisionError), writing_file(object_store.url, "table/half") as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert object_store.files() == []


def test_partitions_on_s3_are_found(object_store: ObjectStore, tmp_path: Path) -> None:
    for day in (DAY, "2013-01-02"):
        (tmp_path / f"day={day}").mkdir()
        pq.write_table(ROWS, tmp_path / f"day={day}" / "a.parquet")
    object_store.upload(tmp_path, "lake")
    lake = f"{object_store.url}/lake"
    assert existing_values(lake, "day") == [DAY, "2013-01-02"]
    (file,) = list_partition(source(lake), DAY).files
    assert (file.path, file.rows) == (f"{object_store.bucket}/lake/day={DAY}/a.parquet", 3)
    assert file.modified_ns > 0
    with pytest.raises(PartitionMissingError, match=r"Nearest partitions: 2013-01-01, 2013-01-02"):
        list_partition(source(lake), "2013-01-03")


def stage(table: Table, run_id: str) -> Change:
    with writing_part(table.path, f"day={DAY}/{run_id}.parquet", ROWS.schema) as writer:
        writer.write(ROWS)
    assert writer.part is not None
    return Change(DAY, [writer.part], ROWS.schema, run_id, table.generation(DAY))


@pytest.mark.parametrize("attempts", [2, 6])
def test_of_runs_that_publish_to_s3_at_once_exactly_one_wins(object_store: ObjectStore, attempts: int) -> None:
    table = Table(f"{object_store.url}/table", "day")
    barrier = threading.Barrier(attempts)

    def attempt(run_id: str) -> str:
        change = stage(table, run_id)
        barrier.wait()
        try:
            table.publish(change)
        except SupersededError:
            return ""
        return run_id

    with ThreadPoolExecutor(attempts) as pool:
        winners = [winner for winner in pool.map(attempt, map(str, range(attempts))) if winner]
    assert len(winners) == 1
    assert table.published()[DAY].run_ids == frozenset(winners)
    assert table.generation(DAY) == 1


def test_a_bucket_that_is_missing_is_said(object_store: ObjectStore) -> None:
    with pytest.raises(ConfigurationError, match=r"s3://no-such-bucket/lake has no partition at all"):
        list_partition(source("s3://no-such-bucket/lake"), DAY)
    table = Table("s3://no-such-bucket/table", "day")
    for attempt in (
        lambda: stage(table, "r"),
        lambda: table.generation(DAY),
        lambda: table.publish(Change(DAY, [], ROWS.schema, "r", None)),
    ):
        sentence = r"the bucket of s3://no-such-bucket/table.* is missing: got "
        with pytest.raises(ConfigurationError, match=sentence) as failed:
            attempt()
        assert_sentence(failed.value)


def test_a_store_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch, object_store: ObjectStore) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    table = Table("s3://bucket/table", "day")
    for attempt in (lambda: list_partition(source("s3://bucket/lake"), DAY), lambda: table.generation(DAY)):
        sentence = r"reading or writing s3://bucket/.* failed: got OSError: .*(?i:connect).* Run again later\."
        with pytest.raises(StorageError, match=sentence) as failed:
            attempt()
        assert failed.value.exit_code == 75
        assert_sentence(failed.value)


def test_credentials_that_are_wrong_are_said(guarded_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", guarded_store)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    table = Table("s3://guarded/table", "day")
    for attempt in (
        lambda: list_partition(source("s3://guarded/lake"), DAY),
        lambda: stage(table, "r"),
        lambda: table.generation(DAY),
    ):
        sentence = r"the store refuses access to s3://guarded/.*: got .*Check the credentials .* AWS_ACCESS_KEY_ID"
        with pytest.raises(ConfigurationError, match=sentence) as failed:
            attempt()
        assert_sentence(failed.value)


def assert_sentence(error: ScoringError) -> None:
    assert "\x1b" not in str(error)
    assert "\n" not in str(error)


def test_delta_is_told_what_arrow_finds_out_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert delta_options("s3://bucket/table") == delta_options("/table") == {}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    assert delta_options("/table") == {}
    assert delta_options("s3://bucket/table") == {
        "aws_endpoint_url": "http://store:9000",
        "aws_allow_http": "true",
        "aws_region": "us-east-1",
    }
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://store.example")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert delta_options("s3://bucket/table") == {
        "aws_endpoint_url": "https://store.example",
        "aws_allow_http": "false",
        "aws_region": "eu-north-1",
    }


# ------------------------------------------------------------------------------------------------------ others


def test_fsspec_opens_what_arrow_does_not_know(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    root = f"memory://{tmp_path.name}"
    try:
        with store.open(f"/{tmp_path.name}/lake/day={DAY}/a.parquet", "wb") as stream:
            pq.write_table(ROWS, stream)
        assert existing_values(f"{root}/lake", "day") == [DAY]
        partition = list_partition(source(f"{root}/lake"), DAY)
        assert (partition.rows, len(partition.files)) == (3, 1)
        with writing_part(f"{root}/table", f"day={DAY}/a.parquet", ROWS.schema) as writer:
            writer.write(ROWS)
        assert writer.part is not None
        assert absent_parts(f"{root}/table", [writer.part]) == []
        assert read_parts(f"{root}/table", [writer.part.path]).equals(ROWS)
        with pytest.raises(ZeroDivisionError), writing_file(f"{root}/table", "half"):
            raise ZeroDivisionError
        assert [name for name in store.find(f"/{tmp_path.name}/table") if "half" in name] == []
    finally:
        store.rm(f"/{tmp_path.name}", recursive=True)


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("oss://bucket/lake", r"fsspec's package for oss://, got no module 'ossfs'. Run: pip install ossfs"),
        ("sftp://host/lake", r"fsspec's package for sftp://, got no module 'paramiko'. Run: pip install paramiko"),
        ("nonsense://lake", r"'nonsense://lake' has no file system: .*got nonsense://"),
        ("s3://bucket/lake?no=1", r"'s3://bucket/lake\?no=1' is not valid: expected a path or URL, got .*no"),
    ],
)
def test_a_url_that_cannot_be_opened_says_what_is_missing(location: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        open_storage(location)


def test_google_and_azure_are_opened_by_arrow() -> None:
    opened = {url: open_storage(url) for url in ("gs://bucket/lake", "abfss://box@account.dfs.core.windows.net/lake")}
    assert [filesystem.type_name for filesystem, _ in opened.values()] == ["gcs", "abfs"]
    assert [path for _, path in opened.values()] == ["bucket/lake", "box/lake"]


@pytest.mark.skipif("HADOOP_HOME" in os.environ, reason="Hadoop is installed")
def test_hdfs_without_hadoop_is_said() -> None:
    with pytest.raises(ConfigurationError, match=r"expected Hadoop's native library, .*Set JAVA_HOME, HADOOP_HOME"):
        open_storage("hdfs://127.0.0.1:9/lake")
