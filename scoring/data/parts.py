"""Part files: what a worker writes for one split. Invisible to readers of the table until a transaction names them."""

from __future__ import annotations

import contextlib
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
class Part:
    """One complete part file."""

    path: str
    """Relative to the table's root."""
    rows: int
    size_bytes: int
    nulls: Mapping[str, int]
    """Number of nulls by column."""

    @property
    def delta_stats(self) -> str:
        """Statistics in Delta's JSON form, with which readers skip files.

        There are no bounds: floats can have none, because of NaN, and delta-rs hands a column without bounds beside
        columns with bounds to Arrow as `column >= null`, which silently hides all rows from a reader's filter.
        """
        return json.dumps({"numRecords": self.rows, "nullCount": dict(self.nulls)})

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Part:
        """Return the part that `to_json` described."""
        return Part(document["path"], document["rows"], document["size_bytes"], document["nulls"])


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


def discard_parts(root: str, folder: str, run_id: str) -> None:
    """Delete the part files of a run that no transaction names; fine where there are none.

    Args:
        root: the table's path or URL.
        folder: the partition's folder, relative to `root`.
        run_id: with which the parts' names begin.
    """
    filesystem, base = open_storage(root)
    with contextlib.suppress(OSError):  # cleaning up must not hide why; what stays is invisible to readers
        for info in filesystem.get_file_info(fs.FileSelector(f"{base}/{folder}", allow_not_found=True)):
            if info.base_name.startswith(run_id):
                filesystem.delete_file(info.path)


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
    return Part(path, metadata.num_rows, size, _nulls(metadata))


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


def _nulls(metadata: pq.FileMetaData) -> dict[str, int]:
    """Add up the nulls of all row groups, without columns that are nested or whose statistics do not say."""
    nulls: dict[str, int] = {}
    groups = [group for index in range(metadata.num_row_groups) if (group := metadata.row_group(index)).num_rows]
    for position in range(metadata.num_columns):
        name = metadata.schema.column(position).path
        found = [group.column(position).statistics for group in groups]
        if "." not in name and all(statistics is not None and statistics.has_null_count for statistics in found):
            nulls[name] = sum(statistics.null_count for statistics in found)
    return nulls
