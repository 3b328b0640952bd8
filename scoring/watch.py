"""Drift and performance of a published night, and the decision that follows. Runs on the driver, after publication."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.data.partition import existing_values, values_between
from scoring.deployment import Deployment, Drift, Period
from scoring.errors import ConfigurationError
from scoring.graph.compile import GraphSource, graph_source, output_columns, without_members
from scoring.local import read_rows, run_graph, with_labels
from scoring.models.base import FrozenModel
from scoring.monitoring.drift import Comparison, compare
from scoring.monitoring.performance import arrived_labels, measure
from scoring.monitoring.policy import MAX_GAP_DAYS, decide
from scoring.monitoring.report import Decision, DecisionKind, DriftReport, Performance
from scoring.monitoring.window import as_date, current_partitions, latest_published, past_nights
from scoring.nightly import DROPPED_TAG, PLAN_ARTIFACT, SAMPLE_ARTIFACT, scored_run
from scoring.registry import TRAINING_RUN_TAG, Registry, names
from scoring.runs import BACKFILL, RunKind, RunRecord, RunState, RunStore, recorded

DRIFT_ARTIFACT: Final = "drift/report.json"
DRIFT_PAGE: Final = "drift/report.html"
EVIDENTLY_ARTIFACT: Final = "drift/evidently.json"
REFERENCE_ARTIFACT: Final = "reference.parquet"


@dataclass(frozen=True, slots=True)
class Watch:
    """What was seen in one night."""

    run_id: str
    drift: DriftReport
    performance: Performance | None
    decision: Decision


def watch(
    deployment: Deployment, value: str, *, dag_run_id: str | None = None, run_id: str | None = None
) -> Watch | None:
    """Compare the current window that ends with a published partition with the reference, and decide.

    A night is judged by the model versions that scored it, whatever the champions are now.

    Args:
        deployment: what is watched, and how.
        value: the partition.
        dag_run_id: Airflow's; None: of any.
        run_id: which run; None: the newest that was published.

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
    newest = None if dag_run_id or run_id else RunState.PUBLISHED
    run = scored_run(store, deployment, value, dag_run_id=dag_run_id, run_id=run_id, state=newest)
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
        run=run,
        store=store,
        registry=registry,
        published=_published(store, deployment, deployment.drift, value),
        training=_training_run(store, registry, deployment, run),
    )
    comparison, performance = watcher.comparison(), watcher.performance()
    decision = watcher.decision(comparison.report, performance)
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
    run: RunRecord
    store: RunStore
    registry: Registry
    published: dict[str, RunRecord]
    """Newest published run by partition, as far back as this night looks."""
    training: RunRecord | None
    """The training that made the models of the run."""

    @property
    def value(self) -> str:
        """The partition."""
        return self.run.partition

    def comparison(self) -> Comparison:
        """Compare the current window with the reference window."""
        wanted = current_partitions(self.value, self.drift.current_days)
        window = [partition for partition in wanted if partition in self.published]
        period = reference_window(self.drift, self.training)
        reference = self._reference(period)
        keys, partition = self.deployment.input.keys, self.deployment.input.partition
        watched = self.drift.columns or [n for n in reference.column_names if n not in (*keys, partition)]
        return compare(
            reference,
            self._samples(window),
            deployment=self.deployment.name,
            partition=self.value,
            current_partitions=window,
            columns=watched,
            keys=keys,
            drift=self.drift.model_copy(update={"reference": period}),
        )

    def performance(self) -> Performance | None:
        """Measure the newest nights that these model versions scored and whose labels are due."""
        labels = self.drift.labels
        if labels is None:
            return None
        days = self.drift.current_days
        newest = current_partitions(self.value, days + labels.delay_days)[:days]
        published = [partition for partition in newest if partition in self.published]
        window = [partition for partition in published if self._is_ours(self.published[partition])]
        existing = existing_values(labels.path, self.deployment.input.partition)
        arrival = arrived_labels(existing, window, as_of=self.value, delay_days=labels.delay_days)
        if not arrival.arrived:
            by = "scored by these model versions" if published else "published"
            none = f"no night from {newest[0]} to {newest[-1]} was {by}, so there is nothing to compare"
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

    def decision(self, report: DriftReport, performance: Performance | None) -> Decision:
        """Decide from tonight and the nights before."""
        return decide(
            report,
            performance,
            past_nights(self.published.values(), before=self.value),
            drift=self.drift,
            retrain=self.deployment.retrain,
            last_retraining=max(map(as_date, self._retrainings()), default=None),
            partition=as_date(self.value),
            is_backfill=self.run.tags.get("trigger") == BACKFILL,
        )

    def _retrainings(self) -> Iterator[str]:
        """Yield the partitions, up to this one, whose decision has started a training that did not fail."""
        trainings = self.store.find(self.deployment.name, kind=RunKind.TRAIN)
        failed = {training.partition for training in trainings if training.state is RunState.FAILED}
        for training in trainings:
            if training.partition and training.state is not RunState.FAILED and training.partition <= self.value:
                yield training.partition
        for partition, run in self.published.items():
            # Airflow was told, and will start it: its record may not be there yet when the next night is judged.
            is_told = run.tags.get("decision") == DecisionKind.RETRAIN and "dag_run_id" in run.tags
            if is_told and partition < self.value and partition not in failed:
                yield partition

    def _is_ours(self, run: RunRecord) -> bool:
        is_whole = run.tags.get(DROPPED_TAG, "") == self.run.tags.get(DROPPED_TAG, "")
        return is_whole and run.model_versions == self.run.model_versions

    def _samples(self, partitions: Sequence[str]) -> pa.Table:
        """Return the sampled rows of nights; those that other model versions scored are scored anew by ours."""
        tables = []
        for run in (self.published[partition] for partition in partitions):
            content = self.store.read(run.run_id, SAMPLE_ARTIFACT)
            if content is not None:
                table = pq.read_table(io.BytesIO(content))
                tables.append(table if self._is_ours(run) else self._scored(table.select(self._features(table))))
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})

    def _features(self, sample: pa.Table) -> list[str]:
        plan = self.store.read_json(self.run.run_id, PLAN_ARTIFACT)
        return [name for name in sample.column_names if name in plan["features"]]

    def _scored(self, rows: pa.Table) -> pa.Table:
        """Return rows with the outputs that the run's model versions give them."""
        models, files = self.registry.freeze(self.deployment, self.run.model_versions)
        graph = self._graph(models)
        scored, _ = run_graph(graph, rows, files=files)
        for column in output_columns(graph, rows.schema):
            rows = rows.append_column(column, scored.column(column))
        return rows

    def _graph(self, models: Mapping[str, FrozenModel]) -> GraphSource:
        """Return the graph that scored the night: without the members that its run did without."""
        graph = graph_source(self.deployment, models)
        plan = self.store.read_json(self.run.run_id, PLAN_ARTIFACT)
        return without_members(graph, plan.get("dropped", {})) or graph

    def _reference(self, period: Period) -> pa.Table:
        """Return sampled rows of the reference window, scored like the night.

        Computed once per graph and window, then kept as a run of its own.
        """
        plan = self.store.read_json(self.run.run_id, PLAN_ARTIFACT)
        identity = {
            "graph_digest": plan["graph_digest"],
            "first": period.first.isoformat(),
            "last": period.last.isoformat(),
            "sample_rows": str(self.drift.sample_rows),
        }
        name = self.deployment.name
        for known in self.store.find(name, kind=RunKind.REFERENCE, state=RunState.DONE, limit=1, **identity):
            content = self.store.read(known.run_id, REFERENCE_ARTIFACT)
            if content is not None:
                return pq.read_table(io.BytesIO(content))
        nights = values_between(period.first, period.last)
        rows = self._scored(read_rows(self.deployment, nights, limit=self.drift.sample_rows))
        run_id = self.store.start(name, kind=RunKind.REFERENCE, tags=identity)
        with recorded(self.store, run_id):
            sink = io.BytesIO()
            pq.write_table(rows, sink)
            self.store.put(run_id, REFERENCE_ARTIFACT, sink.getvalue())
            self.store.set_state(run_id, RunState.DONE)
        return rows


def _published(store: RunStore, deployment: Deployment, drift: Drift, value: str) -> dict[str, RunRecord]:
    """Return the newest published run of each partition that a night's window, history or cooldown can reach."""
    window = drift.current_days + (drift.labels.delay_days if drift.labels else 0)
    cooldown = deployment.retrain.cooldown_days if deployment.retrain else 0
    days = max(window, cooldown + 1, drift.retrain_after * MAX_GAP_DAYS)
    oldest = (as_date(value) - timedelta(days=days)).isoformat()
    return latest_published(takewhile(lambda run: run.partition >= oldest, store.by_partition(deployment.name)))


def _training_run(store: RunStore, registry: Registry, deployment: Deployment, run: RunRecord) -> RunRecord | None:
    """Return the training that made the first model of a run; None if we did not train it."""
    for name in names(deployment)[:1]:
        run_id = registry.version(name, str(run.model_versions[name])).tags.get(TRAINING_RUN_TAG)
        return store.get(run_id) if run_id else None
    return None


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
