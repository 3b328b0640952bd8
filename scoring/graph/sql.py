"""SQL over one batch, in a DuckDB that sees nothing else: no files, no network, no other variables."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from scoring.errors import ContractError, cause, listed

if TYPE_CHECKING:
    import duckdb


def query_batch(query: str, table: pa.Table) -> pa.Table:
    """Return the rows of a query, in order; the query calls `table` `batch`.

    One thread and DuckDB's `preserve_insertion_order` keep the order of rows.
    """
    connection = _connection()
    connection.register("batch", table)
    try:
        return connection.sql(query).to_arrow_table()
    finally:
        connection.unregister("batch")


def check_select(query: str) -> None:
    """Check that `query` is one SELECT, so that it leaves nothing behind.

    Raises:
        ContractError: it is something else.
    """
    import duckdb

    try:
        kinds = [statement.type.name for statement in _connection().extract_statements(query)]
        got = listed(kinds) or "nothing"
    except duckdb.Error as error:
        kinds, got = [], cause(error)
    if kinds != ["SELECT"]:
        raise ContractError(f"rule {f'sql: {query}'!r} is not a query", "one SELECT", got)


def check_predicate(predicate: str) -> list[str]:
    """Check that `predicate` is one expression over the columns of a row, and return the columns that it names.

    Aggregates are found with the columns of a batch only.

    Raises:
        ContractError: it is something else, or looks at other rows.
    """
    query = f"select ({predicate}\n) from batch"  # noqa: S608 - what is checked here
    ((serialised,),) = _connection().execute("select json_serialize_sql(?)", [query]).fetchall()
    parsed = json.loads(serialised)
    if parsed["error"]:
        raise _not_a_predicate(predicate, parsed["error_message"])
    nodes = [statement["node"] for statement in parsed["statements"]]
    if len(nodes) != 1 or len(nodes[0].get("select_list", ())) != 1 or nodes[0]["from_table"]["type"] != "BASE_TABLE":
        raise _not_a_predicate(predicate, "more than that")
    expressions = list(_expressions(nodes[0]["select_list"]))
    refused = {_NOT_ROW_BY_ROW[found["class"]]: None for found in expressions if found["class"] in _NOT_ROW_BY_ROW}
    if refused:
        raise _not_a_predicate(predicate, listed(refused))
    if any(found["class"] == "LAMBDA" for found in expressions):
        return []  # parameters of lambdas look like columns
    columns = (found["column_names"] for found in expressions if found["class"] == "COLUMN_REF")
    return list(dict.fromkeys(names[0] for names in columns if len(names) == 1))


def _not_a_predicate(predicate: str, got: str) -> ContractError:
    return ContractError(f"{predicate!r} is not a predicate", "one SQL expression over the columns of a row", got)


_NOT_ROW_BY_ROW: Final = {"SUBQUERY": "a subquery", "WINDOW": "a window function", "STAR": "'*'"}
"""What a predicate may not hold, by DuckDB's class of expressions."""


def _expressions(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "class" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _expressions(inner)


@functools.cache
def _connection() -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "enable_external_access": False,
            "python_enable_replacements": False,
            "allow_community_extensions": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    connection.execute("SET lock_configuration = true")
    return connection
