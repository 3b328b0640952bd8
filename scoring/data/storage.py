"""File systems by path or URL, through Arrow; fsspec's where Arrow has none of its own."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from typing import Final

import pyarrow as pa
from pyarrow import fs

from scoring.errors import ConfigurationError, StorageError, cause

REMOTE: Final = re.compile(r"AWS Error|HTTP|Connection|curl|timed? ?out", re.IGNORECASE)
"""What the messages of remote stores' own failures contain."""


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


def is_damage(error: Exception) -> bool:
    """Return whether reading failed because of a file's content, not because of the store.

    Arrow raises `OSError` for both: those of an operating system carry an errno, those of remote stores say so.
    """
    if isinstance(error, OSError):
        return error.errno is None and REMOTE.search(str(error)) is None
    return isinstance(error, pa.ArrowException)


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
            f"reading or writing {location} failed", got=cause(error), hint="Run again later."
        ) from error
