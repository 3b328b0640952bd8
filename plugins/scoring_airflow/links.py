"""Operator extra links: from a task to its drift report, its check result, its run report and its MLflow run.

Airflow's worker builds them when the task has ended and keeps them as XCom, so an operator names them in
`operator_extra_links`. All tasks of a Dag run work on one scoring run: a task that failed before it could return its
`run_id` still leads to the reports of the run that the score task started.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.xcom import XCom

from scoring.addresses import Report, mlflow_run, report_page
from scoring_airflow.plan import score_id

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

    from scoring_airflow.operators import JobOperator, ScoreOperator

    JobTask: TypeAlias = JobOperator | ScoreOperator

SCORE_TASK: Final = "score"
"""The task that starts the scoring run."""


class DriftReportLink(BaseOperatorLink):
    """To the drift report of the night that the task worked on."""

    name = "Drift report"

    def get_link(self, operator: JobTask, *, ti_key: TaskInstanceKey) -> str:
        """Return the address; empty when the task worked on no night, which shows no link."""
        return _report(operator, ti_key, Report.DRIFT)


class CheckResultLink(BaseOperatorLink):
    """To the quality report of the night that the task worked on."""

    name = "Check result"

    def get_link(self, operator: JobTask, *, ti_key: TaskInstanceKey) -> str:
        """Return the address; empty when the task worked on no night, which shows no link."""
        return _report(operator, ti_key, Report.QUALITY)


class RunReportLink(BaseOperatorLink):
    """To what scoring the night took."""

    name = "Run report"

    def get_link(self, operator: JobTask, *, ti_key: TaskInstanceKey) -> str:
        """Return the address; empty when the task worked on no night, which shows no link."""
        return _report(operator, ti_key, Report.RUN)


class MlflowRunLink(BaseOperatorLink):
    """To the task's run in MLflow's UI."""

    name = "MLflow run"

    def get_link(self, operator: JobTask, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the address; empty when there is no run or nobody knows where MLflow's UI is."""
        run_id = _run_id(ti_key)
        return (mlflow_run(run_id) or "") if run_id else ""


LINKS: Final = (DriftReportLink(), CheckResultLink(), RunReportLink(), MlflowRunLink())
"""What operators that start a job name in `operator_extra_links`."""


def _report(operator: JobTask, ti_key: TaskInstanceKey, report: Report) -> str:
    if ti_key.dag_id != score_id(operator.deployment):
        return ""  # runs of training and promotion keep no reports
    # The path alone: whatever host name people use for Airflow's UI, the link stays in it.
    airflow = urlsplit(conf.get("api", "base_url", fallback="")).path
    run_id = _run_id(ti_key)
    return report_page(run_id, report, airflow=airflow) if run_id else ""


def _run_id(ti_key: TaskInstanceKey) -> str | None:
    place = {"dag_id": ti_key.dag_id, "run_id": ti_key.run_id, "key": "return_value"}
    own: Any = XCom.get_one(task_id=ti_key.task_id, map_index=ti_key.map_index, **place)
    for returned in (own, XCom.get_one(task_id=SCORE_TASK, **place) if ti_key.task_id != SCORE_TASK else None):
        if isinstance(returned, Mapping) and isinstance(returned.get("run_id"), str):
            return str(returned["run_id"])
    return None
