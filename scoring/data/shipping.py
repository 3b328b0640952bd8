"""Big model files travel to Spark executors by a folder that all share, instead of a broadcast.

A broadcast is copied into the memory of the driver and of every Python worker for as long as the run lasts; a shared
file is read when a worker loads the model, and then forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from scoring.data.parts import writing_file
from scoring.data.storage import open_storage, storage_errors
from scoring.errors import StorageError
from scoring.models.base import Files

FOLDER: Final = "models"
"""Below the shared root; holds one folder per digest. What no run uses may be deleted at any time."""


@dataclass(frozen=True, slots=True)
class SharedFiles(Mapping[str, bytes]):
    """The files of a model's artifact in a shared folder; a file is read whenever it is asked for.

    Whoever loads the model verifies the bytes that it has read, not those that lie there.
    """

    location: str
    """Path or URL of the folder."""
    sizes: Mapping[str, int]
    """Bytes by relative path."""

    def __getitem__(self, path: str) -> bytes:
        self.sizes[path]  # a file that nobody shipped is none
        filesystem, root = open_storage(self.location)
        with storage_errors(self.location):
            try:
                with filesystem.open_input_file(f"{root}/{path}") as file:
                    content: bytes = file.read()
            except FileNotFoundError as error:
                raise StorageError(
                    f"file {path} of a model is not in {self.location}",
                    "a folder that the driver and all Spark executors share",
                    "none, or one without the file",
                    "Share the folder, or raise the size above which models are not broadcast.",
                ) from error
        return content

    def __iter__(self) -> Iterator[str]:
        return iter(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)


def ship(files: Mapping[str, Files], *, limit_bytes: int, shared: str) -> dict[str, Files]:
    """Return model files by digest as they should travel. Runs on the driver.

    Args:
        files: the artifacts' files by digest.
        limit_bytes: size of a model up to which it stays bytes.
        shared: path or URL of a folder that the driver and all Spark executors share.

    Raises:
        StorageError: the folder cannot be written to.
    """
    shipped: dict[str, Files] = {}
    for digest, content in files.items():
        sizes = {path: len(data) for path, data in content.items()}
        if sum(sizes.values()) <= limit_bytes:
            shipped[digest] = content
            continue
        location = f"{shared.rstrip('/')}/{FOLDER}/{digest}"
        for path, data in content.items():
            _store(location, path, data)
        shipped[digest] = SharedFiles(location, sizes)
    return shipped


def _store(location: str, path: str, content: bytes) -> None:
    filesystem, root = open_storage(location)
    with storage_errors(location):
        is_stored = filesystem.get_file_info(f"{root}/{path}").size == len(content)
    if not is_stored:
        with writing_file(location, path) as stream:
            stream.write(content)
