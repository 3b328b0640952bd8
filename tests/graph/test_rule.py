from __future__ import annotations

import hashlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.errors import ConfigurationError, ContractError
from scoring.testing import example_rows, make_graph

ROWS = pa.table({"id": [3, 1, 2], "x": [1.0, None, 3.0], "t": ["a", "b", None]})


def python(body: str, rows: pa.Table = ROWS) -> pa.Table:
    source = f"import pyarrow as pa\nimport pyarrow.compute as pc\n\ndef apply(batch):\n    {body}\n"
    return make_graph({"rule": {"python": "rules:apply"}}, modules={"rules": source}).run(rows)


def sql(query: str, rows: pa.Table = ROWS) -> pa.Table:
    return make_graph({"rule": {"sql": query}}).run(rows)


# ------------------------------------------------------------------------------------------------------ what rules do


def test_a_python_rule_adds_changes_and_drops_columns() -> None:
    result = python("return batch.drop_columns(['t']).append_column('twice', pc.multiply(batch['x'], 2))")
    assert result.to_pydict() == {"id": [3, 1, 2], "x": [1.0, None, 3.0], "twice": [2.0, None, 6.0]}


def test_a_sql_rule_adds_changes_and_drops_columns() -> None:
    result = sql("select id, x * 2 as twice, coalesce(t, 'none') as t from batch")
    assert result.to_pydict() == {"id": [3, 1, 2], "twice": [2.0, None, 6.0], "t": ["a", "b", "none"]}


def test_rules_of_one_module_share_it_and_different_texts_do_not_mix() -> None:
    for number in (1, 2):
        source = f"VALUE = {number}\ndef a(batch): return batch.append_column('a', [[VALUE] * batch.num_rows])\n"
        graph = make_graph({"rule": {"python": "rules:a"}}, modules={"rules": source})
        assert graph.run(ROWS).column("a").to_pylist() == [number] * 3


def test_a_rule_module_may_define_dataclasses() -> None:
    source = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Calendar:
    column: str
    kinds: ClassVar[int] = 1

def apply(batch):
    return batch.append_column(Calendar("a").column, [[1] * batch.num_rows])
"""
    graph = make_graph({"rule": {"python": "rules:apply"}}, modules={"rules": source})
    assert graph.run(ROWS).column("a").to_pylist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "import no_such_library",
            r"^rule module 'rules' cannot be loaded: got ModuleNotFoundError: .*'no_such_library'\. It may import",
        ),
        ("LIMIT = 1 / 0", r"^rule module 'rules' cannot be loaded: got ZeroDivisionError: division by zero\.$"),
        ("def apply(:", r"^rule module 'rules' cannot be loaded: got SyntaxError: .*rules\.py, line 1"),
        ("raise SystemExit(0)", r"^rule module 'rules' cannot be loaded: got SystemExit: 0\.$"),
    ],
)
def test_a_rule_module_that_fails_is_named_and_forgotten(source: str, sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        make_graph({"rule": {"python": "rules:apply"}}, modules={"rules": source})
    assert not [name for name in sys.modules if name.endswith(hashlib.sha256(source.encode()).hexdigest())]


def test_two_keys_are_both_watched() -> None:
    graph = make_graph({"rule": {"sql": "select id, t || 'x' as t from batch"}}, keys=("id", "t"))
    with pytest.raises(ContractError, match=r"changed key 't'"):
        graph.run(ROWS)


def test_a_null_in_a_key_is_kept() -> None:
    assert make_graph({"rule": {"sql": "select * from batch"}}, keys=("t",)).run(ROWS).num_rows == 3


@pytest.mark.parametrize("rows", [0, 1, 2048, 122_880, 300_001])
def test_a_sql_rule_keeps_the_order_of_many_rows(rows: int) -> None:
    table = example_rows(rows).append_column("order", pa.array(np.random.default_rng(1).permutation(rows)))
    result = sql("select *, x + y as total from batch", table)
    assert result.column("order").equals(table.column("order"))
    np.testing.assert_array_equal(
        result.column("total").to_numpy(), table.column("x").to_numpy() + table.column("y").to_numpy()
    )


def test_a_sql_rule_keeps_the_order_of_chunks() -> None:
    table = pa.concat_tables([example_rows(1000, first_id=start) for start in (5000, 0, 9000)])
    assert sql("select * from batch", table).column("id").equals(table.column("id"))


@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats() | st.none(), st.text() | st.none()), max_size=8)
)
def test_a_sql_rule_gives_back_every_value(rows: list[tuple[int, float | None, str | None]]) -> None:
    ids, numbers, texts = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    table = pa.table(
        {"id": pa.array(ids, pa.int64()), "x": pa.array(numbers, pa.float64()), "t": pa.array(texts, pa.string())}
    )
    result = sql("select * from batch", table)
    assert result.schema == table.schema
    assert str(result.to_pylist()) == str(table.to_pylist())


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.timestamp("us", "Europe/Oslo"), pa.timestamp("s", "UTC"), pa.decimal32(5), pa.decimal64(12)),
        *(pa.large_binary(), pa.binary(1), pa.large_string(), pa.date64()),
    ],
    ids=str,
)
def test_a_sql_rule_keeps_keys_of_types_that_duckdb_does_not_have(kind: pa.DataType) -> None:
    values = [b"3", b"1", b"2"] if "binary" in str(kind) else ["3", "1", "2"] if "string" in str(kind) else [3, 1, 2]
    days = pa.array([3 * 86_400_000, 0, 86_400_000], pa.int64()).view(kind) if kind == pa.date64() else None
    rows = pa.table({"id": pa.array(values, kind) if days is None else days})
    assert sql("select *, 1 as one from batch", rows).column("id").equals(rows.column("id"))


def test_the_schema_is_known_before_any_row() -> None:
    graph = make_graph({"rule": {"sql": "select *, x > 1 as is_high from batch"}})
    assert graph.step.schema(ROWS.schema) == graph.run(ROWS).schema


# ------------------------------------------------------------------------------------------------ what rules may not


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return batch.slice(1)", r"'rules:apply' changed the number of rows: expected 3, got 2\. A rule may add"),
        ("return pa.concat_tables([batch, batch])", r"changed the number of rows: expected 3, got 6"),
        (
            "return batch.sort_by('id')",
            r"changed key 'id': expected the same values in the same order, got others\. Do not",
        ),
        ("return batch.set_column(0, 'id', pc.add(batch['id'], 1))", r"changed key 'id'"),
        ("return batch.set_column(0, 'id', batch['id'].cast('int32'))", r"changed key 'id'"),
        ("return batch.drop_columns(['id'])", r"dropped a key: expected columns id, got no id\.$"),
        ("return batch['x']", r"returned no table: expected pyarrow\.Table, got ChunkedArray\.$"),
        ("return batch.to_pandas()", r"returned no table: expected pyarrow\.Table, got DataFrame\.$"),
        ("pass", r"returned no table: expected pyarrow\.Table, got NoneType\.$"),
        ("return batch['no such']", r"raised on 3 rows: got KeyError: .*no such.* Columns: id, x, t\.$"),
        ("raise ValueError('no calendar')", r"raised on 3 rows: got ValueError: no calendar\. Columns: id, x, t\.$"),
    ],
)
def test_a_python_rule_that_breaks_the_batch_is_named(body: str, sentence: str) -> None:
    with pytest.raises(ContractError, match=rf"^rule {sentence}|{sentence}"):
        python(body)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (
            "select * from batch where x is not null",
            r"rule 'sql: select \* .*' changed the number of rows: expected 3, got 2",
        ),
        ("select * from batch order by id", r"changed key 'id'"),
        ("select x from batch", r"dropped a key: expected columns id, got no id"),
        ("select *, nothing from batch", r"raised on 3 rows: got BinderException: .*nothing.* Columns: id, x, t\.$"),
        ("selec * from batch", r"is not a query: expected one SELECT, got ParserException: .*selec"),
        ("", r"rule 'sql: ' is not a query: expected one SELECT, got nothing\.$"),
        ("create table kept as select * from batch", r"is not a query: expected one SELECT, got CREATE\.$"),
        ("select * from batch; select * from batch", r"is not a query: expected one SELECT, got SELECT, SELECT\.$"),
    ],
)
def test_a_sql_rule_that_breaks_the_batch_is_named(query: str, sentence: str) -> None:
    with pytest.raises(ContractError, match=rf"(?s){sentence}"):
        sql(query)


def test_our_own_errors_pass_through_a_rule() -> None:
    with pytest.raises(ConfigurationError, match=r"^no calendar for 2014\.$"):
        python("from scoring.errors import ConfigurationError; raise ConfigurationError('no calendar for 2014')")


# ------------------------------------------------------------------------------------------------ what SQL cannot see


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret.csv"
    file.write_text("id,x\n1,secret\n", "utf-8")
    return file


@pytest.fixture
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A server on loopback that notes what it is sent."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    heard.append(b"connected")

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1], heard
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_csv('{file}')",
        "select * from '{file}'",
        "select *, (select content from read_text('{file}')) as c from batch",
        "select *, (select size from read_blob('{file}')) as c from batch",
        "select *, (select count(*) from glob('{folder}/*')) as c from batch",
        "copy (select * from batch) to '{folder}/stolen.csv'",
        "copy batch from '{file}'",
        "attach '{folder}/other.db' as other",
        "export database '{folder}/dump'",
        "load httpfs",
        "install httpfs",
        "load '{file}'",
        "set enable_external_access = true",
        "set python_enable_replacements = true",
        "reset enable_external_access",
        "set lock_configuration = false",
        "select * from read_json('http://127.0.0.1:{port}/x')",
        "select * from read_csv('http://127.0.0.1:{port}/x')",
        "select * from read_parquet('s3://bucket/x')",
        "select * from secret_frame",
        "select *, getenv('HOME') as h from batch",
    ],
)
def test_a_sql_rule_sees_no_file_no_network_and_no_variable(
    query: str, secret: Path, listener: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret_frame = ROWS  # DuckDB finds tables among Python's variables unless it is told not to
    monkeypatch.setitem(globals(), "secret_frame", secret_frame)
    port, heard = listener
    with pytest.raises(ContractError, match=r"raised on 3 rows: got \w*(Exception|Error)|expected one SELECT"):
        sql(query.format(file=secret, folder=secret.parent, port=port))
    assert not heard
    assert sorted(secret.parent.iterdir()) == [secret]


@pytest.mark.parametrize(
    "definition", ["table kept as select * from batch", "view kept as select 1", "sequence kept", "macro kept() as 1"]
)
def test_a_sql_rule_leaves_nothing_to_the_next_one(definition: str) -> None:
    with pytest.raises(ContractError, match="expected one SELECT, got CREATE, SELECT"):
        sql(f"create {definition}; select * from batch")
    with pytest.raises(ContractError, match="kept"):
        sql("select *, (select count(*) from kept) as c from batch")
    assert sql("select * from batch").equals(ROWS)
