"""Which step makes which column: what is wrong with a graph whatever its models and rules turn out to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from scoring.deployment.steps import (
    AnyStep,
    EnsembleStep,
    Keys,
    ModelStep,
    PipelineStep,
    RouteStep,
    RuleStep,
    ValuesStep,
    children,
    path_of,
)
from scoring.errors import ConfigurationError

Place = Callable[[Keys], str]
"""Gives file and line of keys."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What is known of the columns at one point of a graph."""

    made: Mapping[str, Keys] = field(default_factory=dict)
    """Columns that steps have added so far, and which."""
    given: frozenset[str] = frozenset()
    """Columns of the batch that are known."""
    later: Mapping[str, Keys] = field(default_factory=dict)
    """Columns that steps add that run later."""
    has_rule: bool = False
    """Whether a rule ran, which may have added, renamed or dropped any column."""


def columns_after(step: AnyStep, keys: Keys, before: Columns, place: Place) -> Columns:
    """Return what is known of the columns after a step.

    Raises:
        ConfigurationError: two steps make one column, or a model reads what is made later.
    """
    match step:
        case ModelStep():
            _check_inputs(step, keys, before, place)
            return _with(before, step.names, keys, place, may_replace=step.replace)
        case PipelineStep():
            return _after_pipeline(step, keys, before, place)
        case EnsembleStep():
            # What members make is their own.
            found = [
                columns_after(child, (*keys, *further), replace(before, made={}), place)
                for further, child in children(step)
            ]
            after = replace(before, has_rule=before.has_rule or any(inner.has_rule for inner in found))
            return _with(after, step.ensemble.columns, keys, place, may_replace=step.ensemble.replace)
        case RouteStep():
            ends = [columns_after(child, (*keys, *further), before, place) for further, child in children(step)]
            made = {name: maker for end in ends for name, maker in end.made.items()}
            return replace(before, made=made, has_rule=any(end.has_rule for end in ends))
        case RuleStep():
            return replace(before, made={}, has_rule=True)
        case ValuesStep():
            return replace(before, made={**before.made, **dict.fromkeys(step.values, keys)})


def made_by(step: AnyStep, keys: Keys) -> dict[str, Keys]:
    """Return the columns that a step adds for the steps after it, as far as no rule adds them."""
    match step:
        case ModelStep():
            return dict.fromkeys(step.names, keys)
        case EnsembleStep():
            return dict.fromkeys(step.ensemble.columns, keys)
        case ValuesStep():
            return dict.fromkeys(step.values, keys)
        case _:
            found = (made_by(child, (*keys, *further)) for further, child in children(step))
            return {name: maker for made in found for name, maker in made.items()}


def _after_pipeline(step: PipelineStep, keys: Keys, before: Columns, place: Place) -> Columns:
    steps = [((*keys, *further), child) for further, child in children(step)]
    now = before
    for number, (at, child) in enumerate(steps):
        later = {name: maker for k, c in reversed(steps[number + 1 :]) for name, maker in made_by(c, k).items()}
        now = columns_after(child, at, replace(now, later={**before.later, **later}), place)
    return replace(now, later=before.later)


def _check_inputs(step: ModelStep, keys: Keys, before: Columns, place: Place) -> None:
    for feature, column in step.inputs.items():
        is_there = column in before.made or column in before.given or before.has_rule
        if column in before.later and not is_there:
            at = (*keys, "inputs", feature)
            raise ConfigurationError(
                f"{place(at)}: {path_of(at)!r} reads a column that is made later",
                "a column of the input or of a step before",
                f"{column!r}, which {path_of(before.later[column])!r} makes",
                "Change the order of the steps.",
            )


def _with(before: Columns, names: tuple[str, ...], keys: Keys, place: Place, *, may_replace: bool) -> Columns:
    double = [name for name in names if name in before.made]
    if double and not may_replace:
        raise ConfigurationError(
            f"{place(keys)}: {path_of(keys)!r} makes a column that is there already",
            f"another name than {double[0]!r}, which {path_of(before.made[double[0]])!r} makes",
            "the same",
            "Set 'output', or 'replace: true' if that is meant.",
        )
    return replace(before, made={**before.made, **dict.fromkeys(names, keys)})
