"""Members side by side over one batch, merged by a combiner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.batch import Batch
from scoring.deployment import Combine
from scoring.errors import ContractError
from scoring.graph.step import Step

Scores = npt.NDArray[np.float64]


def combine(how: Combine, scores: Scores, weights: Scores) -> Scores:
    """Merge the members' outputs.

    Args:
        how: the combiner.
        scores: shape (members, rows). For votes: probabilities of the second class.
        weights: shape (members,), not negative, with a sum above zero.

    Returns:
        Shape (rows,). Votes return class 0 or 1; a tie goes to class 0, as in scikit-learn's `VotingClassifier`.
        A missing score (NaN) of any member makes the row's result NaN.
    """
    match how:
        case Combine.MEAN | Combine.WEIGHTED_MEAN:
            return _weighted_mean(scores, weights)
        case Combine.MAX:
            return _maximum(scores)
        case Combine.SOFT_VOTE:
            return _with_missing(scores, _weighted_mean(scores, weights) > 0.5)
        case Combine.HARD_VOTE:
            return _with_missing(scores, _weighted_mean((scores > 0.5).astype(np.float64), weights) > 0.5)
        case _:
            assert_never(how)


def _weighted_mean(scores: Scores, weights: Scores) -> Scores:
    # As in scikit-learn. A matrix product rounds otherwise, and differently for every number of rows.
    mean: Scores = np.average(scores, axis=0, weights=weights)
    return mean


def _maximum(scores: Scores) -> Scores:
    maximum: Scores = np.max(scores, axis=0)
    return maximum


def _with_missing(scores: Scores, votes: npt.NDArray[np.bool_]) -> Scores:
    return np.where(np.isnan(scores).any(axis=0), np.nan, votes.astype(np.float64))


@dataclass(frozen=True)
class EnsembleMember:
    """One member of an ensemble."""

    name: str
    step: Step
    weight: float


@dataclass(frozen=True)
class Ensemble:
    """Adds column `output` (float64): the combined outputs of all members."""

    members: tuple[EnsembleMember, ...]
    how: Combine
    output: str
    keep_members: bool = False

    def run(self, batch: Batch) -> Batch:
        """Give every member the same batch, so that they share its feature matrices, and combine."""
        scores = np.empty((len(self.members), batch.rows), dtype=np.float64)
        for row, member in enumerate(self.members):
            result = member.step.run(batch).table.column(_output(member))
            scores[row] = result.to_numpy()
        weights = np.array([member.weight for member in self.members], dtype=np.float64)
        if self.keep_members:
            for row, member in enumerate(self.members):
                batch = batch.with_column(self._member_column(member), scores[row])
        return batch.with_column(self.output, combine(self.how, scores, weights))

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Check every member and append the outputs."""
        columns = []
        for member in self.members:
            result = member.step.schema(schema)
            output = _output(member)
            if output not in result.names:
                raise ContractError(f"member {member.name!r} lost its output", f"a column {output!r}", "none")
            if not _is_number(result.field(output).type):
                raise ContractError(
                    f"member {member.name!r} cannot be combined",
                    f"numbers in column {output!r}",
                    str(result.field(output).type),
                )
            if self.keep_members:
                columns.append(self._member_column(member))
        for name in [*columns, self.output]:
            index = schema.get_field_index(name)
            field = pa.field(name, pa.float64())
            schema = schema.append(field) if index < 0 else schema.set(index, field)
        return schema

    def _member_column(self, member: EnsembleMember) -> str:
        return f"{self.output}_{member.name}"


def _output(member: EnsembleMember) -> str:
    if member.step.output is None:
        raise ContractError(f"member {member.name!r} has no output to combine", "a model or an ensemble", "rules only")
    return member.step.output


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
