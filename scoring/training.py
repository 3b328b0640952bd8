"""Training, comparing challenger and champion, promotion and roll-back. Runs on the driver."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from scoring.data.partition import existing_values, values_between
from scoring.deployment import Deployment, Labels, Period, Retrain
from scoring.errors import ConfigurationError, ContractError, DataError, ScoringError, listed
from scoring.graph.compile import graph_source, leading_rules
from scoring.local import read_rows, run_graph, with_labels
from scoring.monitoring.performance import arrived_labels, measure
from scoring.monitoring.report import Performance
from scoring.monitoring.window import as_date
from scoring.nightly import recorded
from scoring.registry import CHALLENGER, CHAMPION, Registry, names
from scoring.runs import RunKind, RunRecord, RunState, RunStore

if TYPE_CHECKING:
    import pandas as pd

SEED: Final = 20130101
MAX_TRAINING_ROWS: Final = 2_000_000
MAX_HOLDOUT_ROWS: Final = 200_000
MIN_HOLDOUT_ROWS: Final = 100
COMPARISON_ARTIFACT: Final = "comparison.json"
PROMOTION_ARTIFACT: Final = "promotion.json"


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


@dataclass(frozen=True, slots=True)
class Promotion:
    """Champions that were replaced, or why none was."""

    is_promoted: bool
    replaced: Mapping[str, tuple[int | None, int]]
    """Registered model to (champion before, champion now)."""
    reason: str


def windows(deployment: Deployment, as_of: str) -> tuple[Period, Period]:
    """Return the training window and the hold-out nights for a retraining that a partition has started.

    The hold-out nights are the newest whose labels are due; the training window ends where they begin.
    """
    retrain, labels = _sections(deployment)
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
        The record of the training run; `redeploy` takes its `run_id`.

    Raises:
        ConfigurationError: the windows overlap, or the deployment does not say how to train.
        DataError: there are no labelled rows.
        ContractError: the training function failed or returned something else than model URIs.
    """
    _sections(deployment)
    if not (window.last < holdout.first or holdout.last < window.first):
        raise ConfigurationError(
            "the hold-out nights lie in the training window",
            "separate periods",
            f"{window.first} to {window.last} and {holdout.first} to {holdout.last}",
        )
    store, registry = RunStore(), Registry()
    tags = {
        **{"first": window.first.isoformat(), "last": window.last.isoformat()},
        **{"holdout_first": holdout.first.isoformat(), "holdout_last": holdout.last.isoformat()},
    }
    run_id = store.start(deployment.name, as_of, kind=RunKind.TRAIN, tags=tags)
    with recorded(store, run_id):
        uris = _train(deployment, window, run_id, as_of=as_of)
        versions = {
            name: registry.register(name, uri, training_run_id=run_id, alias=CHALLENGER) for name, uri in uris.items()
        }
        store.set_tags(run_id, {"model_versions": json.dumps(versions)})
        _compare(store, registry, deployment, run_id, versions, holdout, as_of=as_of)
        store.set_state(run_id, RunState.DONE)
    return store.get(run_id)


def redeploy(deployment: Deployment, training_run_id: str | None = None, *, is_forced: bool = False) -> Promotion:
    """Promote the challengers of a training if they win, and record what they replaced.

    Args:
        deployment: whose champions are replaced.
        training_run_id: of the training; None: the newest that succeeded.
        is_forced: promote also a challenger that did not win.

    Raises:
        ConfigurationError: there is no such training.
    """
    store, registry = RunStore(), Registry()
    training = store.get(training_run_id) if training_run_id else _newest_training(store, deployment)
    retrain, _ = _sections(deployment)
    wins, reason = verdict(training.metrics, retrain.min_gain)
    replaced = {
        name: (registry.aliased(name, CHAMPION), version) for name, version in training.model_versions.items()
    }
    if all(before == now for before, now in replaced.values()):
        return Promotion(False, {}, "the challengers of this training are the champions already")
    if not (wins or is_forced):
        return Promotion(False, {}, reason)
    reason = reason if wins else f"by hand, although {reason}"
    return _move(store, registry, deployment, replaced, reason, training.run_id)


def promote_version(deployment: Deployment, versions: Mapping[str, int]) -> Promotion:
    """Make given versions champions, and record what they replaced.

    Raises:
        ConfigurationError: a model is not part of the deployment, or a version does not exist.
    """
    store, registry = RunStore(), Registry()
    unknown = sorted(set(versions) - set(names(deployment)))
    if unknown:
        raise ConfigurationError(
            f"deployment {deployment.name!r} does not use {listed(unknown)}", f"one of {listed(names(deployment))}"
        )
    for name, version in versions.items():
        registry.version(name, str(version))
    replaced = {name: (registry.aliased(name, CHAMPION), version) for name, version in versions.items()}
    return _move(store, registry, deployment, replaced, "by hand", "")


def rollback(deployment: Deployment) -> Promotion:
    """Move the champions back to what the last promotion replaced.

    Raises:
        ConfigurationError: there is no promotion to roll back, or it replaced nothing.
    """
    store, registry = RunStore(), Registry()
    promotions = [
        run for run in store.find(deployment.name, kind=RunKind.PROMOTE, state=RunState.DONE) if "undone" not in run.tags
    ]
    if not promotions:
        raise ConfigurationError(f"deployment {deployment.name!r} has no promotion to roll back")
    document = store.read_json(promotions[0].run_id, PROMOTION_ARTIFACT)
    before = {name: entry["from"] for name, entry in document["replaced"].items()}
    first = sorted(name for name, version in before.items() if version is None)
    if first:
        raise ConfigurationError(
            f"the last promotion of {deployment.name!r} cannot be rolled back",
            "champions before it",
            f"none of {listed(first)}",
            "Promote another version: scoring promote NAME --version MODEL=N.",
        )
    replaced = {name: (registry.aliased(name, CHAMPION), version) for name, version in before.items()}
    run_id = store.start(deployment.name, kind=RunKind.ROLLBACK, tags={"promotion_run_id": promotions[0].run_id})
    with recorded(store, run_id):
        for name, version in before.items():
            registry.set_alias(name, CHAMPION, version)
        store.put_json(run_id, PROMOTION_ARTIFACT, _replaced_json(replaced, "rolled back"))
        store.set_tags(promotions[0].run_id, {"undone": run_id})
        store.set_state(run_id, RunState.DONE)
    return Promotion(True, replaced, f"rolled back the promotion of {promotions[0].started:%Y-%m-%d %H:%M} UTC")


def verdict(metrics: Mapping[str, float], min_gain: float) -> tuple[bool, str]:
    """Return whether the challenger wins, and why, from a training run's metrics. Pure."""
    challenger, champion = metrics.get("challenger_roc_auc"), metrics.get("champion_roc_auc")
    if challenger is None:
        return False, "the challenger could not be measured on the hold-out nights"
    if champion is None:
        return True, f"there was no champion; the challenger has ROC-AUC {challenger:.4f} on the hold-out nights"
    gain = challenger - champion
    sentence = f"ROC-AUC {challenger:.4f} of the challenger against {champion:.4f} of the champion on the hold-out nights"
    if gain > 0 and gain >= min_gain:
        return True, sentence
    return False, f"{sentence} (needed gain: {min_gain:g})" if min_gain else sentence


def _move(
    store: RunStore,
    registry: Registry,
    deployment: Deployment,
    replaced: Mapping[str, tuple[int | None, int]],
    reason: str,
    training_run_id: str,
) -> Promotion:
    run_id = store.start(deployment.name, kind=RunKind.PROMOTE, tags={"training_run_id": training_run_id})
    with recorded(store, run_id):
        # Recorded before it is done: a promotion that dies half-way can still be rolled back.
        store.put_json(run_id, PROMOTION_ARTIFACT, _replaced_json(replaced, reason))
        for name, (_, version) in replaced.items():
            registry.set_alias(name, CHAMPION, version)
        store.set_tags(run_id, {"reason": reason})
        store.set_state(run_id, RunState.DONE)
    return Promotion(True, replaced, reason)


def _replaced_json(replaced: Mapping[str, tuple[int | None, int]], reason: str) -> dict[str, Any]:
    changes = {name: {"from": before, "to": now} for name, (before, now) in replaced.items()}
    return {"format_version": 1, "reason": reason, "replaced": changes}


def _sections(deployment: Deployment) -> tuple[Retrain, Labels]:
    if deployment.retrain is None or deployment.drift is None or deployment.drift.labels is None:
        raise ConfigurationError(
            f"deployment {deployment.name!r} cannot be trained", "sections 'retrain' and 'drift: labels'", "none"
        )
    return deployment.retrain, deployment.drift.labels


def _newest_training(store: RunStore, deployment: Deployment) -> RunRecord:
    runs = store.find(deployment.name, kind=RunKind.TRAIN, state=RunState.DONE, limit=1)
    if not runs:
        raise ConfigurationError(
            f"deployment {deployment.name!r} has no finished training", hint=f"Run: scoring train {deployment.name}."
        )
    return runs[0]


def _labelled(
    deployment: Deployment, period: Period, *, as_of: str, limit: int, models: Any = ()
) -> pa.Table:
    """Return labelled rows of a period whose labels had arrived when `as_of` was the present."""
    _, labels = _sections(deployment)
    wanted = values_between(period.first, period.last)
    present = as_of or (period.last + timedelta(days=labels.delay_days)).isoformat()
    existing = existing_values(labels.path, deployment.input.partition)
    arrival = arrived_labels(existing, wanted, as_of=present, delay_days=labels.delay_days)
    rows = read_rows(deployment, wanted, models=models, limit=limit)
    return with_labels(rows, deployment, arrival.arrived)


def _train(deployment: Deployment, window: Period, run_id: str, *, as_of: str) -> Mapping[str, str]:
    import mlflow

    retrain, labels = _sections(deployment)
    table = _labelled(deployment, window, as_of=as_of, limit=MAX_TRAINING_ROWS)
    if table.num_rows == 0:
        raise DataError(f"no labelled rows from {window.first} to {window.last}", "at least one", "none")
    rules = leading_rules(graph_source(deployment, {}))
    if rules is not None:
        target = table.column(labels.column)
        table, _ = run_graph(rules, table.drop_columns([labels.column]), files={})
        table = table.append_column(labels.column, target)
    training = TrainingWindow(
        table.to_pandas(date_as_object=False), labels.column, str(window.first), str(window.last), SEED
    )
    with _function(deployment, retrain.train) as function, mlflow.start_run(run_id=run_id):
        try:
            uris = function(training)
        except ScoringError:
            raise
        except Exception as error:
            raise ContractError(
                f"{retrain.train!r} of {deployment.name!r} raised on {table.num_rows} rows",
                got=f"{type(error).__name__}: {error}",
            ) from error
    expected = set(names(deployment))
    if not isinstance(uris, Mapping) or not set(uris) <= expected or not uris:
        raise ContractError(
            f"{retrain.train!r} of {deployment.name!r} returned something else than its models",
            f"model URIs by name, among {listed(sorted(expected))}",
            listed(sorted(uris)) if isinstance(uris, Mapping) else type(uris).__name__,
        )
    return uris


@contextlib.contextmanager
def _function(deployment: Deployment, reference: str) -> Iterator[TrainFunction]:
    """Import a deployment's training module from its file, with the folder importable meanwhile."""
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


def _compare(
    store: RunStore,
    registry: Registry,
    deployment: Deployment,
    run_id: str,
    versions: Mapping[str, int],
    holdout: Period,
    *,
    as_of: str,
) -> None:
    """Measure challengers and champions on the same labelled rows, whole graphs and single models."""
    measured = {"challenger": _evaluate(registry, deployment, holdout, {**_champions(registry, deployment), **versions}, as_of)}
    champions = _champions(registry, deployment)
    if len(champions) == len(names(deployment)):
        measured["champion"] = _evaluate(registry, deployment, holdout, champions, as_of)
    metrics = {"holdout_rows": float(measured["challenger"][""].rows)}
    for who, performances in measured.items():
        for model, performance in performances.items():
            suffix = f"_{model}" if model else ""
            for metric, value in (("roc_auc", performance.roc_auc), ("log_loss", performance.log_loss)):
                if value is not None:
                    metrics[f"{who}_{metric}{suffix}"] = value
    store.log_metrics(run_id, metrics)
    document = {who: {model or "graph": p.to_json() for model, p in found.items()} for who, found in measured.items()}
    store.put_json(run_id, COMPARISON_ARTIFACT, {"format_version": 1, **document})


def _champions(registry: Registry, deployment: Deployment) -> dict[str, int]:
    found = {name: registry.aliased(name, CHAMPION) for name in names(deployment)}
    return {name: version for name, version in found.items() if version is not None}


def _evaluate(
    registry: Registry, deployment: Deployment, holdout: Period, versions: Mapping[str, int], as_of: str
) -> dict[str, Performance]:
    """Return the performance of the whole graph (under the name '') and of each model alone."""
    _, labels = _sections(deployment)
    models, files = registry.freeze(deployment, versions)
    rows = _labelled(deployment, holdout, as_of=as_of, limit=MAX_HOLDOUT_ROWS, models=models.values())
    truth = rows.column(labels.column).to_numpy().astype(np.float64)
    scored, alone = run_graph(graph_source(deployment, models), rows.drop_columns([labels.column]), files=files)
    scores = {"": scored.column(labels.output).to_numpy(), **alone}
    period = {"first": str(holdout.first), "last": str(holdout.last)}
    return {name: measure(values, truth, min_rows=MIN_HOLDOUT_ROWS, **period) for name, values in scores.items()}
