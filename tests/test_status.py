"""Which runs of a partition are shown, over a real MLflow store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from scoring import runs, settings
from scoring.deployment import Deployment, parse
from scoring.errors import ConfigurationError
from scoring.runs import RunKind, RunState, RunStore, client
from scoring.status import PartitionStatus, champions, partitions, standing

DEPLOYMENT = """
name: {name}
owner: {{team: A, email: [a@example.com]}}
input: {{path: /lake, partition: day, keys: [id]}}
output: {{path: /predictions}}
score: {{ensemble: {{combine: mean, members: {{one: {{model: "models:/{name}_one@champion"}},
                                             two: {{model: "models:/{name}_two@champion"}}}}}}}}
"""


@pytest.fixture(scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv(settings.HOME_VARIABLE, str(home))
        patch.setenv(settings.TRACKING_VARIABLE, f"sqlite:///{home / 'mlflow.db'}")
        yield


@pytest.fixture
def store(_store: None) -> RunStore:
    return RunStore()


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    """A deployment of its own for each test."""
    folder = tmp_path / f"d_{uuid4().hex}"
    return parse(DEPLOYMENT.format(name=folder.name), folder=folder)


def add(store: RunStore, deployment: Deployment, partition: str, state: RunState, **tags: str) -> str:
    run_id = store.start(deployment.name, partition, tags=tags)
    store.set_state(run_id, state)
    return run_id


def shown(found: list[PartitionStatus]) -> list[tuple[str, str]]:
    return [(entry.partition, str(entry.state)) for entry in found]


def test_newest_partition_comes_first_whenever_it_was_scored(store: RunStore, deployment: Deployment) -> None:
    for partition in ("2013-01-02", "2013-01-03", "2013-01-01"):
        add(store, deployment, partition, RunState.PUBLISHED)
    assert [entry.partition for entry in partitions(deployment)] == ["2013-01-03", "2013-01-02", "2013-01-01"]


def test_of_many_published_runs_the_newest_is_shown(store: RunStore, deployment: Deployment) -> None:
    add(store, deployment, "2013-01-01", RunState.PUBLISHED)
    newest = add(store, deployment, "2013-01-01", RunState.PUBLISHED)
    (entry,) = partitions(deployment)
    assert entry.run_id == newest
    assert entry.is_published


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.RUNNING, RunState.STAGED, RunState.CHECKED])
def test_a_newer_run_that_failed_or_goes_on_is_shown_besides(
    store: RunStore, deployment: Deployment, state: RunState
) -> None:
    add(store, deployment, "2013-01-01", RunState.PUBLISHED)
    add(store, deployment, "2013-01-01", RunState.FAILED)
    add(store, deployment, "2013-01-01", state)
    assert shown(partitions(deployment)) == [("2013-01-01", state), ("2013-01-01", "published")]


def test_older_failures_and_superseded_runs_are_history(store: RunStore, deployment: Deployment) -> None:
    add(store, deployment, "2013-01-01", RunState.FAILED)
    add(store, deployment, "2013-01-01", RunState.PUBLISHED)
    add(store, deployment, "2013-01-01", RunState.SUPERSEDED)
    assert shown(partitions(deployment)) == [("2013-01-01", "published")]


def test_a_partition_that_was_never_published_shows_its_last_failure(store: RunStore, deployment: Deployment) -> None:
    for error in ("first", "second"):
        last = add(store, deployment, "2013-01-01", RunState.FAILED, error=error)
    (entry,) = partitions(deployment)
    assert (entry.run_id, entry.error, entry.needs_attention) == (last, "second", True)


def test_limit_and_prefix_count_partitions_not_runs(
    store: RunStore, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PAGE_RUNS", 2)
    for partition in ("2013-01-01", "2013-01-02", "2013-02-01"):
        for state in (RunState.PUBLISHED, RunState.PUBLISHED, RunState.FAILED):
            add(store, deployment, partition, state)
    assert len(partitions(deployment)) == 6
    assert {entry.partition for entry in partitions(deployment, limit=2)} == {"2013-02-01", "2013-01-02"}
    assert {entry.partition for entry in partitions(deployment, prefix="2013-01")} == {"2013-01-02", "2013-01-01"}
    assert partitions(deployment, prefix="2013_0") == []
    assert partitions(deployment, prefix="%") == []


def test_runs_of_other_kinds_and_other_deployments_are_left_out(store: RunStore, deployment: Deployment) -> None:
    store.start(deployment.name, "2013-01-01", kind=RunKind.REFERENCE)
    store.start("another", "2013-01-01")
    assert partitions(deployment) == []


def test_what_a_run_recorded_becomes_values(store: RunStore, deployment: Deployment) -> None:
    run_id = add(
        store,
        deployment,
        "2013-01-01",
        RunState.PUBLISHED,
        model_versions=json.dumps({"one": 3}),
        checks="warning",
        share_of_drifted_columns="0.25",
        decision="notify",
        decision_reasons="a\nb",
        published_version="7",
        dag_run_id="manual__1",
        warning="slow\nno GPU",
    )
    store.log_metrics(run_id, {"rows": 10.0, "quarantined": 1.0, "rows_per_s": 2.5, "seconds": 4.0})
    (entry,) = partitions(deployment)
    document = entry.document()
    assert json.loads(json.dumps(document)) == document
    assert document.pop("started").startswith("20")
    assert document == {
        "partition": "2013-01-01",
        "state": "published",
        "rows": 10,
        "quarantined": 1,
        "run_id": run_id,
        "model_versions": {"one": 3},
        "checks": "warning",
        "drift": 0.25,
        "decision": "notify",
        "decision_reasons": ["a", "b"],
        "published_version": 7,
        "rows_per_s": 2.5,
        "seconds": 4.0,
        "warnings": ["slow", "no GPU"],
        "error": None,
        "dag_run_id": "manual__1",
    }


@pytest.mark.parametrize(
    ("tags", "needs_attention"),
    [
        ({}, False),
        ({"checks": "passed", "decision": "none", "share_of_drifted_columns": ""}, False),
        ({"checks": "warning"}, True),
        ({"decision": "notify"}, True),
        ({"warning": ""}, False),
        ({"warning": "slow"}, True),
        ({"error": "the drift step failed"}, True),
    ],
)
def test_attention_is_asked_for_what_went_wrong(
    store: RunStore, deployment: Deployment, tags: dict[str, str], needs_attention: bool
) -> None:
    add(store, deployment, "2013-01-01", RunState.PUBLISHED, **tags)
    (entry,) = partitions(deployment)
    assert entry.needs_attention is needs_attention
    assert entry.drift is None


def test_warnings_are_added_once_each(store: RunStore, deployment: Deployment) -> None:
    run_id = add(store, deployment, "2013-01-01", RunState.PUBLISHED)
    assert store.get(run_id).warnings == ()
    for sentence in ("no GPU was found", "scored 1 row/s", "no GPU was found"):
        store.warn(run_id, sentence)
    assert store.get(run_id).warnings == ("no GPU was found", "scored 1 row/s")


def test_one_partition_stands_as_in_the_list(store: RunStore, deployment: Deployment) -> None:
    for state in (RunState.PUBLISHED, RunState.FAILED, RunState.PUBLISHED, RunState.FAILED, RunState.FAILED):
        for partition in ("1", "10", "11"):
            add(store, deployment, partition, state)
    assert standing(deployment, "1") == [entry for entry in partitions(deployment) if entry.partition == "1"]
    assert len(standing(deployment, "1")) == 2
    assert standing(deployment, "2") == []


def test_champions_are_those_of_now(store: RunStore, deployment: Deployment) -> None:
    registry = client()
    registry.create_registered_model(f"{deployment.name}_one")
    for _ in range(2):
        registry.create_model_version(f"{deployment.name}_one", source="/nowhere")
    registry.set_registered_model_alias(f"{deployment.name}_one", "champion", "2")
    assert champions(deployment) == {f"{deployment.name}_one": 2, f"{deployment.name}_two": None}


def test_a_run_that_is_not_ours_is_not_found(store: RunStore) -> None:
    registry = client()
    foreign = registry.create_run(registry.create_experiment("foreign")).info.run_id
    for run_id in (foreign, "0" * 32, "not an id"):
        with pytest.raises(ConfigurationError, match=f"run '{run_id}' was not found"):
            store.get(run_id)
