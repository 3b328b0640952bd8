"""Members side by side over one batch, merged by arithmetic or by a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from scoring.batch import Batch
from scoring.deployment import Combine, Ties
from scoring.errors import ContractError, ModelError, listed
from scoring.graph.combine import Scores, combine
from scoring.graph.step import Step, with_outputs


@dataclass(frozen=True)
class EnsembleMember:
    """One member of an ensemble."""

    name: str
    step: Step
    path: str
    """Where it stands in `deployment.yaml`."""
    kept: tuple[str, ...] = ()
    """Columns in which its outputs are kept; none: they are not."""

    def scores(self, batch: Batch) -> list[Scores]:
        """Return the member's outputs, each of shape (rows,); null becomes NaN."""
        result = self.step.run(batch).table
        return [np.asarray(result.column(name).to_numpy(), dtype=np.float64) for name in self.step.outputs]


class Combiner(Protocol):
    """Merges what members give."""

    def combine(self, batch: Batch, scores: Sequence[Sequence[Scores]]) -> Sequence[Scores | pa.ChunkedArray]:
        """Return the ensemble's outputs, each of shape (rows,), from each member's outputs."""
        ...

    def check(self, schema: pa.Schema) -> None:
        """Check that a batch of `schema` and the members' outputs fit the combiner.

        Raises:
            ContractError: they do not.
        """
        ...


@dataclass(frozen=True)
class Arithmetic:
    """Merges output by output, or by votes."""

    how: Combine
    weights: tuple[float, ...]
    ties: Ties = Ties.FIRST
    quantiles: tuple[tuple[float, ...], ...] = ()

    def combine(
        self,
        batch: Batch,  # noqa: ARG002 - of the Protocol
        scores: Sequence[Sequence[Scores]],
    ) -> Sequence[Scores | pa.ChunkedArray]:
        """Return one array per output; one in all for votes."""
        is_single = len(scores[0]) == 1
        stacked = np.stack([found[0] if is_single else np.stack(found) for found in scores])
        weights = np.array(self.weights, dtype=np.float64)
        merged = combine(self.how, stacked, weights, ties=self.ties, quantiles=self.quantiles)
        return [merged] if merged.ndim == 1 else list(merged)

    def check(self, schema: pa.Schema) -> None:
        """Numbers are all that is needed."""


@dataclass(frozen=True)
class Learned:
    """A model reads the members' outputs, and columns of the batch if its signature names some."""

    model: Step
    columns: tuple[tuple[str, ...], ...]
    """Names of each member's outputs for the model."""

    def combine(self, batch: Batch, scores: Sequence[Sequence[Scores]]) -> Sequence[Scores | pa.ChunkedArray]:
        """Return the model's outputs."""
        for names, found in zip(self.columns, scores, strict=True):
            for name, values in zip(names, found, strict=True):
                batch = batch.with_column(name, values)
        result = self.model.run(batch).table
        return [result.column(name) for name in self.model.outputs]

    def check(self, schema: pa.Schema) -> None:
        """Check that no column has two meanings, and that the model's signature fits."""
        names = [name for names in self.columns for name in names]
        taken = [name for name in names if name in schema.names]
        if taken:
            raise ContractError(
                "members of an ensemble are called like columns of the batch",
                "names that the combiner can tell apart",
                listed(taken),
                "Rename the members.",
            )
        self.model.schema(with_outputs(schema, names))


@dataclass(frozen=True)
class Ensemble:
    """Adds columns `outputs` (float64): the merged outputs of all members."""

    members: tuple[EnsembleMember, ...]
    combiner: Combiner
    outputs: tuple[str, ...]
    absent: tuple[str, ...] = ()
    """Columns of members that were dropped; all null."""
    may_drop: bool = False
    """Whether a member that fails may be left out of the run."""

    def run(self, batch: Batch) -> Batch:
        """Give every member the same batch, so that they share its feature matrices, and combine."""
        scores = [self._scores(member, batch) for member in self.members]
        merged = self.combiner.combine(batch, scores)
        for member, found in zip(self.members, scores, strict=True):
            for name, values in zip(member.kept, found, strict=False):
                batch = batch.with_column(name, values)
        for name in self.absent:
            batch = batch.with_column(name, pa.nulls(batch.rows, pa.float64()))
        for name, values in zip(self.outputs, merged, strict=True):
            batch = batch.with_column(name, values)
        return batch

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Check every member and append the outputs."""
        for member in self.members:
            result = member.step.schema(schema)
            for output in member.step.outputs:
                if output not in result.names:
                    raise ContractError(f"member {member.name!r} lost its output", f"a column {output!r}", "none")
                if not _is_number(result.field(output).type):
                    raise ContractError(
                        f"member {member.name!r} cannot be combined",
                        f"numbers in column {output!r}",
                        str(result.field(output).type),
                    )
        self.combiner.check(schema)
        kept = [name for member in self.members for name in member.kept]
        return with_outputs(schema, [*kept, *self.absent, *self.outputs])

    def _scores(self, member: EnsembleMember, batch: Batch) -> list[Scores]:
        try:
            return member.scores(batch)
        except ModelError as error:
            # The innermost ensemble that can do without a member says which.
            if self.may_drop and len(self.members) > 1 and not error.member:
                error.member = member.path
            raise


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
