"""What `scoring validate` finds beyond a deployment's file: rules, predicates, and columns from step to step.

Rules are run over tables without rows. Models are not asked for: known is what their steps say of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from scoring.data.contract import declared_contract
from scoring.deployment import (
    ROOT,
    AnyStep,
    Deployment,
    EnsembleStep,
    Keys,
    ModelStep,
    PipelineStep,
    RuleStep,
    ValuesStep,
    children,
    path_of,
    place_of,
    walk,
)
from scoring.errors import ConfigurationError, ContractError
from scoring.graph.compile import GraphSource, check_rules, compile_graph, graph_source
from scoring.models.base import FrozenModel, Predictor
from scoring.plan import check_known, drift_columns, features_of, fit_graph


def check_graph(deployment: Deployment) -> None:
    """Check a deployment's graph as far as its folder tells.

    With a declared input contract every column is followed through the graph; without one only what steps add.

    Raises:
        ConfigurationError: a column that a step, a predicate or a section names is made by no step before.
        ContractError: a rule cannot be loaded, or a SQL rule or predicate is none.
    """
    check_rules(deployment)
    contract = declared_contract(deployment.input)
    if contract is None:
        _check_labels(deployment)
        return
    features, source = features_of(deployment, contract), graph_source(deployment, {})
    _check_step(deployment, source, deployment.score, features, ROOT)
    _check_named(deployment, "output.keep", deployment.output.keep, features.names, what="columns of the input")
    with _placed(deployment, ROOT):
        outputs = fit_graph(deployment, source, features)
    for key, given, known, what in drift_columns(deployment, features, outputs):
        _check_named(deployment, key, given, known, what=what)


def _check_step(deployment: Deployment, source: GraphSource, step: AnyStep, schema: pa.Schema, keys: Keys) -> pa.Schema:
    """Return the schema after a step; the innermost step that does not fit is named."""
    if isinstance(step, PipelineStep):
        for further, inner in children(step):
            schema = _check_step(deployment, source, inner, schema, (*keys, *further))
        return schema
    for further, child in children(step):
        is_learned = isinstance(step, EnsembleStep) and further[-1] == "combine"  # reads the members' outputs
        if not is_learned:
            _check_step(deployment, source, child, schema, (*keys, *further))
    at = (*keys, "inputs") if isinstance(step, ModelStep) and step.inputs else keys
    with _placed(deployment, at):
        part = GraphSource(step, source.keys, {}, source.modules)
        return compile_graph(part, _no_predictor, at=keys).schema(schema)


@contextmanager
def _placed(deployment: Deployment, keys: Keys) -> Iterator[None]:
    """Say in which line of the deployment's file the step stands that does not fit."""
    try:
        yield
    except ContractError as error:
        is_named = keys[0] != ROOT[0] or keys == ROOT
        what = error.what if is_named else f"{path_of(keys)!r}: {error.what}"
        raise ConfigurationError(
            f"{place_of(deployment, keys)}: {what}", error.expected, error.got, error.hint
        ) from error


def _check_labels(deployment: Deployment) -> None:
    """Look for the output that labels are compared with among what steps add, unless a rule may add it."""
    steps = list(walk(deployment.score))
    if deployment.drift is None or deployment.drift.labels is None or any(isinstance(s, RuleStep) for s in steps):
        return
    given, known = (deployment.drift.labels.output,), _added(deployment.score)
    _check_named(deployment, "drift.labels.output", given, known, what="outputs of the graph")


def _check_named(deployment: Deployment, key: str, given: Iterable[str], known: Iterable[str], *, what: str) -> None:
    with _placed(deployment, tuple(key.split("."))):
        check_known(deployment, key, given, known, what=what)


def _added(step: AnyStep) -> list[str]:
    match step:
        case ModelStep():
            return list(step.names)
        case EnsembleStep():
            return list(step.ensemble.columns)
        case ValuesStep():
            return list(step.values)
        case _:
            return list(dict.fromkeys(name for _, child in children(step) for name in _added(child)))


def _no_predictor(model: FrozenModel, _: ModelStep) -> Predictor:
    raise ContractError(f"model {model.label} was asked to predict while the graph was only being checked")
