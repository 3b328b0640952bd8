"""Rows go through different steps, chosen by SQL predicates, and come back in their order."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.batch import Batch
from scoring.errors import ContractError, cause, listed
from scoring.graph.sql import check_predicate, query_batch
from scoring.graph.step import Step


@dataclass(frozen=True)
class Branch:
    """One way through a route."""

    name: str
    """As sentences call it: the predicate, or `otherwise`."""
    step: Step


@dataclass(frozen=True)
class Route:
    """Gives each row to the first branch whose predicate is true; null is not true.

    A predicate must be row-wise, as a rule must; subqueries, windows and aggregates are refused.
    """

    predicates: tuple[str, ...]
    branches: tuple[Branch, ...]
    """One per predicate, and one more for all other rows unless there must be none."""
    _schemas: dict[pa.Schema, pa.Schema] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Columns after the route by columns before it: the same for every batch, and not for free."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output of the first branch that has one."""
        return next(filter(None, (branch.step.outputs for branch in self.branches)), ())

    def run(self, batch: Batch) -> Batch:
        """Run each branch over its rows, if it has any, and put the rows back in order."""
        after = self.schema(batch.table.schema)
        if not batch.rows:
            return Batch(after.empty_table())
        choice = self._choice(batch.table)
        taken = np.unique(choice)
        if taken[-1] == len(self.branches):
            raise ContractError(
                "a row matches no case of a route",
                f"each row in one of {listed(self.predicates)}",
                f"{np.count_nonzero(choice == taken[-1])} of {batch.rows} rows in none",
                "Add a case, or 'otherwise' with values.",
            )
        if len(taken) == 1:  # nothing has to move, and the branch shares the matrices of the batch
            return _conformed(self.branches[taken[0]], self.branches[taken[0]].step.run(batch), after)
        order = np.argsort(choice, kind="stable")
        bounds = np.searchsorted(choice[order], [*taken, len(self.branches)])
        pieces, inputs = [], []
        for number, start, stop in zip(taken, bounds, bounds[1:], strict=False):
            inputs.append(batch.table.take(pa.array(order[start:stop])))
            branch = self.branches[number]
            pieces.append(_conformed(branch, branch.step.run(Batch(inputs[-1])), after).table)
        return Batch(_in_order(batch.table, inputs, pieces, order))

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Check the predicates and every branch, and that all branches end with the same columns."""
        if schema not in self._schemas:
            self._schemas[schema] = self._unified(schema)
        return self._schemas[schema]

    def _check_columns(self, schema: pa.Schema) -> None:
        known = {name.lower(): name for name in schema.names}
        for predicate in self.predicates:
            unknown = [name for name in check_predicate(predicate) if name.lower() not in known]
            if unknown:
                close = get_close_matches(unknown[0], schema.names, n=1)
                raise ContractError(
                    f"predicate {predicate!r} of a route names unknown columns",
                    f"some of {listed(schema.names)}",
                    listed(unknown),
                    f"Did you mean {close[0]!r}?" if close else "",
                )

    def _unified(self, schema: pa.Schema) -> pa.Schema:
        self._check_columns(schema)
        if len(self._choice(schema.empty_table())):
            raise ContractError(
                "a predicate of a route is an aggregate", "expressions over one row", listed(self.predicates)
            )
        found = [(branch, branch.step.schema(schema)) for branch in self.branches]
        first, unified = found[0]
        for branch, ended in found[1:]:
            missing = [name for name in unified.names if name not in ended.names]
            extra = [name for name in ended.names if name not in unified.names]
            if missing or extra:
                lacking, names = (branch, missing) if missing else (first, extra)
                raise ContractError(
                    f"branch {lacking.name!r} of a route lacks columns that another branch ends with",
                    f"also {listed(names)}",
                    f"columns {listed((ended if missing else unified).names)}",
                    "Add them with 'values', or remove them from the other.",
                )
            try:
                unified = pa.unify_schemas(
                    [unified, pa.schema([ended.field(name) for name in unified.names])], promote_options="permissive"
                )
            except pa.ArrowTypeError as error:
                raise ContractError(
                    f"branch {branch.name!r} of a route ends with other types",
                    f"those of branch {first.name!r}",
                    cause(error),
                ) from error
        return unified.remove_metadata()

    def _choice(self, table: pa.Table) -> npt.NDArray[np.int64]:
        """Return the number of each row's branch."""
        import duckdb

        cases = " ".join(f"when ({predicate}\n) then {number}" for number, predicate in enumerate(self.predicates))
        try:
            found = query_batch(f"select (case {cases} else {len(self.predicates)} end)::bigint from batch", table)  # noqa: S608 - checked
        except duckdb.Error as error:
            raise ContractError(
                "a predicate of a route cannot be computed",
                f"expressions over columns {listed(table.column_names)}",
                cause(error),
            ) from error
        choice: npt.NDArray[np.int64] = found.column(0).to_numpy()
        return choice


def _conformed(branch: Branch, batch: Batch, schema: pa.Schema) -> Batch:
    """Return a branch's result with the columns of all branches; the batch itself if it has them already."""
    if batch.table.schema.equals(schema):
        return batch
    columns = []
    for wanted in schema:
        column = batch.table.column(wanted.name)
        try:
            columns.append(column if column.type == wanted.type else column.cast(wanted.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ContractError(
                f"column {wanted.name!r} of branch {branch.name!r} does not fit the other branches",
                str(wanted.type),
                cause(error),
            ) from error
    return Batch(pa.table(columns, schema=schema))


def _in_order(whole: pa.Table, inputs: list[pa.Table], pieces: list[pa.Table], order: npt.NDArray[np.intp]) -> pa.Table:
    """Return the rows of all pieces in the order of the whole; what no branch touched is the whole's."""
    schema = pieces[0].schema
    moved = [name for name in schema.names if not _is_untouched(name, whole, inputs, pieces)]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    joined = pa.concat_tables([piece.select(moved) for piece in pieces]).combine_chunks().take(pa.array(back))
    columns = [(joined if name in moved else whole).column(name) for name in schema.names]
    return pa.table(columns, schema=schema)


def _is_untouched(name: str, whole: pa.Table, inputs: list[pa.Table], pieces: list[pa.Table]) -> bool:
    if name not in whole.column_names or whole.schema.field(name).type != pieces[0].schema.field(name).type:
        return False
    return all(_buffers(given, name) == _buffers(got, name) for given, got in zip(inputs, pieces, strict=True))


def _buffers(table: pa.Table, name: str) -> list[tuple[int, int, list[int | None]]]:
    """Return where a column lies in memory: equal places hold equal values, and looking costs nothing."""
    chunks = table.column(name).chunks
    return [(c.offset, len(c), [buffer.address if buffer else None for buffer in c.buffers()]) for c in chunks]
