from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.data.quarantine import ROWS_AT_ONCE, SCHEMA, keeping_quarantine

PART = "day=1/r-00000.parquet"


def kept(root: Path) -> pa.Table:
    return pq.read_table(root / PART, partitioning=None)


def test_rows_are_kept_with_their_reason_whatever_their_columns(tmp_path: Path) -> None:
    with keeping_quarantine(str(tmp_path), PART, limit=10) as quarantine:
        one = pa.table({"id": [0, 1, 2], "x": [0.5, None, None]})
        quarantine.add(one, {2: "x: null", 1: "x: odd"}, file="/lake/a.parquet", first_row=7)
        other = pa.table({"day": [dt.date(2013, 1, 1)], "nested": [{"a": [1]}]})
        quarantine.add(other, {0: "y: 'a' is not double"}, file="/lake/b.parquet", first_row=0)
    assert quarantine.rows == 3
    found = kept(tmp_path)
    assert found.schema == SCHEMA
    assert found.drop_columns(["row"]).to_pylist() == [
        {"file": "/lake/a.parquet", "row_in_file": 8, "reason": "x: odd"},
        {"file": "/lake/a.parquet", "row_in_file": 9, "reason": "x: null"},
        {"file": "/lake/b.parquet", "row_in_file": 0, "reason": "y: 'a' is not double"},
    ]
    assert [json.loads(text) for text in found.column("row").to_pylist()] == [
        {"id": 1, "x": None},
        {"id": 2, "x": None},
        {"day": "2013-01-01", "nested": {"a": [1]}},
    ]


def test_no_rows_are_no_file(tmp_path: Path) -> None:
    with keeping_quarantine(str(tmp_path), PART, limit=10) as quarantine:
        quarantine.add(pa.table({"id": [1]}), {}, file="f", first_row=0)
    assert quarantine.rows == 0
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        keeping_quarantine(str(tmp_path), PART, limit=10) as quarantine,
    ):
        quarantine.add(pa.table({"id": [1]}), {0: "r"}, file="f", first_row=0)
        raise ZeroDivisionError
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_rows_beyond_the_limit_are_only_counted(tmp_path: Path) -> None:
    table = pa.table({"id": [0, 1, 2, 3]})
    with keeping_quarantine(str(tmp_path), PART, limit=5) as quarantine:
        for first_row in (0, 4, 8):
            quarantine.add(table, {0: "r", 1: "r", 3: "r"}, file="f", first_row=first_row)
    assert quarantine.rows == 9
    assert kept(tmp_path).column("row_in_file").to_pylist() == [0, 1, 3, 4, 5]


def test_many_rows_keep_their_order(tmp_path: Path) -> None:
    rows = 2 * ROWS_AT_ONCE + 5
    table = pa.table({"id": pa.chunked_array([range(9), range(9, rows)])})
    with keeping_quarantine(str(tmp_path), PART, limit=rows) as quarantine:
        quarantine.add(table, {n: f"r{n}" for n in range(rows)}, file="f", first_row=0)
    found = kept(tmp_path)
    assert found.column("reason").to_pylist() == [f"r{n}" for n in range(rows)]
    assert [json.loads(text)["id"] for text in found.column("row").to_pylist()] == list(range(rows))


def test_numbers_that_json_has_no_word_for_are_read_back(tmp_path: Path) -> None:
    with keeping_quarantine(str(tmp_path), PART, limit=1) as quarantine:
        quarantine.add(pa.table({"x": [float("nan")]}), {0: "r"}, file="f", first_row=0)
    (text,) = kept(tmp_path).column("row").to_pylist()
    assert str(json.loads(text)) == "{'x': nan}"


def test_rows_of_rare_types_are_kept(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", "b", "c"], pa.string_view()),
            "bytes": pa.array([b"a", b"b", b"c"], pa.binary_view()),
            "day": pa.array([0, 2**31 - 1, 0], pa.date32()),
            "moment": pa.array([0, 10**13, 0], pa.timestamp("s")),
        }
    )
    with keeping_quarantine(str(tmp_path), PART, limit=10) as quarantine:
        quarantine.add(table, {1: "odd"}, file="/lake/a.parquet", first_row=0)
    (row,) = [json.loads(text) for text in kept(tmp_path)["row"].to_pylist()]
    assert (row["text"], row["bytes"]) == ("b", "b'b'")
    assert str(2**31 - 1) in row["day"]
    assert str(10**13) in row["moment"]
