"""Training challengers and comparing them with the champions. Runs on the driver."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from scoring.data.partition import existing_values, values_between
from scoring.deployment import Deployment, Labels, ModelStep, Period, Retrain, RouteStep, model_name, walk
from scoring.errors import ConfigurationError, ContractError, DataError, ScoringError, cause, listed
from scoring.golden import keep_samples
from scoring.graph.compile import graph_source, readers
from scoring.local import read_rows, run_graph, with_features, with_labels
from scoring.models.base import FrozenModel
from scoring.monitoring.performance import arrived_labels, measure
from scoring.monitoring.report import Performance
from scoring.monitoring.sampling import keep_mask
from scoring.monitoring.window import as_date
from scoring.registry import CHALLENGER, TRAINING_RUN_TAG, Registry, names
from scoring.runs import RunKind, RunRecord, RunState, RunStore, recorded

if TYPE_CHECKING:
    import pandas as pd

SEED: Final = 20130101
MAX_TRAINING_ROWS: Final = 2_000_000
MAX_HOLDOUT_ROWS: Final = 200_000
MIN_HOLDOUT_ROWS: Final = 100
COMPARISON_ARTIFACT: Final = "comparison.json"
FORMAT_VERSION: Final = 1
GRAPH: Final = "graph"
"""Name of the whole graph in a comparison; single models have their registered names."""


@dataclass(frozen=True, slots=True)
class TrainingWindow:
    """What a deployment's training function is given."""

    frame: pd.DataFrame
    """Labelled rows: input columns, columns of the graph's leading rules, and the label."""
    label: str
    """Name of the label's column."""
    first: str
    """First partition."""
    last: str
    """Last partition."""
    seed: int
    """Use it wherever the training is random, so that it can be repeated."""


TrainFunction = Callable[[TrainingWindow], Mapping[str, str]]
"""Logs models to the active MLflow run; returns registered model name to MLflow model URI."""


def windows(deployment: Deployment, as_of: str) -> tuple[Period, Period]:
    """Return the training window and the hold-out nights for a retraining that a partition has started.

    The hold-out nights are the newest whose labels are due; the training window ends where they begin.
    """
    retrain, labels = sections(deployment)
    last = as_date(as_of) - timedelta(days=labels.delay_days)
    holdout = Period(first=last - timedelta(days=retrain.holdout_days - 1), last=last)
    end = holdout.first - timedelta(days=1)
    return Period(first=end - timedelta(days=retrain.window_days - 1), last=end), holdout


def train(deployment: Deployment, window: Period, holdout: Period, *, as_of: str = "") -> RunRecord:
    """Train challengers on one window, register them, and compare them with the champions on hold-out nights.

    Args:
        deployment: whose `retrain.train` function is called.
        window: partitions to train on.
        holdout: labelled partitions to compare on; none of them may be trained on.
        as_of: the partition whose drift started it; empty for a training by hand.

    Returns:
        The record of the training run; `scoring.promotion.redeploy` takes its `run_id`.

    Raises:
        ConfigurationError: the windows overlap, or the deployment does not say how to train.
        DataError: there are no labelled rows.
        ContractError: the training function failed or returned something else than model URIs.
    """
    sections(deployment)
    if not (window.last < holdout.first or holdout.last < window.first):
        raise ConfigurationError(
            "the hold-out nights lie in the training window",
            "separate periods",
            f"{window.first} to {window.last} and {holdout.first} to {holdout.last}",
        )
    store = RunStore()
    periods = {"first": window.first, "last": window.last, "holdout_first": holdout.first, "holdout_last": holdout.last}
    tags = {name: day.isoformat() for name, day in periods.items()}
    run_id = store.start(deployment.name, as_of, kind=RunKind.TRAIN, tags=tags)
    with recorded(store, run_id):
        registry = Registry()
        uris = _call(deployment, _frame(deployment, window, as_of=as_of), window, run_id)
        versions = {
            name: registry.register(name, uri, training_run_id=run_id, alias=CHALLENGER) for name, uri in uris.items()
        }
        store.set_tags(run_id, {"model_versions": json.dumps(versions)})
        compare_with_champions(deployment, versions, holdout, run_id=run_id, as_of=as_of)
        store.set_state(run_id, RunState.DONE)
    return store.get(run_id)


def compare_with_champions(
    deployment: Deployment, versions: Mapping[str, int], holdout: Period, *, run_id: str, as_of: str = ""
) -> None:
    """Compare fresh versions with the champions, record it with their training, and keep golden samples of them.

    Args:
        deployment: whose graph they are part of.
        versions: fresh ones by registered model name.
        holdout: labelled partitions to compare on.
        run_id: of the training.
        as_of: the partition whose drift started it; empty for a training by hand.

    Raises:
        ConfigurationError: a champion was trained on hold-out nights.
    """
    store, registry = RunStore(), Registry()
    champions = registry.champions(deployment)
    check_holdout(champions.items(), holdout)
    store.set_tags(run_id, {"champion_versions": json.dumps(champions)})
    comparison = _compare(registry, deployment, champions, versions, holdout=holdout, as_of=as_of)
    store.log_metrics(run_id, _metrics(comparison))
    document = {side: {model: p.to_json() for model, p in found.items()} for side, found in comparison.items()}
    store.put_json(run_id, COMPARISON_ARTIFACT, {"format_version": FORMAT_VERSION, **document})
    nights = values_between(holdout.first, holdout.last)
    keep_samples(deployment, {**champions, **versions}, versions, nights, run_id=run_id)


def sections(deployment: Deployment) -> tuple[Retrain, Labels]:
    """Return the sections that a training needs.

    Raises:
        ConfigurationError: the deployment lacks one.
    """
    if deployment.retrain is None or deployment.drift is None or deployment.drift.labels is None:
        raise ConfigurationError(
            f"deployment {deployment.name!r} cannot be trained", "sections 'retrain' and 'drift: labels'", "none"
        )
    return deployment.retrain, deployment.drift.labels


# ---------------------------------------------------------------------------------------------------- training


def _frame(deployment: Deployment, window: Period, *, as_of: str) -> pd.DataFrame:
    """Return the labelled rows of the training window with the columns of the graph's leading rules."""
    _, labels = sections(deployment)
    table = labelled_rows(deployment, window, as_of=as_of, limit=MAX_TRAINING_ROWS)
    if table.num_rows == 0:
        raise DataError(
            f"there is nothing to train {deployment.name!r} on",
            f"labelled rows from {window.first} to {window.last}",
            "none",
            f"Labels are read from {labels.path}.",
        )
    frame: pd.DataFrame = with_features(deployment, table, labels.column).to_pandas(date_as_object=False)
    return frame


def _call(deployment: Deployment, frame: pd.DataFrame, window: Period, run_id: str) -> Mapping[str, str]:
    """Call the deployment's training function within the MLflow run."""
    import mlflow

    retrain, labels = sections(deployment)
    given = TrainingWindow(frame, labels.column, window.first.isoformat(), window.last.isoformat(), SEED)
    with _function(deployment, retrain.train) as function, mlflow.start_run(run_id=run_id):
        try:
            uris: object = function(given)
        except ScoringError:
            raise
        except Exception as error:
            raise ContractError(
                f"{retrain.train!r} of {deployment.name!r} raised on {len(frame)} rows",
                got=cause(error),
            ) from error
    expected = set(names(deployment))
    if not isinstance(uris, Mapping) or not uris or not set(uris) <= expected:
        raise ContractError(
            f"{retrain.train!r} of {deployment.name!r} returned something else than its models",
            f"model URIs by name, among {listed(sorted(expected))}",
            listed(uris) if isinstance(uris, Mapping) else type(uris).__name__,
        )
    return uris


@contextlib.contextmanager
def _function(deployment: Deployment, reference: str) -> Iterator[TrainFunction]:
    """Import a deployment's training module from its file; its neighbours are importable meanwhile."""
    module, function = reference.split(":")
    name = f"scoring_deployments.{deployment.name}.{module}"
    spec = importlib.util.spec_from_file_location(name, deployment.source(module))
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{deployment.source(module)} cannot be imported")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    sys.path.insert(0, str(deployment.folder))
    try:
        spec.loader.exec_module(loaded)
        yield getattr(loaded, function)
    finally:
        sys.path.remove(str(deployment.folder))
        del sys.modules[name]


# -------------------------------------------------------------------------------------------------- comparison


def _compare(
    registry: Registry,
    deployment: Deployment,
    champions: Mapping[str, int],
    challengers: Mapping[str, int],
    *,
    holdout: Period,
    as_of: str,
) -> dict[str, dict[str, Performance]]:
    """Measure challengers and champions on the same labelled rows: `side -> graph or model -> performance`."""
    sides = {"challenger": {**champions, **challengers}}
    if len(champions) == len(names(deployment)):
        sides["champion"] = dict(champions)
    return {
        side: _evaluate(registry, deployment, holdout, versions=chosen, as_of=as_of) for side, chosen in sides.items()
    }


def check_holdout(versions: Iterable[tuple[str, int]], holdout: Period, *, who: str = "the champion") -> None:
    """Refuse hold-out nights that a version was trained on: it would know the answers.

    Raises:
        ConfigurationError: there is such a version.
    """
    for name, version in versions:
        learned = trained_on(name, version)
        if learned is not None and holdout.first <= learned.last and learned.first <= holdout.last:
            raise ConfigurationError(
                f"{who} of {name!r} (version {version}) learned from hold-out nights",
                f"nights outside {learned.first} to {learned.last}",
                f"{holdout.first} to {holdout.last}",
                "Choose later hold-out nights.",
            )


def trained_on(name: str, version: int) -> Period | None:
    """Return the nights that a version learned from; None if nobody recorded them."""
    run_id = Registry().version(name, str(version)).tags.get(TRAINING_RUN_TAG)
    tags = RunStore().get(run_id).tags if run_id else {}
    return Period(first=as_date(tags["first"]), last=as_date(tags["last"])) if "last" in tags else None


def _evaluate(
    registry: Registry, deployment: Deployment, holdout: Period, *, versions: Mapping[str, int], as_of: str
) -> dict[str, Performance]:
    """Return the performance of the whole graph and of each model alone."""
    _, labels = sections(deployment)
    models, files = registry.freeze(deployment, versions)
    rows = labelled_rows(
        deployment, holdout, as_of=as_of, limit=MAX_HOLDOUT_ROWS, models=readers(deployment.score, models)
    )
    if deployment.online is not None:
        # A champion that learns online has learned from the other rows of these nights.
        mask = keep_mask(rows, keys=deployment.input.keys, rate=deployment.online.holdout_share)
        rows = rows.filter(pa.array(mask))
    truth = rows.column(labels.column).to_numpy().astype(np.float64)
    scored, alone = run_graph(graph_source(deployment, models), rows.drop_columns([labels.column]), files=files)
    # A model with several outputs has no score of its own, nor has one that routes show some rows here, others there.
    routes = [step for step in walk(deployment.score) if isinstance(step, RouteStep)]
    routed = {model_name(s.model) for route in routes for s in walk(route) if isinstance(s, ModelStep)}
    measured = {name: scores for name, scores in alone.items() if scores.shape == truth.shape and name not in routed}
    return {
        name: measure(scores, truth, first=str(holdout.first), last=str(holdout.last), min_rows=MIN_HOLDOUT_ROWS)
        for name, scores in {GRAPH: scored.column(labels.output).to_numpy(), **measured}.items()
    }


def _metrics(comparison: Mapping[str, Mapping[str, Performance]]) -> dict[str, float]:
    """Return flat metrics: `challenger_roc_auc` of the graph, `challenger_roc_auc_<model>` of each model."""
    metrics = {"holdout_rows": float(comparison["challenger"][GRAPH].rows)}
    for side, performances in comparison.items():
        for name, performance in performances.items():
            suffix = "" if name == GRAPH else f"_{name}"
            for metric, value in (("roc_auc", performance.roc_auc), ("log_loss", performance.log_loss)):
                if value is not None:
                    metrics[f"{side}_{metric}{suffix}"] = value
    return metrics


def labelled_rows(
    deployment: Deployment, period: Period, *, as_of: str, limit: int, models: Sequence[FrozenModel] = ()
) -> pa.Table:
    """Return about `limit` labelled rows of a period, of labels that had arrived when `as_of` was the present.

    Args:
        deployment: whose input and labels are read.
        period: partitions.
        as_of: the present; empty: when all labels are due.
        limit: how many rows at most, about.
        models: whose signatures the rows must fit.
    """
    _, labels = sections(deployment)
    wanted = values_between(period.first, period.last)
    present = as_of or (period.last + timedelta(days=labels.delay_days)).isoformat()
    existing = existing_values(labels.path, deployment.input.partition)
    arrival = arrived_labels(existing, wanted, as_of=present, delay_days=labels.delay_days)
    rows = read_rows(deployment, wanted, models=models, limit=limit)
    return with_labels(rows, deployment, arrival.arrived)
