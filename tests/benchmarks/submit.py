"""Runs a script under `spark-submit`, with the options of Airflow's operator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scoring.java import LOGGING_OPTION


def submit(script: Path, *arguments: str, cores: int) -> None:
    """Run a script in Spark's local mode and wait for its end.

    Raises:
        CalledProcessError: it failed.
    """
    command = [str(Path(sys.executable).with_name("spark-submit")), "--master", f"local[{cores}]"]
    command += ["--conf", f"spark.driver.extraJavaOptions={LOGGING_OPTION}", "--name", "bench", str(script), *arguments]
    subprocess.run(command, check=True)
