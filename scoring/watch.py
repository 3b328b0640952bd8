"""Drift and performance of a published night, and the decision that follows. Runs on the driver, after publication."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.data.partition import existing_values, values_between
from scoring.deployment import Deployment, Drift, Period
from scoring.errors import ConfigurationError
from scoring.graph.compile import graph_source, output_columns
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
    store = RunStore()
    run = staged_run(store, deployment, value, dag_run_id)
    if run.state is not RunState.PUBLISHED:
        raise ConfigurationError(
            f"partition {value!r} of {deployment.name!r} is not published",
            "state 'published'",
            repr(str(run.state)),
            "Publish it first.",
        )
    registry = Registry()
    watcher = _Watcher(
        deployment=deployment,
        drift=deployment.drift,
        value=value,
        store=store,
        registry=registry,
        published=latest_published(store.find(deployment.name, state=RunState.PUBLISHED)),
        training=_training_run(store, registry, deployment),
    )
    comparison, performance = watcher.comparison(), watcher.performance()
    decision = watcher.decision(comparison.report, performance, is_backfill=run.tags.get("trigger") == BACKFILL)
    _record(store, run.run_id, comparison, performance, decision)
    return Watch(run.run_id, comparison.report, performance, decision)


def reference_window(drift: Drift, training: RunRecord | None) -> Period:
    """Return the period to compare with: the declared one, or the window of the retraining that made the champion.

    Without the latter a model that was retrained because the world had changed would be reported as drifting for ever.
    """
    if training is None or not training.partition:
        return drift.reference
    return Period(first=as_date(training.tags["first"]), last=as_date(training.tags["last"]))


@dataclass(frozen=True, slots=True)
class _Watcher:
    """One night and all that is known around it."""

    deployment: Deployment
    drift: Drift
    value: str
    store: RunStore
    registry: Registry
    published: dict[str, RunRecord]
    """Newest published run by partition."""
    training: RunRecord | None
    """The training that made the champion."""

    def comparison(self) -> Comparison:
        """Compare the current window with the reference window."""
        wanted = current_partitions(self.value, self.drift.current_days)
        window = [partition for partition in wanted if partition in self.published]
        period = reference_window(self.drift, self.training)
        reference, outputs = self._reference(period)
        current = self._samples(window)
        keys, partition = self.deployment.input.keys, self.deployment.input.partition
        watched = self.drift.columns or [n for n in reference.column_names if n not in (*keys, partition)]
        return compare(
            reference,
            current,
            deployment=self.deployment.name,
            partition=self.value,
            current_partitions=window,
            columns=[name for name in watched if name in current.column_names or name in outputs],
            keys=keys,
            drift=self.drift.model_copy(update={"reference": period}),
        )

    def performance(self) -> Performance | None:
        """Measure the newest published nights whose labels are due, as many as the current window has."""
        labels = self.drift.labels
        if labels is None:
            return None
        days = self.drift.current_days
        newest = current_partitions(self.value, days + labels.delay_days)[:days]
        window = [partition for partition in newest if partition in self.published]
        existing = existing_values(labels.path, self.deployment.input.partition)
        arrival = arrived_labels(existing, window, as_of=self.value, delay_days=labels.delay_days)
        if not arrival.arrived:
            none = f"no night from {newest[0]} to {newest[-1]} was published, so there is nothing to compare"
            return Performance(0, newest[0], newest[-1], skipped=arrival.reason or none)
        labelled = with_labels(self._samples(arrival.arrived), self.deployment, arrival.arrived)
        return measure(
            labelled.column(labels.output).to_numpy(),
            labelled.column(labels.column).to_numpy(),
            first=arrival.arrived[0],
            last=arrival.arrived[-1],
            baseline_roc_auc=self.training.metrics.get("challenger_roc_auc") if self.training else None,
            min_rows=self.drift.min_rows,
        )

    def decision(self, report: DriftReport, performance: Performance | None, *, is_backfill: bool) -> Decision:
        """Decide from tonight and the nights before."""
        retrained = [
            as_date(partition)
            for partition, run in self.published.items()
            if run.tags.get("decision") == DecisionKind.RETRAIN and partition < self.value
        ]
        return decide(
            report,
            performance,
            past_nights(self.published.values(), before=self.value),
            drift=self.drift,
            retrain=self.deployment.retrain,
            last_retraining=max(retrained, default=None),
            partition=as_date(self.value),
            is_backfill=is_backfill,
        )

    def _samples(self, partitions: Sequence[str]) -> pa.Table:
        contents = (self.store.read(self.published[p].run_id, SAMPLE_ARTIFACT) for p in partitions)
        tables = [pq.read_table(io.BytesIO(content)) for content in contents if content is not None]
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})

    def _reference(self, period: Period) -> tuple[pa.Table, list[str]]:
        """Return sampled rows of the reference window as the champions score them, and the names of the outputs.

        Computed once per graph and window, then kept as a run of its own.
        """
        models, files = self.registry.freeze(self.deployment)
        graph = graph_source(self.deployment, models)
        identity = {
            "graph_digest": graph.digest,
            "first": period.first.isoformat(),
            "last": period.last.isoformat(),
            "sample_rows": str(self.drift.sample_rows),
        }
        name = self.deployment.name
        for known in self.store.find(name, kind=RunKind.REFERENCE, state=RunState.DONE, limit=1, **identity):
            content = self.store.read(known.run_id, REFERENCE_ARTIFACT)
            if content is not None:
                return pq.read_table(io.BytesIO(content)), json.loads(known.tags["outputs"])
        nights = values_between(period.first, period.last)
        rows = read_rows(self.deployment, nights, models=models.values(), limit=self.drift.sample_rows)
        scored, _ = run_graph(graph, rows, files=files)
        outputs = [column for column in output_columns(graph, rows.schema) if column in scored.column_names]
        for column in outputs:
            rows = rows.append_column(column, scored.column(column))
        run_id = self.store.start(name, kind=RunKind.REFERENCE, tags={**identity, "outputs": json.dumps(outputs)})
        sink = io.BytesIO()
        pq.write_table(rows, sink)
        self.store.put(run_id, REFERENCE_ARTIFACT, sink.getvalue())
        self.store.set_state(run_id, RunState.DONE)
        return rows, outputs


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
            "decision_reasons": "\n".join(decision.reasons)[:5000],
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
