"""An artifact's files as a folder, for libraries that read nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from scoring.models.base import Files

PREFIX: Final = "scoring-model-"
"""Names of temporary folders begin with it."""


@contextmanager
def unpacked(files: Files) -> Iterator[Path]:
    """Write files into a temporary folder of their own, which is removed at the end.

    Raises:
        ValueError: a path leads out of the folder.
    """
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        write(files, Path(name))
        yield Path(name)


def write(files: Files, folder: Path) -> None:
    """Write files below a folder.

    Raises:
        ValueError: a path leads out of the folder.
    """
    for path, content in files.items():
        relative = PurePosixPath(path)
        if relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"path {path!r} leads out of the artifact")
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
