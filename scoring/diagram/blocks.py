"""A deployment as boxes one after another, some of which fork into branches that join again. Plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from scoring.deployment import (
    AnyStep,
    Deployment,
    EnsembleStep,
    Input,
    ModelStep,
    PipelineStep,
    RouteStep,
    RuleStep,
    ValuesStep,
    model_name,
)


class Kind(StrEnum):
    """What a box stands for."""

    DATA = "data"
    MODEL = "model"
    RULE = "rule"
    JOIN = "join"
    """Where the branches of an ensemble or a route meet."""


@dataclass(frozen=True, slots=True)
class Box:
    """One box."""

    kind: Kind
    lines: tuple[str, ...]
    """The first is its title."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One way between a fork and its join."""

    label: str
    """Of the member, or the predicate that rows of this branch meet."""
    chain: tuple[Box | Fork, ...]


@dataclass(frozen=True, slots=True)
class Fork:
    """Branches side by side."""

    branches: tuple[Branch, ...]
    join: Box


Chain = tuple[Box | Fork, ...]


def chain(deployment: Deployment, versions: Mapping[str, int | None]) -> Chain:
    """Return a deployment from its input to its output.

    Args:
        deployment: what to draw.
        versions: version by model URI; None where there is none yet.
    """
    output = Box(Kind.DATA, ("output", deployment.output.path))
    return (Box(Kind.DATA, ("input", _source(deployment.input))), *_steps(deployment.score, versions), output)


def _steps(step: AnyStep, versions: Mapping[str, int | None]) -> Iterator[Box | Fork]:
    match step:
        case ModelStep():
            yield _model(step, versions, step.names)
        case PipelineStep():
            for inner in step.pipeline:
                yield from _steps(inner, versions)
        case RuleStep():
            text = f"rule {step.rule.python}" if step.rule.python else "rule in SQL"
            yield Box(Kind.RULE, (text, *([" ".join(step.rule.sql.split())] if step.rule.sql else [])))
        case ValuesStep():
            yield Box(Kind.RULE, ("values", *(f"{name}: {value}" for name, value in step.values.items())))
        case EnsembleStep():
            yield _ensemble(step, versions)
        case RouteStep():
            yield _route(step, versions)
        case _:
            assert_never(step)


def _model(step: ModelStep, versions: Mapping[str, int | None], names: tuple[str, ...]) -> Box:
    version = versions.get(step.model)
    shown = f"version {version}" if version is not None else "no version yet"
    alias = step.model.rpartition("@")[2] if "@" in step.model else ""
    return Box(
        Kind.MODEL,
        (
            model_name(step.model),
            f"{alias}: {shown}" if alias else shown,
            f"gives {', '.join(names)}",
            *(["on a GPU"] if step.device == "gpu" else []),
        ),
    )


def _ensemble(step: EnsembleStep, versions: Mapping[str, int | None]) -> Fork:
    spec = step.ensemble
    weights = spec.weights or {}
    branches = tuple(
        Branch(f"{name}, weight {weights[name]:g}" if name in weights else name, tuple(_steps(member, versions)))
        for name, member in spec.members.items()
    )
    if isinstance(spec.combine, ModelStep):
        return Fork(branches, _model(spec.combine, versions, spec.names))
    return Fork(branches, Box(Kind.JOIN, (spec.combine.replace("_", " "), f"gives {', '.join(spec.names)}")))


def _route(step: RouteStep, versions: Mapping[str, int | None]) -> Fork:
    cases = [Branch(" ".join(case.when.split()), tuple(_steps(case.then, versions))) for case in step.route.cases]
    otherwise = step.route.otherwise
    if isinstance(otherwise, str):
        last = Branch("otherwise", (Box(Kind.RULE, ("error: the run fails",)),))
    else:
        last = Branch("otherwise", tuple(_steps(otherwise, versions)))
    return Fork((*cases, last), Box(Kind.JOIN, ("all rows, in order",)))


def _source(source: Input) -> str:
    return source.path or source.table or " ".join(str(source.sql).split())
