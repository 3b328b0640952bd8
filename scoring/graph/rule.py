"""Business logic: a Python function or a SQL query over the batch."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import pyarrow as pa

from scoring.batch import Batch
from scoring.errors import ContractError, ScoringError, cause, listed
from scoring.graph.sql import check_select, query_batch

RuleFunction = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True)
class Rule:
    """Adds, changes or drops columns. Rows, their order and the keys must stay as they are, and this is checked.

    A rule must be row-wise: what it makes of a row may depend on that row alone. It is given one batch of at most
    `resources.batch_rows` rows at a time, so an aggregate over `batch` would change with the size and place of batches;
    this cannot be checked.
    """

    name: str
    function: RuleFunction
    keys: tuple[str, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """A rule has no output of its own."""
        return ()

    def run(self, batch: Batch) -> Batch:
        """Apply the rule and check that it kept rows, order and keys."""
        result = self._apply(batch.table)
        if result.num_rows != batch.rows:
            raise ContractError(
                f"rule {self.name!r} changed the number of rows",
                str(batch.rows),
                str(result.num_rows),
                "A rule may add, change and drop columns; rows stay as they are.",
            )
        for key in self.keys:
            if not result.column(key).equals(batch.table.column(key)):
                raise ContractError(
                    f"rule {self.name!r} changed key {key!r}",
                    "the same values in the same order",
                    "others",
                    "Do not sort or join in a rule without restoring the order.",
                )
        return Batch(result)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Apply the rule to an empty table."""
        return self._apply(schema.empty_table()).schema

    def _apply(self, table: pa.Table) -> pa.Table:
        try:
            result = self.function(table)
        except (ScoringError, MemoryError):  # who called tries again with fewer rows
            raise
        except Exception as error:
            raise ContractError(
                f"rule {self.name!r} raised on {table.num_rows} rows",
                got=cause(error),
                hint=f"Columns: {listed(table.column_names)}.",
            ) from error
        if not isinstance(result, pa.Table):
            raise ContractError(f"rule {self.name!r} returned no table", "pyarrow.Table", type(result).__name__)
        missing = [key for key in self.keys if key not in result.column_names]
        if missing:
            raise ContractError(
                f"rule {self.name!r} dropped a key", f"columns {listed(self.keys)}", f"no {listed(missing)}"
            )
        return result


def python_rule(source: str, *, module: str, function: str) -> RuleFunction:
    """Return `function` of a deployment's Python file, given as text because executors do not have the file.

    Raises:
        ContractError: the file's own code fails, for example an import.
    """
    rule: RuleFunction = getattr(_module(source, module), function)
    return rule


@functools.lru_cache(maxsize=32)
def _module(source: str, name: str) -> ModuleType:
    # Dataclasses look their module up by name; the digest keeps the modules of several deployments apart.
    module = ModuleType(f"scoring_rules_{name}_{hashlib.sha256(source.encode()).hexdigest()}")
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, f"{name}.py", "exec"), module.__dict__)  # noqa: S102 - the deployment's own code
    except (Exception, SystemExit) as error:
        sys.modules.pop(module.__name__, None)
        if isinstance(error, ScoringError):
            raise
        hint = "It may import installed libraries, not its neighbours." if isinstance(error, ImportError) else ""
        raise ContractError(f"rule module {name!r} cannot be loaded", got=cause(error), hint=hint) from error
    return module


def sql_rule(query: str, keys: tuple[str, ...] = ()) -> RuleFunction:
    """Return a function that runs `query` over its argument, which the query calls `batch`.

    The query is one SELECT, so that it leaves nothing behind, and sees nothing else: no files, no network, no other
    variables. One thread and DuckDB's `preserve_insertion_order` keep the order of rows; `Rule` checks it.

    Raises:
        ContractError: it is something else than one SELECT.
    """
    check_select(query)

    def run(table: pa.Table) -> pa.Table:
        return _with_types(query_batch(query, table), table.schema, keys)

    return run


def _with_types(table: pa.Table, schema: pa.Schema, names: tuple[str, ...]) -> pa.Table:
    """Return the table with columns of the types that they had before: DuckDB has fewer than Arrow."""
    for name in names:
        index = table.schema.get_field_index(name)
        if index >= 0:
            table = table.set_column(index, name, table.column(index).cast(schema.field(name).type))
    return table
