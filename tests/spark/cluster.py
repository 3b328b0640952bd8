"""A Spark master and a worker with two pretended GPUs, started on loopback by the Compose file's own entry point."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scoring import settings
from scoring.stack.ports import Ports

ROOT = Path(__file__).resolve().parents[2]
CONTAINER = ROOT / "scoring" / "stack" / "container"
ENTRYPOINT = CONTAINER / "entrypoint.sh"
DEADLINE_S = 120.0


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    address: str
    environment: dict[str, str]
    """What a driver needs to be served, once it is started by the entry point."""


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start a cluster whose logs and work lie in `folder`."""
    ports = Ports.free()
    (folder / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    (folder / "nvidia-smi").chmod(0o755)
    environment = {
        # MLflow leaves the address of the store that was used last in this process's environment.
        **{name: value for name, value in os.environ.items() if name != settings.TRACKING_VARIABLE},
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SPARK_CONF_DIR": str(folder / "conf"),
        "SPARK_SECRET": "known to all parts",
        "SPARK_MASTER_HOST": "127.0.0.1",
        "SPARK_MASTER_PORT": str(ports.airflow),
        "SPARK_MASTER_WEBUI_PORT": str(ports.mlflow),
        "SPARK_WORKER_DIR": str(folder / "work"),
        "SPARK_WORKER_WEBUI_PORT": str(ports.smtp),
        "SPARK_WORKER_OPTS": "-Dspark.worker.resource.gpu.amount=2 "
        f"-Dspark.worker.resource.gpu.discoveryScript={CONTAINER / 'list_gpus.sh'}",
    }
    address = f"spark://127.0.0.1:{ports.airflow}"
    with ExitStack() as started:
        for name, arguments in {"master.Master": (), "worker.Worker": (address,)}.items():
            command = [ENTRYPOINT, "spark-class", f"org.apache.spark.deploy.{name}", *arguments]
            log = started.enter_context((folder / f"{name}.log").open("w"))
            process = started.enter_context(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            started.callback(process.terminate)
        until(lambda: "Registering worker" in (folder / "master.Master.log").read_text())
        yield Cluster(address, environment)


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
