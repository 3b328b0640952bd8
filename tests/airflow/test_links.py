"""Links of tasks: what they lead to, from what Airflow keeps of a Dag run."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.execution_time.xcom import XCom
from airflow.serialization.serialized_objects import DagSerialization

from scoring_airflow.links import LINKS, CheckResultLink, DriftReportLink, MlflowRunLink, RunReportLink
from scoring_airflow.operators import JobOperator

RUN = "0123456789abcdef0123456789abcdef"
Returned = Callable[[dict[str, Any]], None]


@pytest.fixture
def returned(monkeypatch: pytest.MonkeyPatch) -> Returned:
    """Says what the tasks of the Dag run returned; Airflow asks its API server for it."""

    def settle(values: dict[str, Any]) -> None:
        def get_one(*, task_id: str, dag_id: str, run_id: str, key: str, map_index: int | None = None) -> Any:
            assert (run_id, key) == ("manual__1", "return_value")
            return values.get(task_id)

        monkeypatch.setattr(XCom, "get_one", get_one)

    return settle


def link(found: Any, *, task_id: str, dag_id: str = "score_flights") -> str:
    with DAG(dag_id, schedule=None):
        task = JobOperator(task_id=task_id, script="x.py", deployment="flights", options=())
    key = SimpleNamespace(dag_id=dag_id, task_id=task_id, run_id="manual__1", map_index=-1, try_number=1)
    address: str = found.get_link(task, ti_key=key)
    return address


def test_a_task_leads_to_the_reports_of_the_run_it_returned(returned: Returned) -> None:
    returned({"drift": {"run_id": RUN, "decision": "none"}})
    assert link(DriftReportLink(), task_id="drift") == f"/plugin/scoring/scoring/runs/{RUN}/drift"
    assert link(CheckResultLink(), task_id="drift") == f"/plugin/scoring/scoring/runs/{RUN}/quality"
    assert link(RunReportLink(), task_id="drift") == f"/plugin/scoring/scoring/runs/{RUN}/run"


def test_a_failed_task_leads_to_the_run_that_the_score_task_started(returned: Returned) -> None:
    returned({"score": {"run_id": RUN}})
    assert link(CheckResultLink(), task_id="check").endswith(f"/{RUN}/quality")


def test_a_task_without_a_run_has_no_link(returned: Returned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORING_MLFLOW_UI", "http://mlflow.example.com")
    for values in ({}, {"score": None}, {"score": "text"}, {"score": {"rows": 1}}):
        returned(values)
        assert [link(found, task_id="score") for found in LINKS] == ["", "", "", ""]


def test_training_has_an_mlflow_run_but_no_report_of_a_night(
    returned: Returned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCORING_MLFLOW_UI", "http://mlflow.example.com/")
    returned({"train": {"run_id": RUN}})
    links = [link(found, task_id="train", dag_id="retrain_flights") for found in LINKS]
    assert links == ["", "", "", f"http://mlflow.example.com/#/runs/{RUN}"]


def test_mlflows_address_is_left_out_when_nobody_can_open_it(
    returned: Returned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db")
    returned({"score": {"run_id": RUN}})
    assert link(MlflowRunLink(), task_id="score") == ""


def test_links_follow_an_airflow_below_a_path(returned: Returned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://host.example.com/air/")
    returned({"score": {"run_id": RUN}})
    assert link(DriftReportLink(), task_id="score") == f"/air/plugin/scoring/air/scoring/runs/{RUN}/drift"


def test_links_survive_serialisation() -> None:
    with DAG("score_flights", schedule=None) as dag:
        JobOperator(task_id="check", script="x.py", deployment="flights", options=())
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    kept = {found.name: found.xcom_key for found in again.get_task("check").operator_extra_links}
    assert kept == {found.name: found.xcom_key for found in LINKS}
    assert list(kept) == ["Drift report", "Check result", "Run report", "MLflow run"]
