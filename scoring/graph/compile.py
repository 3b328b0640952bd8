"""A deployment's specification and its frozen models become steps that run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

import pyarrow as pa

from scoring.deployment import (
    ROOT,
    AnyStep,
    Deployment,
    EnsembleStep,
    Keys,
    ModelStep,
    OnFailure,
    PipelineStep,
    RouteStep,
    RuleStep,
    Ties,
    ValuesStep,
    outputs_of,
    path_of,
    places,
    walk,
)
from scoring.errors import ContractError, listed
from scoring.graph.ensemble import Arithmetic, Combiner, Ensemble, EnsembleMember, Learned
from scoring.graph.model import Model, UnseenModel
from scoring.graph.pipeline import Pipeline
from scoring.graph.route import Branch, Route
from scoring.graph.rule import Rule, python_rule, sql_rule
from scoring.graph.sql import check_predicate
from scoring.graph.step import Step
from scoring.graph.values import Values
from scoring.models.base import FrozenModel, Predictor

Predictors = Callable[[FrozenModel, ModelStep], Predictor]
"""Gives the loaded predictor of a model step; called on executors."""
Wrap = Callable[[str, Step], Step]
"""Given the path of each step and the step, returns what stands in its place: itself, or a step that also looks on."""


@dataclass(frozen=True, slots=True)
class GraphSource:
    """All that a graph is made of, as plain data that travels to executors."""

    step: AnyStep
    keys: tuple[str, ...]
    models: Mapping[str, FrozenModel]
    """By model URI, as the step names it."""
    modules: Mapping[str, str]
    """Source text of the deployment's rule modules, by module name."""
    dropped: tuple[str, ...] = ()
    """Paths of members that ensembles do without in this run."""

    @property
    def digest(self) -> str:
        """sha256 of what decides the values: steps, keys, rules and model files."""
        facts = {
            "step": self.step.model_dump(mode="json"),
            "keys": self.keys,
            "models": {uri: model.digest for uri, model in self.models.items()},
            "modules": dict(self.modules),
            "dropped": self.dropped,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def graph_source(deployment: Deployment, models: Mapping[str, FrozenModel]) -> GraphSource:
    """Return the deployment's graph with its rules' source text and its frozen models."""
    references = [s.rule.python for s in walk(deployment.score) if isinstance(s, RuleStep) and s.rule.python]
    modules = {reference.split(":")[0] for reference in references}
    return GraphSource(
        step=deployment.score,
        keys=deployment.input.keys,
        models=models,
        modules={module: deployment.source(module).read_text("utf-8") for module in sorted(modules)},
    )


def check_rules(deployment: Deployment) -> None:
    """Load the Python rules of a deployment and parse its SQL. Columns are known only with a batch.

    Raises:
        ContractError: a rule module fails, a SQL rule is not one SELECT, or a predicate of a route not one expression.
    """
    source = graph_source(deployment, {})
    for step in walk(deployment.score):
        if isinstance(step, RuleStep):
            _rule(step, source)
        elif isinstance(step, RouteStep):
            _check_predicates(step)


def compile_graph(
    source: GraphSource, predictors: Predictors, *, at: Keys = ROOT, wrap: Wrap = lambda _, step: step
) -> Step:
    """Return the step that `source` describes.

    Args:
        source: a step of a graph that was not frozen can be checked, but not run.
        predictors: models are loaded when they first predict.
        at: where the step stands in `deployment.yaml`.
        wrap: what stands in the place of each step.
    """

    def compiled(step: AnyStep, keys: Keys) -> Step:
        return wrap(path_of(keys), _compiled(step, keys))

    def _compiled(step: AnyStep, keys: Keys) -> Step:
        match step:
            case ModelStep():
                return _model(step, source, predictors)
            case PipelineStep():
                steps = enumerate(step.pipeline)
                return Pipeline(tuple(compiled(inner, (*keys, "pipeline", number)) for number, inner in steps))
            case EnsembleStep():
                return _ensemble(step, keys, source, compiled)
            case RuleStep():
                return _rule(step, source)
            case RouteStep():
                return _route(step, keys, compiled)
            case ValuesStep():
                return Values(step.values)
            case _:
                assert_never(step)

    return compiled(source.step, at)


def readers(step: AnyStep, models: Mapping[str, FrozenModel]) -> tuple[FrozenModel, ...]:
    """Return the frozen models of a graph, once per model step, with signatures as the batch calls their columns."""
    return tuple(
        replace(model, inputs=tuple(replace(c, name=found.inputs.get(c.name, c.name)) for c in model.inputs))
        for found in walk(step)
        if isinstance(found, ModelStep) and (model := models.get(found.model)) is not None
    )


def without_members(source: GraphSource, failed: Iterable[str]) -> GraphSource | None:
    """Return the graph without members at some paths, as all rows of a run are then scored; None if it needs them.

    An ensemble needs at least one member with a weight.
    """
    dropped = tuple(sorted({*source.dropped, *failed}))
    for keys, step in places(source.step):
        if isinstance(step, EnsembleStep):
            spec = step.ensemble
            left = [name for name in spec.members if _member_path(keys, name) not in dropped]
            if not left or (spec.weights is not None and sum(spec.weights[name] for name in left) <= 0):
                return None
    return replace(source, dropped=dropped)


def remaining_members(source: GraphSource, path: str) -> list[str]:
    """Return the names of the members that are left beside a dropped one."""
    for keys, step in places(source.step):
        if isinstance(step, EnsembleStep):
            paths = {name: _member_path(keys, name) for name in step.ensemble.members}
            if path in paths.values():
                return [name for name, found in paths.items() if found not in source.dropped]
    return []


def output_columns(source: GraphSource, schema: pa.Schema) -> list[str]:
    """Return the columns that the graph adds from its first model on; what earlier rules add are features.

    A graph of rules alone outputs all that its rules add.

    Raises:
        ContractError: a batch of `schema` does not fit the graph, or nothing is added.
    """
    rules = leading_rules(source)
    has_model = any(isinstance(found, ModelStep) for found in walk(source.step))
    before = graph_schema(rules, schema) if rules is not None and has_model else schema
    after = graph_schema(source, schema)
    outputs = [name for name in after.names if name not in before.names]
    if not outputs:
        raise ContractError(
            "the graph adds no column", "a model, an ensemble or a rule that adds one", listed(after.names)
        )
    return outputs


def graph_schema(source: GraphSource, schema: pa.Schema) -> pa.Schema:
    """Return the schema after the graph for a batch of `schema`, without loading a model.

    Raises:
        ContractError: a batch of `schema` does not fit the graph.
    """
    return compile_graph(source, _no_predictor).schema(schema)


def leading_rules(source: GraphSource) -> GraphSource | None:
    """Return the rules that run before the first model, as a graph of their own; None if there are none."""
    rules, _ = _leading(source.step)
    return GraphSource(PipelineStep(pipeline=rules), source.keys, {}, source.modules) if rules else None


def _leading(step: AnyStep) -> tuple[tuple[RuleStep | ValuesStep, ...], bool]:
    """Return the rules at the start of a step, however deep in pipelines, and whether it is nothing but rules."""
    if isinstance(step, RuleStep | ValuesStep):
        return (step,), True
    rules: tuple[RuleStep | ValuesStep, ...] = ()
    for part in step.pipeline if isinstance(step, PipelineStep) else ():
        found, is_rules = _leading(part)
        rules += found
        if not is_rules:
            return rules, False
    return rules, isinstance(step, PipelineStep)


def _no_predictor(model: FrozenModel, _: ModelStep) -> Predictor:
    raise ContractError(f"model {model.label} was asked to predict while the graph was only being checked")


Compiled = Callable[[AnyStep, Keys], Step]


def _model(step: ModelStep, source: GraphSource, predictors: Predictors) -> Step:
    frozen = source.models.get(step.model)
    if frozen is None:
        return UnseenModel(step.model, step.names, step.inputs)
    return Model(
        frozen=frozen,
        outputs=step.names,
        inputs=step.inputs,
        predictor=lambda: predictors(frozen, step),
        batch_size=step.batch_size,
        precision=step.precision,
        compile=step.compile,
    )


def _ensemble(step: EnsembleStep, keys: Keys, source: GraphSource, compiled: Compiled) -> Ensemble:
    spec = step.ensemble
    paths = {name: (*keys, "ensemble", "members", name) for name in spec.members}
    left = [name for name, path in paths.items() if path_of(path) not in source.dropped]
    kept = {name: spec.kept(name) if spec.keep_members else () for name in spec.members}
    if isinstance(spec.combine, ModelStep):
        named = spec.combine.model_copy(update={"output": spec.output, "outputs": spec.outputs})
        columns = (_columns_of(name, outputs_of(spec.members[name])) for name in left)
        combiner: Combiner = Learned(compiled(named, (*keys, "ensemble", "combine")), tuple(columns))
    else:
        weights = spec.weights or dict.fromkeys(spec.members, 1.0)
        quantiles = spec.quantiles or {}
        combiner = Arithmetic(
            spec.combine,
            tuple(weights[name] for name in left),
            spec.ties or Ties.FIRST,
            tuple(quantiles[name] for name in left if name in quantiles),
        )
    return Ensemble(
        members=tuple(
            EnsembleMember(name, compiled(spec.members[name], paths[name]), path_of(paths[name]), kept[name])
            for name in left
        ),
        combiner=combiner,
        outputs=spec.names,
        absent=tuple(column for name in spec.members if name not in left for column in kept[name]),
        may_drop=spec.on_failure is OnFailure.DROP,
    )


def _columns_of(member: str, outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a learned combiner calls a member's outputs."""
    return (member,) if len(outputs) == 1 else tuple(f"{member}_{output}" for output in outputs)


def _member_path(keys: Keys, name: str) -> str:
    return path_of((*keys, "ensemble", "members", name))


def _route(step: RouteStep, keys: Keys, compiled: Compiled) -> Route:
    _check_predicates(step)
    spec = step.route
    branches = [
        Branch(case.when, compiled(case.then, (*keys, "route", "cases", number, "then")))
        for number, case in enumerate(spec.cases)
    ]
    if not isinstance(spec.otherwise, str):
        branches.append(Branch("otherwise", compiled(spec.otherwise, (*keys, "route", "otherwise"))))
    return Route(tuple(case.when for case in spec.cases), tuple(branches))


def _check_predicates(step: RouteStep) -> None:
    for case in step.route.cases:
        check_predicate(case.when)


def _rule(step: RuleStep, source: GraphSource) -> Rule:
    if step.rule.python is not None:
        module, function = step.rule.python.split(":")
        apply = python_rule(source.modules[module], module=module, function=function)
        return Rule(step.rule.python, apply, source.keys)
    query = step.rule.sql or ""
    return Rule(f"sql: {query}", sql_rule(query, source.keys), source.keys)
