from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.data.parts import Part, absent_parts, discard_files, read_parts, writing_part
from scoring.errors import StorageError
from scoring.testing import example_rows

PATH = "day=2013-01-01/run-00000.parquet"


def write(root: Path, *tables: pa.Table, path: str = PATH) -> Part:
    with writing_part(str(root), path, tables[0].schema) as writer:
        for table in tables:
            writer.write(table)
    assert writer.part is not None
    return writer.part


def write_and_raise(root: Path, error: type[BaseException]) -> None:
    with writing_part(str(root), PATH, example_rows(0).schema) as writer:
        writer.write(example_rows(1000))
        raise error


def files(root: Path) -> list[str]:
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


def test_a_part_is_what_was_written(tmp_path: Path) -> None:
    first, second = example_rows(10), example_rows(5, first_id=10)
    part = write(tmp_path, first, second)
    assert (part.path, part.rows, part.size_bytes) == (PATH, 15, (tmp_path / PATH).stat().st_size)
    assert pq.read_table(tmp_path / PATH, partitioning=None).equals(pa.concat_tables([first, second]))


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_and_raise(tmp_path, ZeroDivisionError)
    assert files(tmp_path) == []


def test_nothing_is_seen_before_the_part_is_complete(tmp_path: Path) -> None:
    with writing_part(str(tmp_path), PATH, example_rows(0).schema) as writer:
        writer.write(example_rows(1000))
        assert not (tmp_path / PATH).exists()
        assert all(Path(name).name.startswith(".") for name in files(tmp_path))
    assert files(tmp_path) == [PATH]


def test_a_failing_second_attempt_leaves_the_first_part_whole(tmp_path: Path) -> None:
    part = write(tmp_path, example_rows(7))
    with pytest.raises(KeyboardInterrupt):
        write_and_raise(tmp_path, KeyboardInterrupt)
    assert files(tmp_path) == [PATH]
    assert absent_parts(str(tmp_path), [part]) == []


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path, example_rows(500))
    first = (tmp_path / PATH).read_bytes()
    write(tmp_path, example_rows(500))
    assert (tmp_path / PATH).read_bytes() == first


def test_parts_are_read_in_order_with_the_asked_columns(tmp_path: Path) -> None:
    paths = [f"day=2013-01-01/run-{number:05d}.parquet" for number in (2, 0, 1)]
    for number, path in enumerate(paths):
        write(tmp_path, example_rows(3, first_id=10 * number), path=path)
    assert read_parts(str(tmp_path), paths, ["id"]).to_pydict() == {"id": [0, 1, 2, 10, 11, 12, 20, 21, 22]}


def test_parts_that_are_gone_or_cut_are_absent(tmp_path: Path) -> None:
    paths = [f"day=2013-01-01/{name}-00000.parquet" for name in ("whole", "cut", "gone")]
    parts = [write(tmp_path, example_rows(10), path=path) for path in paths]
    with (tmp_path / paths[1]).open("r+b") as file:
        file.truncate(100)
    (tmp_path / paths[2]).unlink()
    assert absent_parts(str(tmp_path), parts) == paths[1:]


def test_only_files_of_the_name_are_discarded(tmp_path: Path) -> None:
    for name in ("one-00000", "one-00001", "other-00000"):
        write(tmp_path, example_rows(3), path=f"day=2013-01-01/{name}.parquet")
    discard_files(str(tmp_path), "day=2013-01-01", "one-")
    discard_files(str(tmp_path), "day=2013-01-02", "one-")
    assert files(tmp_path) == ["day=2013-01-01/other-00000.parquet"]


def test_a_part_that_cannot_be_read_is_the_stores_fault(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"reading or writing .* failed: got .*"):
        read_parts(str(tmp_path), [PATH])


def test_a_folder_that_cannot_be_made_is_the_stores_fault(tmp_path: Path) -> None:
    (tmp_path / "day=2013-01-01").write_text("a file in the way", "utf-8")
    with pytest.raises(StorageError), writing_part(str(tmp_path), PATH, example_rows(0).schema):
        pass


# ------------------------------------------------------------------------------------------------------ statistics


@given(values=st.lists(st.none() | st.floats(), min_size=1, max_size=20), cut=st.integers(0, 20))
def test_nulls_are_counted_over_all_row_groups(
    values: list[float | None], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = pa.table({"x": pa.array(values, pa.float64()), "t": pa.array([None] * len(values), pa.string())})
    part = write(tmp_path_factory.mktemp("parts"), table.slice(0, cut), table.slice(cut))
    assert part.nulls == {"x": values.count(None), "t": len(values)}
    assert json.loads(part.delta_stats) == {"numRecords": len(values), "nullCount": part.nulls}


def test_a_nested_column_has_no_statistics(tmp_path: Path) -> None:
    assert write(tmp_path, pa.table({"id": [1], "parts": [[1, None]], "pair": [{"a": None}]})).nulls == {"id": 0}


def test_a_part_survives_json(tmp_path: Path) -> None:
    part = write(tmp_path, example_rows(5))
    assert Part.from_json(json.loads(json.dumps(part.to_json()))) == part


def test_a_part_without_rows_is_a_part(tmp_path: Path) -> None:
    part = write(tmp_path, example_rows(0))
    assert part.rows == 0
    assert json.loads(part.delta_stats)["numRecords"] == 0
