"""An S3 server on loopback (moto's), with one bucket for each test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pyarrow import fs

DEADLINE_S = 60.0


@dataclass(frozen=True)
class ObjectStore:
    """A bucket."""

    filesystem: fs.FileSystem
    bucket: str

    @staticmethod
    def create(address: str) -> ObjectStore:
        """Create an empty bucket."""
        store = ObjectStore(
            fs.S3FileSystem(
                access_key="testing",
                secret_key="testing",
                endpoint_override=address,
                region="us-east-1",
                allow_bucket_creation=True,
            ),
            f"bucket-{uuid4().hex}",
        )
        store.filesystem.create_dir(store.bucket)
        return store

    @property
    def url(self) -> str:
        """Address of the bucket."""
        return f"s3://{self.bucket}"

    def upload(self, folder: Path, path: str) -> None:
        """Copy a local folder into the bucket."""
        fs.copy_files(str(folder), f"{self.bucket}/{path}", destination_filesystem=self.filesystem)

    def files(self, path: str = "") -> list[str]:
        """Return the paths, within the bucket, of all files below a folder."""
        selector = fs.FileSelector(f"{self.bucket}/{path}".rstrip("/"), recursive=True, allow_not_found=True)
        found = [info.path for info in self.filesystem.get_file_info(selector) if info.type is fs.FileType.File]
        return sorted(name.removeprefix(f"{self.bucket}/") for name in found)


@contextmanager
def running_store(log: Path, **environment: str) -> Iterator[str]:
    """Start a server and yield its address."""
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"]
    with (
        log.open("w") as output,
        subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output) as server,
    ):
        try:
            yield _address(log, server)
        finally:
            server.terminate()


def _address(log: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and server.poll() is None:
        found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text("utf-8"))
        if found:
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"the S3 server did not start: {log.read_text('utf-8')}")
