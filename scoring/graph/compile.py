"""A deployment's specification and its frozen models become steps that run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

import pyarrow as pa

from scoring.deployment import (
    AnyStep,
    Combine,
    Deployment,
    EnsembleStep,
    ModelStep,
    PipelineStep,
    RuleStep,
    walk,
)
from scoring.errors import ContractError, listed
from scoring.graph.ensemble import Ensemble, EnsembleMember
from scoring.graph.model import Model
from scoring.graph.pipeline import Pipeline
from scoring.graph.rule import Rule, python_rule, sql_rule
from scoring.graph.step import Step
from scoring.models.base import FrozenModel, Predictor

Predictors = Callable[[FrozenModel, ModelStep], Predictor]
"""Gives the loaded predictor of a model step; called on executors."""


@dataclass(frozen=True, slots=True)
class GraphSource:
    """All that a graph is made of, as plain data that travels to executors."""

    step: AnyStep
    keys: tuple[str, ...]
    models: Mapping[str, FrozenModel]
    """By model URI, as the step names it."""
    modules: Mapping[str, str]
    """Source text of the deployment's rule modules, by module name."""

    @property
    def digest(self) -> str:
        """sha256 of what decides the values: steps, keys, rules and model files."""
        facts = {
            "step": self.step.model_dump(mode="json"),
            "keys": self.keys,
            "models": {uri: model.digest for uri, model in self.models.items()},
            "modules": dict(self.modules),
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
    """Load the Python rules of a deployment and parse its SQL rules. Their columns are known only with a batch.

    Raises:
        ContractError: a rule module fails, or a SQL rule is not one SELECT.
    """
    source = graph_source(deployment, {})
    for step in walk(deployment.score):
        if isinstance(step, RuleStep):
            _rule(step, source)


def compile_graph(source: GraphSource, predictors: Predictors) -> Step:
    """Return the step that `source` describes; models are loaded when they first predict."""

    def compiled(step: AnyStep) -> Step:
        match step:
            case ModelStep():
                frozen = source.models[step.model]
                return Model(
                    frozen=frozen,
                    output=step.output,
                    predictor=lambda: predictors(frozen, step),
                    batch_size=step.batch_size,
                    precision=step.precision,
                    compile=step.compile,
                )
            case PipelineStep():
                return Pipeline(tuple(compiled(inner) for inner in step.pipeline))
            case EnsembleStep():
                return _ensemble(step, compiled)
            case RuleStep():
                return _rule(step, source)
            case _:
                assert_never(step)

    return compiled(source.step)


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


def _leading(step: AnyStep) -> tuple[tuple[RuleStep, ...], bool]:
    """Return the rules at the start of a step, however deep in pipelines, and whether it is nothing but rules."""
    if isinstance(step, RuleStep):
        return (step,), True
    rules: tuple[RuleStep, ...] = ()
    for part in step.pipeline if isinstance(step, PipelineStep) else ():
        found, is_rules = _leading(part)
        rules += found
        if not is_rules:
            return rules, False
    return rules, isinstance(step, PipelineStep)


def _no_predictor(model: FrozenModel, _: ModelStep) -> Predictor:
    raise ContractError(f"model {model.label} was asked to predict while the graph was only being checked")


def _ensemble(step: EnsembleStep, compiled: Callable[[AnyStep], Step]) -> Ensemble:
    spec = step.ensemble
    weights = spec.weights or dict.fromkeys(spec.members, 1.0)
    members = tuple(EnsembleMember(name, compiled(member), weights[name]) for name, member in spec.members.items())
    return Ensemble(members, Combine(spec.combine), spec.output, spec.keep_members)


def _rule(step: RuleStep, source: GraphSource) -> Rule:
    if step.rule.python is not None:
        module, function = step.rule.python.split(":")
        apply = python_rule(source.modules[module], module=module, function=function)
        return Rule(step.rule.python, apply, source.keys)
    query = step.rule.sql or ""
    return Rule(f"sql: {query}", sql_rule(query, source.keys), source.keys)
