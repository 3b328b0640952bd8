"""What a run will do, decided on the driver before any Spark executor starts: partition, contract, models, splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Final

import pyarrow as pa

from scoring.checks.suite import suites
from scoring.data.contract import Contract, contract_of
from scoring.data.partition import Partition, list_partition
from scoring.data.query import AnyPartition, Query
from scoring.data.splits import Split, plan_splits
from scoring.data.table import RUN_COLUMN, Table
from scoring.deployment import Deployment
from scoring.errors import ContractError, listed
from scoring.graph.compile import GraphSource, graph_schema, graph_source, output_columns, readers, without_members
from scoring.graph.votes import check_votes
from scoring.models.base import Files, FrozenModel
from scoring.monitoring.sampling import rate_for
from scoring.registry import Registry

KEY_CHARS: Final = 32
"""Of the sha256 that names a plan's files."""
FORMAT_VERSION: Final = 1
"""Of `plan.json` in the run record."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of one deployment over one partition; plain data that travels to Spark executors."""

    deployment: Deployment
    partition: AnyPartition
    contract: Contract
    graph: GraphSource
    features: pa.Schema
    """Columns that the graph is given."""
    outputs: pa.Schema
    """Columns that the graph adds and the table gets."""
    splits: tuple[Split, ...]
    """Of the partition's files; none for a query, which Spark cuts."""
    sample_rate: float
    generation: int
    """Of the output partition when the plan was made; see `Table.publish`."""
    kept_input: tuple[str, ...] = ()
    """Columns of a query's rows that workers keep for the input suite; files are read again instead."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Members that ensembles do without in this run, by path, each with the sentence of its failure."""

    def without(self, failed: Mapping[str, str]) -> Plan | None:
        """Return the plan of the same run without members that failed, by path; None if it cannot do without them.

        It is another graph, so that its files have other names, and no row of the first attempt is published.
        """
        graph = without_members(self.graph, failed)
        return None if graph is None else replace(self, graph=graph, dropped={**self.dropped, **failed})

    def with_parallelism(self, cores: int) -> Plan:
        """Return the plan with splits enough for all tasks that can run at once on so many cores."""
        if not isinstance(self.partition, Partition):
            return self
        resources = self.deployment.resources
        tasks = cores // resources.cpus_per_task
        return replace(self, splits=plan_splits(self.partition, split_bytes=resources.split_bytes, at_least=tasks))

    @property
    def folder(self) -> str:
        """Folder of the output partition, relative to the table."""
        return partition_folder(self.deployment, self.partition.value)

    @property
    def kept_input_folder(self) -> str:
        """Folder of the rows that are kept for the input suite, relative to the table."""
        return kept_input_folder(self.deployment, self.partition.value)

    @property
    def kept_input_schema(self) -> pa.Schema:
        """Columns of the rows that are kept for the input suite."""
        return pa.schema([self.features.field(name) for name in self.kept_input])

    @property
    def schema(self) -> pa.Schema:
        """Columns of the part files: keys, kept columns, outputs. The table adds the partition and `run_id`."""
        return pa.schema([*(self.features.field(name) for name in _kept(self.deployment)), *self.outputs])

    @property
    def key(self) -> str:
        """Name of what the run writes: the same for two runs exactly when they would write the same rows to the same
        files, so that one may take over what the other left.

        A generation is published once, so no file of a published version is ever written again.
        """
        facts = {
            "graph": self.graph.digest,
            "input": self.partition.digest,
            "contract": self.contract.to_json(),
            "columns": self.schema.names,
            "sample_rate": self.sample_rate,
            "resources": self.deployment.resources.model_dump(mode="json"),
            "splits": [asdict(split) for split in self.splits],
            "generation": self.generation,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:KEY_CHARS]

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
            **self.partition.to_json(),
            "splits": len(self.splits),
            "models": [
                {
                    "uri": uri,
                    "name": m.name,
                    "version": m.version,
                    "sha256": m.digest,
                    "flavor": m.flavor,
                    "trusted": m.trusted,
                }
                for uri, m in self.graph.models.items()
            ],
            "dropped": dict(self.dropped),
            "graph_digest": self.graph.digest,
            "input_digest": self.partition.digest,
            "key": self.key,
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


def kept_input_folder(deployment: Deployment, value: str) -> str:
    """Return the folder of a query's rows that are kept for the input suite; readers of Delta tables ignore it."""
    return f"_input/{partition_folder(deployment, value)}"


def quarantine_table(deployment: Deployment) -> Table:
    """Return the table of rows that broke the deployment's input contract."""
    return Table(deployment.output.quarantine_path, deployment.input.partition)


def make_plan(
    deployment: Deployment, value: str, *, registry: Registry, query: Query | None = None
) -> tuple[Plan, Mapping[str, Files]]:
    """Plan the scoring of one partition. Runs on the driver; reads footers and model files, no rows.

    Args:
        deployment: what to score and how.
        value: the partition.
        registry: resolves every model alias, once.
        query: what Spark says of the partition, for an input that is not files.

    Returns:
        The plan, and the model files by digest.

    Raises:
        ConfigurationError, ContractError, ModelError: deployment, models and files do not fit each other.
        DataError, PartitionMissingError: the partition is unreadable, empty or missing.
        RegistryUnavailableError, StorageError: MLflow or the store does not answer.
    """
    partition = list_partition(deployment.input, value) if query is None else query
    models, files = registry.freeze(deployment)
    check_votes(deployment.score, models, files)
    contract, graph, features, outputs = fit(deployment, partition, models)
    drift, split_bytes = deployment.drift, deployment.resources.split_bytes
    plan = Plan(
        deployment=deployment,
        partition=partition,
        contract=contract,
        graph=graph,
        features=features,
        outputs=outputs,
        splits=plan_splits(partition, split_bytes=split_bytes) if isinstance(partition, Partition) else (),
        sample_rate=rate_for(partition.rows, drift.sample_rows) if drift and partition.rows else 0.0,
        generation=output_table(deployment).generation(value),
        kept_input=() if query is None else _checked_columns(deployment, contract),
    )
    return plan, files


def _checked_columns(deployment: Deployment, contract: Contract) -> tuple[str, ...]:
    """Return the columns that the input suite asks for, with the keys; none without a suite."""
    suite = suites(deployment).get("input")
    if suite is None:
        return ()
    asked = None if suite.columns is None else {*deployment.input.keys, *suite.columns}
    return tuple(name for name in contract.schema.names if asked is None or name in asked)


def fit(
    deployment: Deployment, partition: AnyPartition, models: Mapping[str, FrozenModel]
) -> tuple[Contract, GraphSource, pa.Schema, pa.Schema]:
    """Check that files, contract, graph and output fit each other; return contract, graph, features and outputs.

    Raises:
        ContractError: they do not.
    """
    contract = contract_of(deployment.input, partition, readers(deployment.score, models))
    contract.check_files(partition)
    features = features_of(deployment, contract)
    check_known(deployment, "output.keep", deployment.output.keep, features.names, what="columns of the input")
    graph = graph_source(deployment, models)
    outputs = fit_graph(deployment, graph, features)
    for key, given, known, what in drift_columns(deployment, features, outputs):
        check_known(deployment, key, given, known, what=what)
    return contract, graph, features, outputs


def fit_graph(deployment: Deployment, graph: GraphSource, features: pa.Schema) -> pa.Schema:
    """Check that a graph fits the columns that it is given, and that its outputs fit the table; return them.

    Raises:
        ContractError: it does not.
    """
    schema = graph_schema(graph, features)
    names = output_columns(graph, features)
    taken = [name for name in names if name in (*_kept(deployment), RUN_COLUMN, deployment.input.partition)]
    if taken:
        raise ContractError(
            f"the graph of {deployment.name!r} outputs names that are taken",
            "other names than keys, kept columns, the partition column and run_id",
            listed(taken),
        )
    outputs = pa.schema([pa.field(name, schema.field(name).type) for name in names])
    untyped = [found.name for found in outputs if pa.types.is_null(found.type)]
    if untyped:
        raise ContractError(
            f"outputs of {deployment.name!r} are null in every row", "a value that says their type", listed(untyped)
        )
    return outputs


def drift_columns(
    deployment: Deployment, features: pa.Schema, outputs: pa.Schema
) -> Iterator[tuple[str, tuple[str, ...], list[str], str]]:
    """Yield what section `drift` names, as `check_known` takes it: key, given and known columns, and what these are."""
    if deployment.drift is None:
        return
    seen = list(dict.fromkeys((*features.names, *outputs.names)))
    yield "drift.columns", deployment.drift.columns or (), seen, "columns of input and output"
    if deployment.drift.labels is not None:
        yield "drift.labels.output", (deployment.drift.labels.output,), outputs.names, "outputs of the graph"


def check_known(deployment: Deployment, key: str, given: Iterable[str], known: Iterable[str], *, what: str) -> None:
    """Check that the columns which a key names are there.

    Raises:
        ContractError: one is not.
    """
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
