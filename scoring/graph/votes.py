"""Votes are for classifiers: what an artifact says of its model is looked at before any row is scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from scoring.deployment import AnyStep, Combine, EnsembleStep, ModelStep, children, outputs_of, walk
from scoring.errors import ContractError
from scoring.models.base import Files, FrozenModel
from scoring.models.kind import is_regressor


def check_votes(step: AnyStep, models: Mapping[str, FrozenModel], files: Mapping[str, Files]) -> None:
    """Check that no member of a vote is a regressor, as far as artifacts say so. Loads no model.

    Args:
        step: the graph.
        models: by model URI.
        files: the artifacts' files by digest.

    Raises:
        ContractError: a member is a regressor.
    """
    for found in walk(step):
        if not isinstance(found, EnsembleStep):
            continue
        spec = found.ensemble
        if not (isinstance(spec.combine, Combine) and spec.combine.is_vote):
            continue
        for name, member in spec.members.items():
            for model in (models[voter.model] for voter in _voters(member)):
                if is_regressor(model, files[model.digest]):
                    raise ContractError(
                        f"member {name!r} of a {spec.combine} cannot vote",
                        "a classifier",
                        f"model {model.label}, a regressor",
                        "Combine regressors by mean, weighted_mean or median.",
                    )


def _voters(step: AnyStep) -> Iterator[ModelStep]:
    """Yield the models whose predictions are a step's outputs."""
    if isinstance(step, ModelStep):
        yield step
    elif isinstance(step, EnsembleStep) and isinstance(step.ensemble.combine, ModelStep):
        yield step.ensemble.combine
    else:
        for _, child in children(step):
            if outputs_of(child) == outputs_of(step):
                yield from _voters(child)
