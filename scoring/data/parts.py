"""Part files: what a worker writes for one split. Invisible to readers of the table until a transaction names them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from scoring.data.storage import OBJECT_STORES, open_storage, storage_errors
from scoring.errors import ScoringError

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


@dataclass(slots=True)
class PartWriter:
    """A part file being written."""

    writer: pq.ParquetWriter
    part: Part | None = None
    """The part's record; None until the file is complete."""

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self.writer.write_table(table)


@contextmanager
def writing_part(root: str, path: str, schema: pa.Schema) -> Iterator[PartWriter]:
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
    with writing_file(root, path) as stream:
        footers: list[pq.FileMetaData] = []
        with pq.ParquetWriter(stream, schema, compression=COMPRESSION, metadata_collector=footers) as handle:
            writer = PartWriter(handle)
            yield writer
        writer.part = Part(path, footers[0].num_rows, stream.tell(), _nulls(footers[0]))


@contextmanager
def writing_file(root: str, path: str) -> Iterator[pa.NativeFile]:
    """Write a file that exists under its name only when it is complete.

    Args:
        root: path or URL of a folder.
        path: the file's path, relative to `root`.

    Raises:
        StorageError: disk full, store away.
    """
    filesystem, base = open_storage(root)
    target = f"{base}/{path}"
    folder, _, name = target.rpartition("/")
    # An object store shows a file only when it is closed; elsewhere a hidden file is renamed.
    is_renamed = filesystem.type_name not in OBJECT_STORES
    written = f"{folder}/.{name}.{uuid4().hex}.tmp" if is_renamed else target
    with storage_errors(f"{root}/{path}"):
        if is_renamed:
            filesystem.create_dir(folder, recursive=True)
        try:
            with filesystem.open_output_stream(written, compression=None) as stream:
                yield stream
        except BaseException:
            # Arrow has no way to give an upload up: what was sent so far becomes a file.
            with contextlib.suppress(OSError):
                filesystem.delete_file(written)
            raise
        if is_renamed:
            filesystem.move(written, target)


def discard_files(root: str, folder: str, prefix: str) -> None:
    """Delete the files of a folder whose names begin with `prefix`; fine where there are none.

    Args:
        root: the table's path or URL.
        folder: relative to `root`.
        prefix: of names that no transaction names.
    """
    # Cleaning up must not hide why; what stays is invisible to readers.
    with contextlib.suppress(OSError, ScoringError):
        filesystem, base = open_storage(root)
        for info in filesystem.get_file_info(fs.FileSelector(f"{base}/{folder}", allow_not_found=True)):
            if info.base_name.startswith(prefix):
                filesystem.delete_file(info.path)


def absent_parts(root: str, parts: Sequence[Part]) -> list[str]:
    """Return the paths of parts whose file does not exist or has another size.

    Raises:
        StorageError: the store does not answer.
    """
    filesystem, base = open_storage(root)
    with storage_errors(root):
        found = filesystem.get_file_info([f"{base}/{part.path}" for part in parts])
    return [part.path for part, info in zip(parts, found, strict=True) if info.size != part.size_bytes]


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
