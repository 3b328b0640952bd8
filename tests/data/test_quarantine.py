from __future__ import annotations

import datetime as dt
import json

from scoring.data.quarantine import SCHEMA, QuarantinedRow, quarantine_table


def test_rows_are_kept_whole_with_their_reason_whatever_their_columns() -> None:
    rows = [
        QuarantinedRow("/lake/a.parquet", 7, "x: null", {"id": 1, "x": None}),
        QuarantinedRow(
            "/lake/b.parquet", 0, "y: 'a' is not double", {"day": dt.date(2013, 1, 1), "nested": {"a": [1]}}
        ),
    ]
    table = quarantine_table("run", rows)
    assert table.schema == SCHEMA
    assert table.drop_columns(["row"]).to_pylist() == [
        {"run_id": "run", "file": "/lake/a.parquet", "row_in_file": 7, "reason": "x: null"},
        {"run_id": "run", "file": "/lake/b.parquet", "row_in_file": 0, "reason": "y: 'a' is not double"},
    ]
    assert [json.loads(text) for text in table.column("row").to_pylist()] == [
        {"id": 1, "x": None},
        {"day": "2013-01-01", "nested": {"a": [1]}},
    ]


def test_no_rows_are_a_table_without_rows() -> None:
    assert quarantine_table("run", []).schema == SCHEMA


def test_numbers_that_json_has_no_word_for_are_read_back() -> None:
    (text,) = quarantine_table("run", [QuarantinedRow("f", 0, "r", {"x": float("nan")})]).column("row").to_pylist()
    assert str(json.loads(text)) == "{'x': nan}"
