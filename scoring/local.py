"""Runs a graph in this process over a bounded number of rows: reference windows, training frames, challengers.

Nightly partitions are scored by `scoring.scorer` on Spark; both run the same contract and the same compiled graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.batch import Batch
from scoring.data.contract import contract_of
from scoring.data.partition import INT96_UNIT, Partition, existing_values, list_files, list_partition
from scoring.data.storage import is_damage, open_storage, storage_errors
from scoring.deployment import Deployment, Labels, ModelStep
from scoring.errors import ConfigurationError, ContractError, DataError, PartitionMissingError, cause, listed
from scoring.graph.compile import GraphSource, compile_graph, graph_source, leading_rules
from scoring.graph.step import Step
from scoring.models.base import Files, FrozenModel, Predictor
from scoring.models.cache import PREDICTORS
from scoring.monitoring.sampling import keep_mask, rate_for

ORDER: Final = "__row"
"""Column that remembers the order of rows while they are joined."""


def read_rows(
    deployment: Deployment, values: Iterable[str], *, models: Iterable[FrozenModel] = (), limit: int
) -> pa.Table:
    """Return about `limit` rows of the partitions that exist among `values`, chosen by a hash of their keys.

    Rows that break the input contract are left out, as in scoring. Columns are those that the graph is given.

    Raises:
        PartitionMissingError: none of the partitions exists.
        ContractError, DataError, StorageError: as in scoring.
    """
    source = deployment.input
    wanted = sorted(set(values))
    existing = set(existing_values(source.location, source.partition))
    partitions = [list_partition(source, value) for value in wanted if value in existing]
    if not partitions:
        raise PartitionMissingError(
            f"no partition of {deployment.name!r} between {wanted[0]} and {wanted[-1]} exists",
            f"Parquet files in {source.location}",
            "none",
        )
    rate = rate_for(sum(partition.rows for partition in partitions), limit)
    frozen = tuple(models)
    return pa.concat_tables(_rows(deployment, partition, frozen, rate) for partition in partitions)


def _rows(deployment: Deployment, partition: Partition, models: Sequence[FrozenModel], rate: float) -> pa.Table:
    contract = contract_of(deployment.input, partition, models)
    contract.check_files(partition)
    filesystem, _ = open_storage(deployment.input.location)
    tables = []
    for file in partition.files:
        with storage_errors(file.path), filesystem.open_input_file(file.path) as handle:
            raw = pq.read_table(
                handle, columns=[column.name for column in contract.columns], coerce_int96_timestamp_unit=INT96_UNIT
            )
        table, _ = contract.apply(raw)
        tables.append(table.filter(pa.array(keep_mask(table, keys=deployment.input.keys, rate=rate))))
    rows = pa.concat_tables(tables)
    if partition.column in rows.column_names:
        return rows
    return rows.append_column(partition.column, pa.repeat(partition.value, rows.num_rows))


def run_graph(
    graph: GraphSource, table: pa.Table, *, files: Mapping[str, Files]
) -> tuple[pa.Table, dict[str, npt.NDArray[Any]]]:
    """Return the table after the graph, and what each model predicted on its own, by registered model name."""
    result, calls = record_graph(graph, table, files=files)
    return result, {name: np.concatenate(call.predictions) for name, call in calls.items() if call.predictions}


def record_graph(
    graph: GraphSource, table: pa.Table, *, files: Mapping[str, Files]
) -> tuple[pa.Table, dict[str, ModelCalls]]:
    """Return the table after the graph, and what each model was given and predicted, by registered model name."""
    calls: dict[str, ModelCalls] = {}

    def predictors(model: FrozenModel, step: ModelStep) -> Predictor:
        return _Recorder(_predictor(model, step, files), calls.setdefault(model.name, ModelCalls(model, step)))

    return compile_graph(graph, predictors).run(Batch(table)).table, calls


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """What one model was given and what it predicted, batch by batch."""

    model: FrozenModel
    step: ModelStep
    """The first step that used it."""
    tables: list[pa.Table] = field(default_factory=list)
    predictions: list[npt.NDArray[Any]] = field(default_factory=list)


def with_features(deployment: Deployment, labelled: pa.Table, label: str) -> pa.Table:
    """Return labelled rows with the columns of the graph's leading rules, which never see the label."""
    rules = leading_rules(graph_source(deployment, {}))
    if rules is None:
        return labelled
    table, _ = run_graph(rules, labelled.drop_columns([label]), files={})
    return table.append_column(label, labelled.column(label))


def step_output(graph: GraphSource, table: pa.Table, path: str, *, files: Mapping[str, Files]) -> pa.Table | None:
    """Return the rows that reach the step at `path`, as they leave it; None if none does."""
    seen: list[pa.Table] = []

    def looking(at: str, step: Step) -> Step:
        return _Watched(step, seen) if at == path else step

    compile_graph(graph, lambda model, step: _predictor(model, step, files), wrap=looking).run(Batch(table))
    return seen[0] if seen else None


def _predictor(model: FrozenModel, step: ModelStep, files: Mapping[str, Files]) -> Predictor:
    return PREDICTORS.get(
        model,
        files[model.digest],
        method=step.method,
        precision=step.precision,
        compile=step.compile,
        outputs=len(step.names),
    )


@dataclass(frozen=True, slots=True)
class _Watched:
    """A step that keeps what it returned."""

    step: Step
    seen: list[pa.Table]

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.step.outputs

    def run(self, batch: Batch) -> Batch:
        result = self.step.run(batch)
        self.seen.append(result.table)
        return result

    def schema(self, schema: pa.Schema) -> pa.Schema:
        return self.step.schema(schema)


@dataclass(frozen=True, slots=True)
class _Recorder:
    """A predictor that keeps what it was given and predicted."""

    predictor: Predictor
    calls: ModelCalls

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        values = self.predictor.predict(batch)
        self.calls.tables.append(batch.table)
        self.calls.predictions.append(values)
        return values


def with_labels(table: pa.Table, deployment: Deployment, values: Iterable[str]) -> pa.Table:
    """Return the rows of `table` that have a label, in order, with the label as an additional column.

    Args:
        table: rows with the deployment's keys and the partition column.
        deployment: says where labels are; it must have some.
        values: partitions whose labels are read; those that do not exist are left out.

    Raises:
        ContractError: labels lack a column, or their keys are of another type.
        DataError: a key has several labels.
        StorageError: labels cannot be read.
    """
    if deployment.drift is None or deployment.drift.labels is None:
        raise ConfigurationError(f"deployment {deployment.name!r} has no 'drift: labels'")
    labels, partition = deployment.drift.labels, deployment.input.partition
    # Keys are unique within a partition, not beyond it.
    by = [*deployment.input.keys, partition]
    existing = set(existing_values(labels.path, partition))
    found = [_labels(deployment, labels, value, table.schema) for value in sorted(set(values) & existing)]
    if not found:
        return table.slice(0, 0).append_column(labels.column, pa.array([], pa.float64()))
    truth = pa.concat_tables(found)
    if truth.group_by(by).aggregate([]).num_rows != truth.num_rows:
        raise DataError(
            f"labels in {labels.path} repeat keys",
            f"one label per {listed(deployment.input.keys)} and night",
            "several",
        )
    # A label among the features would be a leak, and the join would rename it.
    features = table.drop_columns([labels.column]) if labels.column in table.column_names else table
    numbered = features.append_column(ORDER, pa.array(np.arange(features.num_rows)))
    joined = numbered.join(truth, keys=by, join_type="inner").sort_by(ORDER)
    return joined.drop_columns([ORDER]).filter(joined.column(labels.column).is_valid())


def _labels(deployment: Deployment, labels: Labels, value: str, schema: pa.Schema) -> pa.Table:
    """Return keys, partition and label of one partition, with the key types of `schema`."""
    partition, columns = deployment.input.partition, [*deployment.input.keys, labels.column]
    filesystem, _ = open_storage(labels.path)
    listing = list_files(labels.path, partition, value)
    location, files = listing.place, [info.path for info in listing.infos]
    with storage_errors(location):
        try:
            read = pa.table({})
            if files:
                read = pq.read_table(files, filesystem=filesystem, columns=columns, partitioning=None)
            missing = [column for column in columns if column not in read.column_names]
            if missing:
                raise ContractError(f"labels in {location} lack columns", listed(columns), f"no {listed(missing)}")
            types = [schema.field(key) for key in deployment.input.keys]
            read = read.cast(pa.schema([*types, read.schema.field(labels.column)]))
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            raise ContractError(
                f"labels in {location} cannot be used", f"Parquet with {listed(columns)}", cause(error)
            ) from error
    return read.append_column(partition, pa.repeat(value, read.num_rows).cast(schema.field(partition).type))
