"""What a run will do, decided on the driver before any Spark executor starts: partition, contract, models, splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

import pyarrow as pa

from scoring.data.contract import Contract, contract_of
from scoring.data.partition import Partition, list_partition
from scoring.data.splits import Split, plan_splits
from scoring.data.table import Table
from scoring.deployment import Deployment
from scoring.errors import ContractError, listed
from scoring.graph.compile import GraphSource, graph_schema, graph_source, output_columns
from scoring.models.base import Files, FrozenModel
from scoring.monitoring.sampling import rate_for
from scoring.registry import Registry

RUN_COLUMN: Final = "run_id"
FORMAT_VERSION: Final = 1
"""Of `plan.json` in the run record."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of one deployment over one partition; plain data that travels to Spark executors."""

    deployment: Deployment
    partition: Partition
    contract: Contract
    graph: GraphSource
    features: pa.Schema
    """Columns that the graph is given."""
    outputs: pa.Schema
    """Columns that the graph adds and the table gets."""
    splits: tuple[Split, ...]
    sample_rate: float
    generation: int
    """Of the output partition when the plan was made; see `Table.publish`."""

    def with_parallelism(self, cores: int) -> Plan:
        """Return the plan with splits enough for all tasks that can run at once on so many cores."""
        resources = self.deployment.resources
        tasks = cores // resources.cpus_per_task
        return replace(self, splits=plan_splits(self.partition, split_rows=resources.split_rows, at_least=tasks))

    @property
    def folder(self) -> str:
        """Folder of the output partition, relative to the table."""
        return partition_folder(self.deployment, self.partition.value)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the part files: keys, kept columns, outputs, `run_id`."""
        kept = [self.features.field(name) for name in _kept(self.deployment)]
        return pa.schema([*kept, *self.outputs, pa.field(RUN_COLUMN, pa.string())])

    @property
    def input_digest(self) -> str:
        """sha256 over paths, sizes and row counts of the partition's files."""
        files = [(file.path, file.size_bytes, file.rows) for file in self.partition.files]
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()

    @property
    def model_versions(self) -> dict[str, int]:
        """Registered model name to version."""
        return {model.name: model.version for model in self.graph.models.values()}

    def to_json(self) -> dict[str, Any]:
        """Return what is kept in the run record."""
        return {
            "format_version": FORMAT_VERSION,
            "deployment": self.deployment.name,
            "partition": self.partition.value,
            "rows": self.partition.rows,
            "files": [{"path": f.path, "rows": f.rows, "size_bytes": f.size_bytes} for f in self.partition.files],
            "splits": len(self.splits),
            "models": [
                {"uri": uri, "name": m.name, "version": m.version, "sha256": m.digest, "flavor": m.flavor}
                for uri, m in self.graph.models.items()
            ],
            "graph_digest": self.graph.digest,
            "input_digest": self.input_digest,
            "features": self.features.names,
            "columns": {field.name: str(field.type) for field in self.schema},
            "contract": self.contract.to_json(),
            "generation": self.generation,
            "sample_rate": self.sample_rate,
        }


def output_table(deployment: Deployment) -> Table:
    """Return the table that a deployment publishes to."""
    return Table(deployment.output.path, deployment.input.partition)


def partition_folder(deployment: Deployment, value: str) -> str:
    """Return the folder of an output partition, relative to the table."""
    return f"{deployment.input.partition}={value}"


def quarantine_table(deployment: Deployment) -> Table:
    """Return the table of rows that broke the deployment's input contract."""
    return Table(deployment.output.quarantine_path, deployment.input.partition)


def make_plan(deployment: Deployment, value: str, *, registry: Registry) -> tuple[Plan, Mapping[str, Files]]:
    """Plan the scoring of one partition. Runs on the driver; reads footers and model files, no rows.

    Args:
        deployment: what to score and how.
        value: the partition.
        registry: resolves every model alias, once.

    Returns:
        The plan, and the model files by digest.

    Raises:
        ConfigurationError, ContractError, ModelError: deployment, models and files do not fit each other.
        DataError, PartitionMissingError: the partition is unreadable, empty or missing.
        RegistryUnavailableError, StorageError: MLflow or the store does not answer.
    """
    partition = list_partition(deployment.input, value)
    models, files = registry.freeze(deployment)
    contract, graph, features, outputs = fit(deployment, partition, models)
    plan = Plan(
        deployment=deployment,
        partition=partition,
        contract=contract,
        graph=graph,
        features=features,
        outputs=outputs,
        splits=plan_splits(partition, split_rows=deployment.resources.split_rows),
        sample_rate=rate_for(partition.rows, deployment.drift.sample_rows) if deployment.drift else 0.0,
        generation=output_table(deployment).generation(value),
    )
    return plan, files


def fit(
    deployment: Deployment, partition: Partition, models: Mapping[str, FrozenModel]
) -> tuple[Contract, GraphSource, pa.Schema, pa.Schema]:
    """Check that files, contract, graph and output fit each other; return contract, graph, features and outputs.

    Raises:
        ContractError: they do not.
    """
    contract = contract_of(deployment.input, partition, models.values())
    contract.check_files(partition)
    features = features_of(deployment, contract)
    _check_known(deployment, "output.keep", deployment.output.keep, features.names, what="columns of the input")
    graph = graph_source(deployment, models)
    schema = graph_schema(graph, features)
    names = output_columns(graph, features)
    taken = [name for name in names if name in (*_kept(deployment), RUN_COLUMN, deployment.input.partition)]
    if taken:
        raise ContractError(
            f"the graph of {deployment.name!r} outputs names that are taken",
            "other names than keys, kept columns, the partition column and run_id",
            listed(taken),
        )
    drift = deployment.drift
    if drift is not None:
        seen = dict.fromkeys((*features.names, *names))
        _check_known(deployment, "drift.columns", drift.columns or (), seen, what="columns of input and output")
        if drift.labels is not None:
            _check_known(deployment, "drift.labels.output", (drift.labels.output,), names, what="outputs of the graph")
    return contract, graph, features, pa.schema([pa.field(name, schema.field(name).type) for name in names])


def _check_known(deployment: Deployment, key: str, given: Iterable[str], known: Iterable[str], *, what: str) -> None:
    valid = list(known)
    unknown = [name for name in given if name not in valid]
    if unknown:
        close = get_close_matches(unknown[0], valid, n=1)
        raise ContractError(
            f"{key!r} of {deployment.name!r} names unknown columns",
            f"{what}: {listed(valid)}",
            listed(unknown),
            f"Did you mean {close[0]!r}?" if close else "",
        )


def features_of(deployment: Deployment, contract: Contract) -> pa.Schema:
    """Return the columns that the graph is given: those of the contract and the partition column."""
    schema = pa.schema([pa.field(field.name, field.type) for field in contract.schema])
    column = deployment.input.partition
    return schema if column in schema.names else schema.append(pa.field(column, pa.string()))


def _kept(deployment: Deployment) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*deployment.input.keys, *deployment.output.keep)))
