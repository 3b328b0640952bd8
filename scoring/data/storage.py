"""File systems by path or URL, through Arrow; fsspec's where Arrow has none of its own."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import fs

from scoring.errors import ConfigurationError, StorageError


def open_storage(location: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a path or URL, and the path within it.

    Raises:
        ConfigurationError: no file system is known for the URL's scheme.
    """
    try:
        if "://" not in location:
            return fs.LocalFileSystem(), location
        filesystem, path = fs.FileSystem.from_uri(location)
    except pa.ArrowInvalid as error:
        raise ConfigurationError(
            f"{location!r} has no file system", "a path or a known URL scheme", str(error)
        ) from error
    return filesystem, path


@contextlib.contextmanager
def storage_errors(location: str) -> Iterator[None]:
    """Turn errors of the store itself (full, away, refused) into `StorageError`, which may be retried."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise StorageError(
                f"writing to {location} failed", "free space", "disk full", "Free space, then run again."
            ) from error
        raise StorageError(
            f"reading or writing {location} failed", got=f"{type(error).__name__}: {error}", hint="Run again later."
        ) from error
