"""Scoring with a resource profile on a real Spark standalone cluster whose GPUs are pretended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scoring import settings
from scoring.testing import (
    FEATURES,
    MODEL,
    PARTITION,
    example_rows,
    register_sklearn,
    write_deployment,
    write_partition,
)
from tests.spark.cluster import DEADLINE_S, ENTRYPOINT, Cluster, running_cluster

pytestmark = pytest.mark.spark
NIGHT = "2024-02-29"
DEVICES = """
import json

from scoring.deployment import Resources
from scoring.spark import device, session

resources = Resources(gpus_per_task=1)


def devices(frames):
    import pandas as pd

    device.visible_gpus = lambda: 2  # as if the driver library saw the GPUs that Spark was told of
    for frame in frames:
        yield pd.DataFrame({"device": [device.task_device(resources)] * len(frame)})


spark = session.open_session("devices", resources)
tasks = spark.range(0, 4, 1, 4)
found = tasks.mapInPandas(devices, "device string", profile=session.resource_profile(spark, resources)).collect()
print(json.dumps([row.device for row in found]))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def run(cluster: Cluster, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **cluster.environment,
        settings.HOME_VARIABLE: str(home),
        settings.DEPLOYMENTS_VARIABLE: str(home / "deployments"),
        settings.SPARK_MASTER_VARIABLE: cluster.address,
    }
    command = [str(ENTRYPOINT), sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=2 * DEADLINE_S)


def test_a_task_is_pinned_to_the_gpu_that_spark_gave_it(cluster: Cluster, home: Path) -> None:
    (home / "devices.py").write_text(DEVICES, encoding="utf-8")
    done = run(cluster, str(home / "devices.py"), home=home)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 4
    assert set(found) <= {"cuda:0", "cuda:1"}


def test_a_night_is_scored_on_executors_with_a_resource_profile(cluster: Cluster, home: Path) -> None:
    rows = example_rows(400, seed=1)
    model = register_sklearn(MODEL, rows.select(list(FEATURES)).to_pandas(), rows["label"].to_numpy())
    night = rows.drop_columns(["label"])
    write_partition(home / "lake", PARTITION, NIGHT, night, files=4)
    write_deployment(home / "deployments" / "example", resources={"gpus_per_task": 1, "split_bytes": 1})
    done = run(cluster, "-m", "scoring", "run", "example", "-p", NIGHT, "--json", home=home)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == 400
    assert "no GPU was found on the Spark executors" in " ".join(found["warnings"])
    assert model.version == found["model_versions"][MODEL]
