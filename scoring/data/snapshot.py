"""A Delta table as input: what its log names at one version. A listing of its folder would show other files too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import fs

from scoring.data.storage import delta_options, open_storage, storage_errors
from scoring.errors import ConfigurationError, cause, listed

LOG: Final = "_delta_log"
MAPPING: Final = "delta.columnMapping.mode"
VECTORS: Final = "deletionVectors"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of a Delta table that is partitioned by a column; later versions do not change it."""

    location: str
    column: str
    table: DeltaTable

    @property
    def version(self) -> int:
        """The version."""
        return int(self.table.version())

    def values(self) -> list[str]:
        """Return the values of the partition column, sorted."""
        return sorted({value for value, _ in self._files() if value is not None})

    def files(self, value: str) -> list[fs.FileInfo]:
        """Return the files of a partition, wherever in the table they lie, in order of their paths.

        Raises:
            ConfigurationError: only a reader of Delta itself would read them as they are meant.
        """
        found = sorted((info for own, info in self._files() if own == value), key=lambda info: info.path)
        self._check_deletions(value, [info.path for info in found])
        return found

    def _files(self) -> list[tuple[str | None, fs.FileInfo]]:
        _, base = open_storage(self.location)
        actions = pa.table(self.table.get_add_actions(flatten=True))
        values = actions.column(f"partition.{self.column}").cast(pa.string()).to_pylist()
        names = ("path", "size_bytes", "modification_time")
        facts = zip(values, *(actions.column(name).to_pylist() for name in names), strict=True)
        found = []
        for value, path, size, modified_ms in facts:
            if "://" in path:
                raise self._unfit("names files of another table", "files of its own, not those of a clone", path)
            # Paths are URLs in the log, whatever the folder's values are.
            place = f"{base}/{unquote(path)}"
            info = fs.FileInfo(place, fs.FileType.File, size=size, mtime_ns=modified_ms * 1_000_000)
            found.append((value, info))
        return found

    def _check_deletions(self, value: str, paths: list[str]) -> None:
        if VECTORS not in (self.table.protocol().reader_features or ()):
            return
        marked = [unquote(uri) for uri in pa.table(self.table.deletion_vectors()).column("filepath").to_pylist()]
        deleted = [path for path in paths if any(uri.endswith(path) for uri in marked)]
        if deleted:
            raise self._unfit(
                f"has deletion vectors in partition {value!r}",
                "files without deleted rows",
                listed(deleted),
                "Run REORG TABLE ... APPLY (PURGE) on it, or turn 'delta.enableDeletionVectors' off.",
            )

    def check(self) -> None:
        """Refuse what cannot be read file by file.

        Raises:
            ConfigurationError: columns have other names in the files, or the table is partitioned otherwise.
        """
        metadata = self.table.metadata()
        mapping = metadata.configuration.get(MAPPING) or "none"
        if mapping != "none":
            raise self._unfit(
                "maps its columns to other names", f"{MAPPING} none", mapping, "Write it again without column mapping."
            )
        if self.column not in metadata.partition_columns:
            raise self._unfit(
                "is not partitioned by 'input.partition'",
                f"partition column {self.column!r}",
                listed(metadata.partition_columns) or "none",
                "Name one of these, or write the table with that column as partition.",
            )

    def _unfit(self, what: str, expected: str, got: str, hint: str = "") -> ConfigurationError:
        return ConfigurationError(f"Delta table {self.location} (version {self.version}) {what}", expected, got, hint)


def open_snapshot(location: str, column: str) -> Snapshot | None:
    """Return the newest version of a Delta table; None if there is no Delta table at a path or URL.

    Raises:
        ConfigurationError: it is a Delta table that cannot be read here.
        StorageError: the store does not answer.
    """
    filesystem, path = open_storage(location)
    with storage_errors(location):
        if filesystem.get_file_info(f"{path}/{LOG}").type is not fs.FileType.Directory:
            return None
        try:
            table = DeltaTable(location, storage_options=delta_options(location))
        except DeltaError as error:
            raise ConfigurationError(f"Delta table {location} cannot be read", got=cause(error)) from error
    snapshot = Snapshot(location, column, table)
    snapshot.check()
    return snapshot
