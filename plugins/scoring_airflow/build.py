"""Turns the plan of a deployment into Airflow's Dags."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_never

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param, chain

from scoring_airflow import plan
from scoring_airflow.operators import JobOperator, NotifyOperator, ScoreOperator, TriggerOperator
from scoring_airflow.timetable import ByHandTimetable, NightlyTimetable

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from scoring.deployment import Deployment


def build(deployment: Deployment) -> Iterator[DAG]:
    """Yield the Dags of a deployment."""
    for planned in plan.dags(deployment):
        yield build_dag(planned)


def build_dag(planned: plan.DagPlan) -> DAG:
    """Return one Dag, its tasks one after another."""
    with DAG(
        planned.dag_id,
        description=planned.description,
        doc_md=planned.documentation,
        schedule=_timetable(planned.nightly),
        catchup=False,
        tags=sorted(planned.tags),
        params={parameter.name: _param(parameter) for parameter in planned.parameters},
        max_active_runs=planned.max_active_runs,
        # The Dag file names its Dags itself; else a file that only looks for errors would have them too.
        auto_register=False,
        # A Dag that only other Dags and people start does nothing by itself; paused, it would keep their runs waiting.
        is_paused_upon_creation=False if planned.nightly is None else None,
        default_args={
            "owner": planned.owner,
            "retries": planned.retry.retries,
            "retry_delay": timedelta(seconds=planned.retry.delay_s),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(seconds=planned.retry.max_delay_s),
        },
    ) as dag:
        tasks = [_operator(task) for task in planned.tasks]
        if len(tasks) > 1:
            chain(*tasks)
    return dag


def _operator(task: plan.Task) -> BaseOperator:
    match task:
        case plan.SparkJob():
            return ScoreOperator(reads_rows=task.reads_rows, **_job(task))
        case plan.Job():
            return JobOperator(**_job(task))
        case plan.Trigger():
            return TriggerOperator(
                task_id=task.task_id, trigger_dag_id=task.dag_id, conf=dict(task.conf), condition=task.condition
            )
        case plan.Approval():
            return ApprovalOperator(task_id=task.task_id, subject=task.subject, body=task.body)
        case plan.Notify():
            operator = NotifyOperator(
                task_id=task.task_id,
                deployment=task.deployment,
                partition=task.partition,
                dag_run_id=task.dag_run_id,
                trigger=task.trigger,
            )
            # A teardown runs whatever happened before, and the state of the Dag run is that of the tasks before it.
            return operator.as_teardown(on_failure_fail_dagrun=False)
        case _:
            assert_never(task)


def _job(task: plan.Job) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "script": task.script,
        "deployment": task.deployment,
        "options": task.options,
        "max_active_tis_per_dag": 1 if task.one_at_a_time else None,
    }


def _timetable(nightly: plan.Nightly | None) -> NightlyTimetable | None:
    if nightly is None:
        return None
    return NightlyTimetable(nightly.cron, lag_days=nightly.lag_days) if nightly.cron else ByHandTimetable()


def _param(parameter: plan.Parameter) -> Param:
    kinds = {"format": "date"} if parameter.is_date else {}
    return Param(None, parameter.description, type=["null", "string"], **kinds)
