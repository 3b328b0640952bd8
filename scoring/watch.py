"""Drift and performance of a published night, and the decision that follows. Runs on the driver, after publication."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.data.partition import existing_values, values_between
from scoring.deployment import Deployment, Drift, Labels, Period
from scoring.errors import ConfigurationError
from scoring.graph.compile import graph_source
from scoring.local import read_rows, run_graph, with_labels
from scoring.monitoring.drift import Comparison, compare
from scoring.monitoring.performance import arrived_labels, measure
from scoring.monitoring.policy import decide
from scoring.monitoring.report import Decision, DecisionKind, DriftReport, Performance
from scoring.monitoring.window import as_date, current_partitions, latest_published, past_nights
from scoring.nightly import SAMPLE_ARTIFACT, staged_run
from scoring.registry import TRAINING_RUN_TAG, Registry, names
from scoring.runs import RunKind, RunRecord, RunState, RunStore

DRIFT_ARTIFACT: Final = "drift/report.json"
DRIFT_PAGE: Final = "drift/report.html"
EVIDENTLY_ARTIFACT: Final = "drift/evidently.json"
REFERENCE_ARTIFACT: Final = "reference.parquet"
BACKFILL: Final = "backfill"


@dataclass(frozen=True, slots=True)
class Watch:
    """What was seen in one night."""

    run_id: str
    drift: DriftReport
    performance: Performance | None
    decision: Decision


def watch(deployment: Deployment, value: str, *, dag_run_id: str | None = None) -> Watch | None:
    """Compare the current window that ends with a published partition with the reference, and decide.

    Returns:
        What was seen; None for a deployment without `drift`.

    Raises:
        ConfigurationError: the partition has no published run.
        ContractError: the partition is not a date.
        RegistryUnavailableError, StorageError: MLflow or the store does not answer.
    """
    if deployment.drift is None:
        return None
    store, registry = RunStore(), Registry()
    run = staged_run(store, deployment, value, dag_run_id)
    if run.state is not RunState.PUBLISHED:
        raise ConfigurationError(
            f"partition {value!r} of {deployment.name!r} is not published",
            "state 'published'",
            repr(str(run.state)),
            "Publish it first.",
        )
    published = latest_published(store.find(deployment.name, state=RunState.PUBLISHED))
    training = _training_run(store, registry, deployment)
    comparison = _drift(store, registry, deployment, deployment.drift, value, published, training)
    performance = _performance(store, deployment, deployment.drift, value, published, training)
    decision = decide(
        comparison.report,
        performance,
        past_nights(published.values(), before=value),
        drift=deployment.drift,
        retrain=deployment.retrain,
        last_retraining=max(
            (as_date(p) for p, r in published.items() if r.tags.get("decision") == DecisionKind.RETRAIN and p < value),
            default=None,
        ),
        partition=as_date(value),
        is_backfill=run.tags.get("trigger") == BACKFILL,
    )
    _record(store, run.run_id, comparison, performance, decision)
    return Watch(run.run_id, comparison.report, performance, decision)


def reference_window(drift: Drift, training: RunRecord | None) -> Period:
    """Return the period to compare with: the declared one, or the window of the retraining that made the champion.

    Without the latter a model that was retrained because the world had changed would be reported as drifting for ever.
    """
    if training is None or not training.partition:
        return drift.reference
    return Period(first=as_date(training.tags["first"]), last=as_date(training.tags["last"]))


def _drift(
    store: RunStore,
    registry: Registry,
    deployment: Deployment,
    drift: Drift,
    value: str,
    published: dict[str, RunRecord],
    training: RunRecord | None,
) -> Comparison:
    window = [partition for partition in current_partitions(value, drift.current_days) if partition in published]
    current = _samples(store, [published[partition] for partition in window])
    period = reference_window(drift, training)
    reference, outputs = _reference(store, registry, deployment, drift, period)
    keys = deployment.input.keys
    watched = drift.columns or tuple(
        name for name in reference.column_names if name not in keys and name != deployment.input.partition
    )
    return compare(
        reference,
        current,
        deployment=deployment.name,
        partition=value,
        current_partitions=window,
        columns=[name for name in watched if name in current.column_names or name in outputs],
        keys=keys,
        drift=drift.model_copy(update={"reference": period}),
    )


def _samples(store: RunStore, runs: Sequence[RunRecord]) -> pa.Table:
    contents = [store.read(run.run_id, SAMPLE_ARTIFACT) for run in runs]
    tables = [pq.read_table(io.BytesIO(content)) for content in contents if content is not None]
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


def _reference(
    store: RunStore, registry: Registry, deployment: Deployment, drift: Drift, period: Period
) -> tuple[pa.Table, list[str]]:
    """Return sampled rows of the reference window as the champions score them, computed once per graph and window."""
    models, files = registry.freeze(deployment)
    graph = graph_source(deployment, models)
    identity = {
        "graph_digest": graph.digest,
        "first": period.first.isoformat(),
        "last": period.last.isoformat(),
        "sample_rows": str(drift.sample_rows),
    }
    for known in store.find(deployment.name, kind=RunKind.REFERENCE, state=RunState.DONE, limit=1, **identity):
        content = store.read(known.run_id, REFERENCE_ARTIFACT)
        if content is not None:
            table = pq.read_table(io.BytesIO(content))
            return table, known.tags["outputs"].split(",")
    rows = read_rows(
        deployment, values_between(period.first, period.last), models=models.values(), limit=drift.sample_rows
    )
    scored, _ = run_graph(graph, rows, files=files)
    outputs = [name for name in scored.column_names if name not in rows.column_names]
    table = rows
    for name in outputs:
        table = table.append_column(name, scored.column(name))
    run_id = store.start(deployment.name, kind=RunKind.REFERENCE, tags={**identity, "outputs": ",".join(outputs)})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    store.put(run_id, REFERENCE_ARTIFACT, sink.getvalue())
    store.set_state(run_id, RunState.DONE)
    return table, outputs


def _performance(
    store: RunStore,
    deployment: Deployment,
    drift: Drift,
    value: str,
    published: dict[str, RunRecord],
    training: RunRecord | None,
) -> Performance | None:
    """Measure the newest published nights whose labels are due, as many as the current window has."""
    if drift.labels is None:
        return None
    labels = drift.labels
    newest = current_partitions(value, drift.current_days + labels.delay_days)[: drift.current_days]
    window = [partition for partition in newest if partition in published]
    existing = existing_values(labels.path, deployment.input.partition)
    arrival = arrived_labels(existing, window, as_of=value, delay_days=labels.delay_days)
    first, last = newest[0], newest[-1]
    if not arrival.arrived:
        reason = arrival.reason or f"no night from {first} to {last} was published, so there is nothing to compare"
        return Performance(0, first, last, skipped=reason)
    sample = _samples(store, [published[partition] for partition in arrival.arrived])
    return _measured(deployment, labels, sample, arrival.arrived, training, drift.min_rows)


def _measured(
    deployment: Deployment,
    labels: Labels,
    sample: pa.Table,
    partitions: Sequence[str],
    training: RunRecord | None,
    min_rows: int,
) -> Performance:
    labelled = with_labels(sample, deployment, partitions)
    return measure(
        labelled.column(labels.output).to_numpy(),
        labelled.column(labels.column).to_numpy(),
        first=min(partitions),
        last=max(partitions),
        baseline_roc_auc=training.metrics.get("challenger_roc_auc") if training else None,
        min_rows=min_rows,
    )


def _training_run(store: RunStore, registry: Registry, deployment: Deployment) -> RunRecord | None:
    """Return the training that made the champion of the deployment's first model; None if we did not train it."""
    step = deployment.model_steps[0] if deployment.model_steps else None
    if step is None:
        return None
    name = names(deployment)[0]
    version = registry.version(name, step.model.removeprefix(f"models:/{name}").lstrip("/"))
    run_id = version.tags.get(TRAINING_RUN_TAG)
    return store.get(run_id) if run_id else None


def _record(
    store: RunStore, run_id: str, comparison: Comparison, performance: Performance | None, decision: Decision
) -> None:
    if comparison.html is not None:
        store.put(run_id, DRIFT_PAGE, comparison.html)
        store.put_json(run_id, EVIDENTLY_ARTIFACT, comparison.evidently)
    store.put_json(
        run_id,
        DRIFT_ARTIFACT,
        {
            "drift": comparison.report.to_json(),
            "performance": performance.to_json() if performance else None,
            "decision": decision.to_json(),
        },
    )
    share = comparison.report.share_of_drifted_columns
    store.set_tags(
        run_id,
        {
            "decision": decision.kind,
            "decision_reasons": "; ".join(decision.reasons)[:5000],
            "share_of_drifted_columns": "" if share is None else str(share),
        },
    )
    measured = {
        "roc_auc": performance.roc_auc if performance else None,
        "log_loss": performance.log_loss if performance else None,
        "baseline_roc_auc": performance.baseline_roc_auc if performance else None,
        "share_of_drifted_columns": share,
    }
    store.log_metrics(run_id, {name: number for name, number in measured.items() if number is not None})
