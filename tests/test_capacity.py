from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scoring import testing
from scoring.capacity import BATCHES, WORKER_BYTES, Site, check_memory, need_of
from scoring.deployment import Resources
from scoring.errors import ConfigurationError
from scoring.plan import Plan, make_plan
from scoring.registry import Registry
from scoring.spark import site
from scoring.spark.site import machine_bytes, spark_bytes, worker_site

GIB = 2**30
NIGHT = "2013-01-01"


@pytest.fixture
def plan(home: Path) -> Plan:
    rows = testing.example_rows(100)
    testing.register_sklearn(testing.MODEL, rows.select(list(testing.FEATURES)).to_pandas(), rows["label"].to_numpy())
    testing.write_partition(home / "lake", testing.PARTITION, NIGHT, rows, row_group_rows=25)
    deployment = testing.write_deployment(home / "deployments" / "tiny", resources={"split_bytes": 1})
    return make_plan(deployment, NIGHT, registry=Registry())[0]


def grown(plan: Plan, *, model_bytes: int, row_group_bytes: int) -> Plan:
    """Return the plan as if its model and its rows were larger."""
    models = {uri: replace(model, size_bytes=model_bytes) for uri, model in plan.graph.models.items()}
    (file,) = plan.partition.files
    groups = tuple(replace(group, size_bytes=row_group_bytes) for group in file.row_groups)
    partition = replace(plan.partition, files=(replace(file, row_groups=groups),))
    return replace(plan, graph=replace(plan.graph, models=models), partition=partition)


def test_a_worker_needs_its_models_and_its_batches(plan: Plan) -> None:
    need = need_of(grown(plan, model_bytes=GIB, row_group_bytes=10 * GIB))
    assert need.models_bytes == GIB + 3 * GIB, "the file, and what scikit-learn makes of it"
    assert need.batches_bytes == BATCHES * plan.deployment.resources.batch_bytes
    assert need.total_bytes == WORKER_BYTES + need.models_bytes + need.batches_bytes


def test_of_a_small_partition_no_more_than_all_of_it_is_held(plan: Plan) -> None:
    assert need_of(grown(plan, model_bytes=1, row_group_bytes=1000)).batches_bytes == BATCHES * 4 * 1000


def test_what_fits_is_not_refused(plan: Plan) -> None:
    check_memory(plan, Site("this machine", 2, 2 * need_of(plan).total_bytes))
    check_memory(plan, Site("this machine", 64, 4 * need_of(plan).total_bytes))  # there are only four splits


def test_what_cannot_fit_is_refused_with_numbers(plan: Plan) -> None:
    big = grown(plan, model_bytes=3 * GIB // 2, row_group_bytes=GIB)
    sentence = (
        r"the workers of 'tiny' do not fit into memory: expected at most 16\.0 GiB on this machine, "
        r"got 3 x 6\.7 GiB = 20\.0 GiB \(models 6\.0 GiB, batches 0\.4 GiB, libraries 0\.3 GiB\)\. "
        r"Raise 'resources\.cpus_per_task'"
    )
    with pytest.raises(ConfigurationError, match=sentence):
        check_memory(big, Site("this machine", 3, 16 * GIB))
    check_memory(big, Site("this machine", 2, 16 * GIB))


@pytest.mark.parametrize(
    ("text", "expected"), [("512m", 2**29), ("2g", 2**31), ("1gb", 2**30), ("2048", 2**31), ("4K", 2**12)]
)
def test_sizes_are_read_as_spark_writes_them(text: str, expected: int) -> None:
    assert spark_bytes(text) == expected


def test_other_texts_are_no_sizes() -> None:
    with pytest.raises(ValueError, match="'much' is no size"):
        spark_bytes("much")


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = machine_bytes()
    assert whole > GIB // 2
    monkeypatch.setattr(site, "CGROUP_LIMIT", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("max\n", "ascii")
    assert machine_bytes() >= whole
    (tmp_path / "memory.max").write_text("1048576\n", "ascii")
    assert machine_bytes() == 2**20


def session(master: str, parallelism: int, **conf: str) -> Any:
    """What `worker_site` asks of a session."""
    names = {f"spark.executor.{name.replace('_', '.')}": value for name, value in conf.items()}
    context = SimpleNamespace(
        master=master, defaultParallelism=parallelism, getConf=lambda: SimpleNamespace(get=names.get)
    )
    return SimpleNamespace(sparkContext=context)


def test_workers_share_a_machine_or_an_executor() -> None:
    two = Resources(cpus_per_task=2)
    assert worker_site(session("local[4]", 4), two) == Site("this machine", 2, machine_bytes())
    assert worker_site(session("local[1]", 1), two) == Site("this machine", 1, machine_bytes())
    cluster = worker_site(session("spark://x:1", 64, pyspark_memory="8g", cores="8"), two)
    assert cluster == Site("each Spark executor (spark.executor.pyspark.memory)", 4, 8 * GIB)
    assert worker_site(session("spark://x:1", 64, cores="8"), two) is None
    assert worker_site(session("yarn", 64, pyspark_memory="8g"), two) is None
