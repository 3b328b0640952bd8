"""The distributed shape: accepted by Compose, safe by default; its scripts run for real where that needs no Docker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.spark.cluster import DEADLINE_S, ENTRYPOINT, Cluster, running_cluster, until

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
ROLES = {
    *("airflow-api-server", "airflow-dag-processor", "airflow-init", "airflow-scheduler", "airflow-triggerer"),
    *("mail", "mlflow", "object-store", "postgres", "spark-master", "spark-worker", "spark-worker-gpu"),
}

needs_compose = pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")


def secret_names() -> list[str]:
    return re.findall(r"^([A-Z][A-Z0-9_]*)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)


def compose(tmp_path: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    copy = tmp_path / "docker-compose.yml"
    shutil.copy(COMPOSE, copy)  # away from a developer's own .env
    return subprocess.run(
        ["docker-compose", "--file", str(copy), *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def services(tmp_path: Path) -> dict[str, Any]:
    """The services as Compose understands them, with every secret set to a mark."""
    answer = compose(tmp_path, {name: f"mark-{name}" for name in secret_names()}, "config")
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = yaml.safe_load(answer.stdout)["services"]
    return found


@needs_compose
def test_compose_accepts_the_file_and_knows_every_role(services: dict[str, Any]) -> None:
    assert set(services) == ROLES


@needs_compose
@pytest.mark.parametrize("missing", secret_names())
def test_a_secret_that_is_not_set_is_asked_for(missing: str, tmp_path: Path) -> None:
    given = {name: "x" for name in secret_names() if name != missing}
    answer = compose(tmp_path, given, "config")
    assert answer.returncode != 0
    assert f"{missing}" in answer.stderr
    assert "set it in .env" in answer.stderr


@needs_compose
def test_nobody_is_root_and_images_are_pinned(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"10001:10001|postgres", service["user"]), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        tag = service["image"].rpartition(":")[2]
        assert tag == "local" or re.search(r"\d", tag), name


@needs_compose
def test_every_server_has_a_health_check(services: dict[str, Any]) -> None:
    servers = {name: service for name, service in services.items() if service["restart"] != "no"}
    assert set(services) - set(servers) == {"airflow-init"}
    assert [name for name, service in servers.items() if "healthcheck" not in service] == []


@needs_compose
def test_ports_are_published_on_loopback_only(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 5
    assert [port for port in published if not str(port).startswith("127.0.0.1:")] == []


@needs_compose
def test_the_gpu_worker_is_only_there_when_asked_for(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if service.get("profiles")} == {"spark-worker-gpu"}
    gpu = services["spark-worker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "-Dspark.worker.resource.gpu.amount=1" in gpu["environment"]["SPARK_WORKER_OPTS"]
    assert services["spark-worker"]["deploy"]["replicas"] == 2


@needs_compose
def test_every_secret_is_used_and_none_is_written_down(services: dict[str, Any]) -> None:
    text = yaml.safe_dump(services)
    assert [name for name in secret_names() if f"mark-{name}" not in text] == []
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD(?!S_FILE)|SECRET|FERNET|ACCESS_KEY|_USER$", name) and not name.endswith(
                "POSTGRES_USER"
            ):
                assert "mark-" in str(value), name


def test_what_the_dockerfile_copies_exists_and_is_sent_to_docker() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    dockerfile = (ROOT / "Dockerfile").read_text()
    copies = [
        line.split()[1:-1] for line in dockerfile.splitlines() if line.startswith("COPY ") and "--from" not in line
    ]
    copied = {source for sources in copies for source in sources if not source.startswith("--")}
    assert copied == sent
    assert [source for source in sorted(copied) if not (ROOT / source).exists()] == []


def test_the_dockerfile_pins_its_images_and_ends_without_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert all(re.search(r":\S*\d", line.split()[1]) for line in dockerfile.splitlines() if line.startswith("FROM"))
    stages = dockerfile.split("\nFROM ")[1:]
    assert [stage.splitlines()[0] for stage in stages if "\nUSER " not in stage] == [
        "python:3.11.13-slim-bookworm AS build"
    ]


# ------------------------------------------------------------------------------------------------- scripts, for real


@pytest.fixture
def spark_cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path) as cluster:
        yield cluster


@pytest.mark.spark
def test_the_cluster_gives_tasks_their_gpus_and_serves_only_who_knows_the_secret(
    spark_cluster: Cluster, tmp_path: Path
) -> None:
    address, environment = spark_cluster.address, spark_cluster.environment
    job = tmp_path / "job.py"
    job.write_text(
        "import sys\n"
        "from pyspark import TaskContext\n"
        "from pyspark.sql import SparkSession\n"
        "names = 'spark.cores.max', 'spark.task.resource.gpu.amount', 'spark.executor.resource.gpu.amount'\n"
        "ones = dict.fromkeys(names, '1')\n"
        "session = SparkSession.builder.master(sys.argv[1]).config(map=ones).getOrCreate()\n"
        "gpus = session.sparkContext.range(1).map(lambda _: TaskContext.get().resources()['gpu'].addresses).collect()\n"
        "print(gpus)\n"
    )
    command = [str(ENTRYPOINT), sys.executable, str(job), address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.stdout in {"[['0']]\n", "[['1']]\n"}, done.stderr
    assert (tmp_path / "conf" / "spark-defaults.conf").stat().st_mode & 0o077 == 0

    stranger = {**environment, "SPARK_SECRET": "a guess", "SPARK_CONF_DIR": str(tmp_path / "stranger")}
    with (
        (tmp_path / "stranger.log").open("w") as log,
        subprocess.Popen(command, env=stranger, stdout=log, stderr=log) as refused,
    ):
        refusal = "Failed to connect to master"
        until(lambda: refusal in (tmp_path / "stranger.log").read_text() or refused.poll() is not None)
        refused.kill()
    assert "[[" not in (tmp_path / "stranger.log").read_text()
