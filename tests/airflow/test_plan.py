"""What Airflow is to do for a deployment, without Airflow."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from scoring.deployment import Deployment, Online, load
from scoring_airflow import plan
from tests.airflow import deployments


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCORING_DEPLOYMENTS", str(tmp_path))
    return tmp_path


def deployment(folder: Path, **options: object) -> Deployment:
    deployments.write(folder, "flights", **options)  # type: ignore[arg-type]
    return load("flights")


def task_ids(planned: plan.DagPlan) -> list[str]:
    return [task.task_id for task in planned.tasks]


def test_a_deployment_has_three_dags(folder: Path) -> None:
    score, retrain, redeploy = plan.dags(deployment(folder))
    assert (score.dag_id, retrain.dag_id, redeploy.dag_id) == plan.dag_ids("flights")
    assert task_ids(score) == ["score", "check", "publish", "drift", "trigger_retrain", "notify"]
    assert task_ids(retrain) == ["train", "trigger_redeploy"]
    assert task_ids(redeploy) == ["redeploy"]


def test_without_retrain_nothing_is_retrained(folder: Path) -> None:
    (score,) = plan.dags(deployment(folder, retrain=False))
    assert task_ids(score) == ["score", "check", "publish", "drift", "notify"]


def test_models_that_learn_online_learn_one_night_after_the_other(folder: Path) -> None:
    online = Online(after="labels", first=date(2024, 1, 1))
    score = plan.score_dag(deployment(folder).model_copy(update={"online": online}))
    assert task_ids(score) == ["score", "check", "publish", "drift", "learn", "trigger_retrain", "notify"]
    (learn,) = [task for task in score.tasks if task.task_id == "learn"]
    assert isinstance(learn, plan.Job)
    assert (learn.script, learn.one_at_a_time) == ("learn.py", True)


def test_without_drift_nothing_is_watched(folder: Path) -> None:
    (score,) = plan.dags(deployment(folder, drift=False, retrain=False))
    assert task_ids(score) == ["score", "check", "publish", "notify"]


def test_a_person_approves_only_where_the_deployment_says_so(folder: Path) -> None:
    *_, redeploy = plan.dags(deployment(folder, approval=True))
    assert task_ids(redeploy) == ["approve", "redeploy"]


def test_the_command_line_of_a_job(folder: Path) -> None:
    score, _, redeploy = plan.dags(deployment(folder))
    first = score.tasks[0]
    assert isinstance(first, plan.SparkJob)
    assert (first.script, first.deployment) == ("score.py", "flights")
    assert [option for option, _ in first.options] == ["--partition", "--dag-run-id", "--trigger"]
    last = redeploy.tasks[-1]
    assert isinstance(last, plan.Job)
    assert last.options[-1][0] == "--training-run-id"


def test_only_drift_is_taken_one_night_after_the_other(folder: Path) -> None:
    score = next(plan.dags(deployment(folder)))
    assert [task.task_id for task in score.tasks if isinstance(task, plan.Job) and task.one_at_a_time] == ["drift"]


def test_nights_follow_schedule_and_lag(folder: Path) -> None:
    assert next(plan.dags(deployment(folder, lag_days=2))).nightly == plan.Nightly("0 3 * * *", 2)
    assert next(plan.dags(deployment(folder, schedule=None))).nightly == plan.Nightly(None, 1)


def test_an_owner_with_a_comma_stays_one_owner(folder: Path) -> None:
    assert "," not in next(plan.dags(deployment(folder, team="Flights, and more"))).owner


def test_documentation_names_what_people_ask_for(folder: Path) -> None:
    text = next(plan.dags(deployment(folder, team="Data | Ops"))).documentation
    for fact in (
        "owner@example.com",
        r"Data \| Ops",
        "`0 3 * * *` UTC",
        "/lake/night=",
        "models:/delay@champion",
    ):
        assert fact in text


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (
            {"sql": "select *\n  from a | b where night = :partition"},
            r"`select * from a \| b where night = :partition`",
        ),
        ({"table": "lake.flights"}, "table `lake.flights`"),
    ],
)
def test_documentation_names_queries_and_tables(folder: Path, source: dict[str, str], shown: str) -> None:
    given = deployment(folder, team="Data")
    document = given.model_copy(update={"input": given.input.model_copy(update={"path": None, **source})})
    assert f"| input | {shown} |" in next(plan.dags(document)).documentation


def test_the_plan_needs_no_airflow(folder: Path) -> None:
    deployments.write(folder, "flights")
    source = (
        "import sys; from scoring.deployment import load; from scoring_airflow import plan\n"
        "assert len(list(plan.dags(load('flights')))) == 3\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'airflow']"
    )
    subprocess.run([sys.executable, "-c", source], check=True, env=python_path())


def python_path() -> dict[str, str]:
    import os

    project = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(project), str(project / "plugins")))}
