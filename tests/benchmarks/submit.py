"""Runs a script under `spark-submit`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def submit(script: Path, *arguments: str, cores: int, java_options: str) -> None:
    """Run a script in Spark's local mode and wait for its end.

    Raises:
        CalledProcessError: it failed.
    """
    command = [str(Path(sys.executable).with_name("spark-submit")), "--master", f"local[{cores}]"]
    command += ["--conf", f"spark.driver.extraJavaOptions={java_options}", "--name", "bench", str(script), *arguments]
    subprocess.run(command, check=True)
