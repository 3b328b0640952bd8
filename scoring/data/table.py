"""The Delta table that readers see. One transaction replaces exactly one partition."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction

from scoring.data.parts import Part
from scoring.data.storage import delta_options, storage_errors
from scoring.errors import ContractError, StorageError, SupersededError, cause, listed

RUN_COLUMN: Final = "run_id"
"""The column that says which run published a row."""
METADATA_KEY: Final = "scoring"
"""Key of our facts in a commit's metadata."""
COMMIT_ATTEMPTS: Final = 10
"""How often a commit is tried that others' commits of other partitions get ahead of."""


@dataclass(frozen=True, slots=True)
class PublishedPartition:
    """What readers of the current version see of one partition."""

    value: str
    rows: int = 0
    paths: tuple[str, ...] = ()
    run_ids: frozenset[str] = frozenset()
    """Which runs published the rows: one, except in the quarantine."""


@dataclass(frozen=True, slots=True)
class Change:
    """New rows of one partition: parts that were written before."""

    value: str
    """The partition."""
    parts: Sequence[Part]
    """All files of the partition's new version; none makes it empty."""
    schema: pa.Schema
    """Columns of the parts, without the partition columns."""
    run_id: str
    """Which run publishes them."""
    generation: int | None
    """What `Table.generation` said when the run started; None: whatever it is now, so the last wins."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON that is kept in the commit."""
    is_added: bool = False
    """Keep what the partition holds, and add the parts."""


@dataclass(frozen=True, slots=True)
class Table:
    """A Delta table, partitioned by one column of ours and by the run that published the rows.

    Which run that was is not known when a part file is written: a run takes over the parts of one that was killed. So
    `run_id` is a partition column, whose values Delta keeps in its log.
    """

    path: str
    """Path or URL."""
    partition: str
    """The partition column (string)."""

    def generation(self, value: str) -> int:
        """Return how often a partition has been published: 0 when it has not.

        A run reads it when it starts and names it again when it publishes; see `publish`.
        """
        table = self._open()
        return 0 if table is None else table.transaction_version(self._app_id(value)) or 0

    def version_of(self, value: str, generation: int) -> int:
        """Return the table's version in which a partition's generation was published.

        Looked for from the newest version down, by the transaction that each version names: delta-rs numbers the
        entries of a history by a version that may be older than the newest entry.
        """
        with storage_errors(self.path):
            return self._version_of(value, generation)

    def _version_of(self, value: str, generation: int) -> int:
        version = int(self._opened().version())
        while self._generation_in(version - 1, value) >= generation:
            version -= 1
        return version

    def _generation_in(self, version: int, value: str) -> int:
        return self._opened(version).transaction_version(self._app_id(value)) or 0

    def publish(self, change: Change) -> int:
        """Replace one partition by parts that were written before, or add to it.

        Returns:
            The table's version in which readers see the parts.

        Raises:
            SupersededError: another run published the partition since; nothing was changed.
            ContractError: the table has columns of other types.
            StorageError: the store failed; nothing was changed.
        """
        with storage_errors(self.path):
            attempt = 0
            while True:
                attempt += 1
                try:
                    return self._commit(change)
                except CommitFailedError as error:
                    # Somebody committed at the same moment: look again, from their version on.
                    if attempt == COMMIT_ATTEMPTS:
                        raise StorageError(
                            f"publishing partition {change.value!r} to {self.path} failed {attempt} times",
                            got=cause(error),
                            hint="Run again.",
                        ) from error
                except DeltaError as error:
                    raise StorageError(
                        f"publishing partition {change.value!r} to {self.path} failed", got=cause(error)
                    ) from error

    def _commit(self, change: Change) -> int:
        table = self._open() or self._create(change.schema)
        self._fit_columns(table, change.schema)
        app_id = self._app_id(change.value)
        current = table.transaction_version(app_id) or 0
        if change.generation not in (None, current):
            raise self._superseded(change.value)
        facts = {**change.facts, RUN_COLUMN: change.run_id, "partition": change.value, "generation": current + 1}
        table.create_write_transaction(
            [self._action(change, part) for part in change.parts],
            mode="append" if change.is_added else "overwrite",
            schema=table.schema(),  # not that of the parts: columns that are no longer written stay readable
            partition_by=[self.partition, RUN_COLUMN],
            partition_filters=None if change.is_added else [(self.partition, "=", change.value)],
            commit_properties=CommitProperties(
                custom_metadata={METADATA_KEY: json.dumps(facts)},
                app_transactions=[Transaction(app_id, current + 1)],
            ),
        )
        return self.version_of(change.value, current + 1)

    def published(self, version: int | None = None) -> dict[str, PublishedPartition]:
        """Return the partitions of a version by value; None: of the current one."""
        table = self._open(version)
        if table is None:
            return {}
        found: dict[str, PublishedPartition] = {}
        actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        for action in sorted(actions, key=lambda entry: str(entry["path"])):
            value = action[f"partition.{self.partition}"]
            known = found.get(value, PublishedPartition(value))
            found[value] = PublishedPartition(
                value,
                known.rows + action["num_records"],
                (*known.paths, action["path"]),
                known.run_ids | {action[f"partition.{RUN_COLUMN}"]},
            )
        return dict(sorted(found.items()))

    def _open(self, version: int | None = None) -> DeltaTable | None:
        with storage_errors(self.path):
            try:
                return self._opened(version)
            except TableNotFoundError:
                return None

    def _opened(self, version: int | None = None) -> DeltaTable:
        return DeltaTable(self.path, version=version, storage_options=delta_options(self.path))

    def _create(self, schema: pa.Schema) -> DeltaTable:
        if "://" not in self.path:
            Path(self.path).mkdir(parents=True, exist_ok=True)
        columns = [self.partition, RUN_COLUMN]
        return DeltaTable.create(
            self.path,
            schema=self._full(schema),
            mode="ignore",
            partition_by=columns,
            storage_options=delta_options(self.path),
        )

    def _full(self, schema: pa.Schema) -> pa.Schema:
        return schema.append(pa.field(RUN_COLUMN, pa.string())).append(pa.field(self.partition, pa.string()))

    def _fit_columns(self, table: DeltaTable, schema: pa.Schema) -> None:
        """Add columns that the table lacks; refuse columns of another type."""
        existing = {field.name: field.type for field in table.schema().fields}
        wanted = {field.name: field.type for field in _delta_fields(self._full(schema))}
        changed = [f"{name}: {kind}" for name, kind in wanted.items() if existing.get(name, kind) != kind]
        if changed:
            raise ContractError(
                f"the outputs do not fit the table {self.path}",
                listed(f"{name.split(':')[0]}: {existing[name.split(':')[0]]}" for name in changed),
                listed(changed),
                "Give the output another name, or publish to a new 'output.path'.",
            )
        added = [Field(name, kind, nullable=True) for name, kind in wanted.items() if name not in existing]
        if added:
            table.alter.add_columns(added)

    def _action(self, change: Change, part: Part) -> AddAction:
        now = int(time.time() * 1000)
        return AddAction(
            path=part.path,
            size=part.size_bytes,
            partition_values={self.partition: change.value, RUN_COLUMN: change.run_id},
            modification_time=now,
            data_change=True,
            stats=part.delta_stats,
        )

    def _app_id(self, value: str) -> str:
        return f"scoring/{self.partition}={value}"

    def _superseded(self, value: str) -> SupersededError:
        return SupersededError(
            f"partition {value!r} was published by another run after this run had started",
            hint="Nothing of this run was published; readers see the other run's rows. Run again if you need to.",
        )


def _delta_fields(schema: pa.Schema) -> list[Any]:
    return Schema.from_arrow(schema).fields
