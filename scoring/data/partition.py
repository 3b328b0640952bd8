"""What lies in one input partition (of Hive folders, or of a Delta table), read from Parquet footers only."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from scoring.data.snapshot import open_snapshot
from scoring.data.storage import is_damage, open_storage, storage_errors
from scoring.deployment import Input
from scoring.errors import ConfigurationError, DataError, PartitionMissingError, ScoringError, cause, listed

INT96_UNIT: Final = "us"
"""Of the moments that older Spark writes; in nanoseconds, Arrow's default, years before 1677 and after 2262 wrap."""
NEAREST: Final = 3
"""How many partitions beside a missing one are named."""
FOOTERS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group of a file."""

    rows: int
    size_bytes: int
    """Uncompressed bytes of all columns."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One Parquet file of a partition."""

    path: str
    """Path within the file system of the input."""
    size_bytes: int
    schema: pa.Schema
    row_groups: tuple[RowGroup, ...]
    modified_ns: int = 0
    """When the store says that it was written last; nanoseconds since 1970."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(group.rows for group in self.row_groups)


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of an input: its files in order of their paths."""

    column: str
    value: str
    files: tuple[InputFile, ...]
    version: int | None = None
    """Of the Delta table when the files were listed; None for folders."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(file.rows for file in self.files)

    @property
    def size_bytes(self) -> int:
        """Uncompressed bytes of all columns."""
        return sum(group.size_bytes for file in self.files for group in file.row_groups)

    @property
    def schemas(self) -> tuple[tuple[str, pa.Schema], ...]:
        """Columns of each piece that has its own, with the piece's name."""
        return tuple((f"file {file.path}", file.schema) for file in self.files)

    @property
    def digest(self) -> str:
        """sha256 over paths, sizes, row counts and times of the files."""
        files = [(file.path, file.size_bytes, file.rows, file.modified_ns) for file in self.files]
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return what is kept in the run record."""
        files = [{"path": file.path, "rows": file.rows, "size_bytes": file.size_bytes} for file in self.files]
        return {"rows": self.rows, "input_version": self.version, "files": files}


@dataclass(frozen=True, slots=True)
class Listing:
    """The Parquet files of one partition, before any of them was opened."""

    infos: tuple[fs.FileInfo, ...]
    """In order of their paths."""
    place: str
    """Where they were looked for."""
    version: int | None = None
    """Of the Delta table; None for folders."""


def check_value(value: str) -> str:
    """Return a partition value that can be part of a path.

    Raises:
        ConfigurationError: it is empty or holds a character that a Hive path or a shell would change.
    """
    if not value or not all(letter.isalnum() or letter in "-_.:" for letter in value) or value.startswith("."):
        raise ConfigurationError(
            "the partition is not valid", "letters, digits, '-', '_', '.' and ':'", repr(value), "Example: 2013-01-31."
        )
    return value


def folder_of(location: str, column: str, value: str) -> str:
    """Return the path or URL of a Hive partition."""
    return f"{location}/{column}={value}"


def list_files(location: str, column: str, value: str) -> Listing:
    """Return the files of a partition: those that a Delta table's log names, else all of its Hive folder.

    Hidden files (`_x`, `.x`) are not data.

    Raises:
        ConfigurationError: a Delta table that cannot be read file by file.
        StorageError: the store does not answer.
    """
    snapshot = open_snapshot(location, column)
    if snapshot is not None:
        place = f"version {snapshot.version} of Delta table {location}"
        return Listing(tuple(snapshot.files(value)), place, snapshot.version)
    folder = folder_of(location, column, value)
    filesystem, path = open_storage(folder)
    with storage_errors(folder):
        found = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    files = (info for info in found if info.type is fs.FileType.File and not _is_hidden(info.path[len(path) :]))
    return Listing(tuple(sorted(files, key=lambda info: info.path)), folder)


def list_partition(source: Input, value: str) -> Partition:
    """Read the footers of all Parquet files of a partition.

    Raises:
        PartitionMissingError: it holds no file yet.
        ConfigurationError: it never can, since all others are dates, or there is no partition at all; or the input is a
            Delta table that cannot be read file by file.
        DataError: a file is not Parquet or is cut short, or there is no row at all.
        StorageError: the store does not answer.
    """
    listing = list_files(source.location, source.partition, check_value(value))
    if not listing.infos:
        raise _missing(source, value, listing.place)
    filesystem, _ = open_storage(source.location)
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as threads:  # a footer is a request or two to a store
        files = tuple(threads.map(partial(_footer, filesystem), listing.infos))
    partition = Partition(source.partition, value, files, listing.version)
    if partition.rows == 0:
        raise DataError(
            f"partition {value!r} is empty",
            "at least one row",
            f"{len(files)} files without rows in {listing.place}",
            "Ask the upstream team; delete the files if there is nothing to score.",
        )
    return partition


def existing_values(location: str, column: str) -> list[str]:
    """Return the values of all partitions at a location, sorted; empty if there is no such location.

    Raises:
        ConfigurationError: a Delta table that cannot be read file by file.
        StorageError: the store does not answer.
    """
    snapshot = open_snapshot(location, column)
    if snapshot is not None:
        return snapshot.values()
    filesystem, path = open_storage(location)
    with storage_errors(location):
        found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    prefix = f"{column}="
    return sorted(i.base_name.removeprefix(prefix) for i in found if i.base_name.startswith(prefix))


def values_between(first: date, last: date) -> list[str]:
    """Return the ISO dates from `first` to `last`, both included."""
    return [(first + timedelta(days=day)).isoformat() for day in range((last - first).days + 1)]


def _is_hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in relative.split("/"))


def _footer(filesystem: fs.FileSystem, info: fs.FileInfo) -> InputFile:
    with storage_errors(info.path):
        try:
            with filesystem.open_input_file(info.path) as handle:
                file = pq.ParquetFile(handle, coerce_int96_timestamp_unit=INT96_UNIT)
                metadata, schema = file.metadata, file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            raise DataError(
                f"file {info.path} cannot be read",
                "a whole Parquet file",
                f"{info.size} bytes that are not ({cause(error)})",
                "It may be still being written or cut short: write it again, then run again.",
            ) from error
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    return InputFile(
        path=info.path,
        size_bytes=info.size,
        schema=schema.remove_metadata(),
        row_groups=tuple(RowGroup(group.num_rows, group.total_byte_size) for group in groups),
        modified_ns=info.mtime_ns or 0,
    )


def _missing(source: Input, value: str, searched: str) -> ScoringError:
    """Return why a partition is not there: it may still come, or it never can."""
    existing = existing_values(source.location, source.partition)
    if not existing:
        return ConfigurationError(
            f"{source.path} has no partition at all",
            f"folders {source.partition}=...",
            "none",
            "Is 'input.path' right?",
        )
    values = [found for found in existing if found != value]
    place = bisect_left(values, value)
    around = range(max(place - NEAREST, 0), min(place + NEAREST, len(values)))
    near = listed(values[at] for at in sorted(sorted(around, key=lambda at: abs(at - place))[:NEAREST]))
    if values and all(map(_is_date, values)) and not _is_date(value):
        return ConfigurationError(
            f"partition {value!r} cannot exist", "a date like those of the others", repr(value), f"Nearest: {near}."
        )
    return PartitionMissingError(
        f"partition {value!r} is missing",
        f"Parquet files in {searched}",
        "none",
        f"Nearest partitions: {near or 'none'}. Run again when it has arrived.",
    )


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
