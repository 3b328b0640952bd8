"""A Spark master and workers with one core each, on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scoring.stack.ports import Ports

DEADLINE_S = 60.0


@contextmanager
def running_cluster(workers: int) -> Iterator[str]:
    """Run a master and workers for the time inside; gives the master's address."""
    ports = Ports.free()
    address = f"spark://127.0.0.1:{ports.airflow}"
    spark_class = str(Path(sys.executable).with_name("spark-class"))
    with tempfile.TemporaryDirectory(prefix="bench-cluster-") as folder, ExitStack() as started:
        environment = {
            **os.environ,
            "SPARK_MASTER_HOST": "127.0.0.1",
            "SPARK_MASTER_PORT": str(ports.airflow),
            "SPARK_MASTER_WEBUI_PORT": str(ports.mlflow),
            "SPARK_WORKER_CORES": "1",
            "SPARK_WORKER_MEMORY": "2g",
            "SPARK_WORKER_DIR": folder,
            "SPARK_WORKER_WEBUI_PORT": "0",
        }
        log = Path(folder) / "log"
        with log.open("w") as handle:
            for arguments in [["master.Master"], *[["worker.Worker", address]] * workers]:
                command = [spark_class, f"org.apache.spark.deploy.{arguments[0]}", *arguments[1:]]
                process = started.enter_context(
                    subprocess.Popen(command, env=environment, stdout=handle, stderr=handle)
                )
                started.callback(process.terminate)
            deadline = time.monotonic() + DEADLINE_S
            while log.read_text().count("Registering worker") < workers:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"Spark workers did not come up: {log.read_text()[-300:]}")
                time.sleep(0.1)
            yield address
