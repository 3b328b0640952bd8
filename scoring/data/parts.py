"""Part files: what a worker writes for one split. Invisible to readers of the table until a transaction names them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from scoring.data.storage import open_storage, storage_errors

COMPRESSION: Final = "zstd"


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What is known of one column of a part."""

    nulls: int
    minimum: Any = None
    maximum: Any = None


@dataclass(frozen=True, slots=True)
class Part:
    """One complete part file."""

    path: str
    """Relative to the table's root."""
    rows: int
    size_bytes: int
    profile: Mapping[str, ColumnProfile]

    @property
    def delta_stats(self) -> str:
        """Statistics in Delta's JSON form, with which readers skip files."""
        bounds = {name: p for name, p in self.profile.items() if p.minimum is not None}
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": {name: p.minimum for name, p in bounds.items()},
                "maxValues": {name: p.maximum for name, p in bounds.items()},
                "nullCount": {name: p.nulls for name, p in self.profile.items()},
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Part:
        """Return the part that `to_json` described."""
        profile = {name: ColumnProfile(**facts) for name, facts in document["profile"].items()}
        return Part(document["path"], document["rows"], document["size_bytes"], profile)


@contextmanager
def writing_part(root: str, path: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Write a part file that exists under its name only when it is complete.

    A second attempt at the same split writes the same rows to the same name, so a speculative or repeated task
    replaces the file by an equal one.

    Args:
        root: the table's path or URL.
        path: the part's path, relative to `root`.
        schema: columns of the part.

    Raises:
        StorageError: disk full, store away.
    """
    filesystem, base = open_storage(root)
    target = f"{base}/{path}"
    # Object stores show a file only when it is closed; elsewhere a hidden file is renamed.
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    folder, _, name = target.rpartition("/")
    written = f"{folder}/.{name}.{uuid4().hex}.tmp" if is_local else target
    with storage_errors(f"{root}/{path}"):
        filesystem.create_dir(folder, recursive=True)
        try:
            with (
                filesystem.open_output_stream(written) as stream,
                pq.ParquetWriter(stream, schema, compression=COMPRESSION) as handle,
            ):
                yield handle
        except BaseException:
            if is_local and filesystem.get_file_info(written).type is fs.FileType.File:
                filesystem.delete_file(written)
            raise
        if is_local:
            filesystem.move(written, target)


def describe_part(root: str, path: str) -> Part:
    """Return the record of a part file, from its footer.

    Raises:
        StorageError: the file cannot be read.
    """
    filesystem, base = open_storage(root)
    with storage_errors(f"{root}/{path}"):
        size = filesystem.get_file_info(f"{base}/{path}").size
        with filesystem.open_input_file(f"{base}/{path}") as handle:
            metadata = pq.read_metadata(handle)
    return Part(path, metadata.num_rows, size, _profile(metadata))


def read_parts(root: str, paths: list[str], columns: list[str] | None = None) -> pa.Table:
    """Return the rows of part files, in order.

    Raises:
        StorageError: a file cannot be read.
    """
    filesystem, base = open_storage(root)
    with storage_errors(root):
        return pa.concat_tables(
            pq.read_table(f"{base}/{path}", filesystem=filesystem, columns=columns, partitioning=None) for path in paths
        )


def _profile(metadata: pq.FileMetaData) -> dict[str, ColumnProfile]:
    """Merge the statistics of all row groups; a column that lacks them in one has none."""
    profile: dict[str, ColumnProfile] = {}
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    for position in range(metadata.num_columns):
        chunks = [group.column(position) for group in groups]
        found = [chunk.statistics for chunk in chunks]
        if not found or any(statistics is None or not statistics.has_null_count for statistics in found):
            continue
        nulls = sum(statistics.null_count for statistics in found)
        bounds = [(statistics.min, statistics.max) for statistics in found if statistics.has_min_max]
        # Parquet leaves NaN out of its bounds, Delta does not allow that: no bounds for floats that may hold one.
        has_bounds = len(bounds) == len(found) and all(type(bound) is int for pair in bounds for bound in pair)
        name = chunks[0].path_in_schema
        if has_bounds:
            profile[name] = ColumnProfile(nulls, min(low for low, _ in bounds), max(high for _, high in bounds))
        else:
            profile[name] = ColumnProfile(nulls)
    return profile
