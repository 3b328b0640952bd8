"""File systems by path or URL, through Arrow; fsspec's where Arrow has none of its own.

Arrow and delta-rs each read the stores' own environment variables (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...). Where
one of them needs to be told more than the other, it is told here.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import pyarrow as pa
from pyarrow import fs

from scoring import settings
from scoring.errors import ConfigurationError, ScoringError, StorageError, cause

REMOTE: Final = re.compile(r"AWS Error|google::cloud|Azure|HDFS|HTTP|Connection|curl|timed? ?out", re.IGNORECASE)
"""What the messages of remote stores' own failures contain."""
NO_BUCKET: Final = re.compile(r"NO_SUCH_BUCKET|NoSuchBucket|Bucket '[^']*' not found|bucket does not exist")
"""What Arrow, delta-rs and the stores say of a bucket that is not there."""
REFUSED: Final = re.compile(
    r"ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY_ID|InvalidAccessKeyId|SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch"
    r"|EXPIRED_TOKEN|ExpiredToken|PERMISSION_DENIED|UNAUTHENTICATED|\b40[13] (Forbidden|Unauthorized)"
)
"""What they say of credentials that are wrong, or that do not allow what was asked."""
OBJECT_STORES: Final = ("s3", "gcs", "abfs")
"""Arrow's names of the stores that show a file only when it is closed, and that need no folders."""
DEFAULT_REGION: Final = "us-east-1"
"""What S3-compatible servers call themselves; delta-rs would ask Amazon's metadata service for one."""


def open_storage(location: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a path or URL, and the path within it.

    Raises:
        ConfigurationError: no file system is known for the URL's scheme, or it cannot be used here.
        StorageError: the store does not answer.
    """
    if "://" not in location:
        return fs.LocalFileSystem(), location
    return _opened(location, tuple(settings.store_variables().items()))


@lru_cache(maxsize=64)
def _opened(location: str, _variables: tuple[tuple[str, str], ...]) -> tuple[fs.FileSystem, str]:
    """Open a URL once per environment: a client of S3 takes tens of milliseconds to make, and keeps its connections."""
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
    except pa.ArrowInvalid as error:
        if "Unrecognized filesystem" in str(error):
            return _by_fsspec(location)
        raise ConfigurationError(f"{location!r} is not valid", "a path or URL", cause(error)) from error
    except OSError as error:
        raise _failure(location, error) from error
    return filesystem, path


def _by_fsspec(location: str) -> tuple[fs.FileSystem, str]:
    import fsspec

    scheme = location.partition("://")[0]
    try:
        filesystem, path = fsspec.url_to_fs(location)
    except ImportError as error:
        package = (getattr(error.__cause__, "name", None) or str(error)).partition(".")[0]
        raise ConfigurationError(
            f"{location!r} cannot be opened",
            f"fsspec's package for {scheme}://",
            f"no module {package!r}",
            f"Run: pip install {package}.",
        ) from error
    except ValueError as error:
        raise ConfigurationError(
            f"{location!r} has no file system", "a path, or a scheme that Arrow or fsspec knows", f"{scheme}://"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def delta_options(location: str) -> dict[str, str]:
    """Return what delta-rs must be told besides the environment, so that it opens what Arrow opens."""
    endpoint = settings.store_endpoint()
    if endpoint is None or not location.startswith(("s3://", "s3a://")):
        return {}
    return {
        "aws_endpoint_url": endpoint,
        "aws_allow_http": str(endpoint.startswith("http://")).lower(),
        "aws_region": settings.store_region() or DEFAULT_REGION,
    }


def is_damage(error: Exception) -> bool:
    """Return whether reading failed because of a file's content, not because of the store.

    Arrow raises `OSError` for both: those of an operating system carry an errno, those of remote stores say so.
    """
    if isinstance(error, OSError):
        return error.errno is None and REMOTE.search(str(error)) is None
    return isinstance(error, pa.ArrowException)


@contextlib.contextmanager
def storage_errors(location: str) -> Iterator[None]:
    """Turn errors of the store itself into ours: full or away is a `StorageError`, which may be retried."""
    try:
        yield
    except OSError as error:
        raise _failure(location, error) from error


def _failure(location: str, error: OSError) -> ScoringError:
    text = str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return StorageError(f"writing to {location} failed", "free space", "disk full", "Free space, then run again.")
    if NO_BUCKET.search(text):
        return ConfigurationError(f"the bucket of {location} is missing", got=cause(error), hint="Create it.")
    if REFUSED.search(text):
        hint = "Check the credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        return ConfigurationError(f"the store refuses access to {location}", got=cause(error), hint=hint)
    if "load libjvm" in text or "load libhdfs" in text:
        hint = "Set JAVA_HOME, HADOOP_HOME and CLASSPATH as Hadoop's documentation of libhdfs says."
        return ConfigurationError(f"{location} cannot be opened", "Hadoop's native library", cause(error), hint)
    return StorageError(f"reading or writing {location} failed", got=cause(error), hint="Run again later.")
