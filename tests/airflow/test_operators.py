"""Operators over real processes: what they return, what they raise, what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from scoring_airflow.operators import JobOperator, ScoreOperator, TriggerOperator, job_arguments, send_mail
from scoring_airflow.plan import Condition

NIGHT = "2013-07-01"
OPTIONS = [("--partition", NIGHT), ("--dag-run-id", "manual__1"), ("--trigger", "manual")]


class TaskInstance:
    """The little that operators ask of Airflow's task instance."""

    def __init__(self, **results: Any) -> None:
        self.results = results
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, *, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, *, task_ids: str) -> Any:
        return self.results.get(task_ids)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    for script in ("score.py", "check.py"):
        shutil.copy(Path(__file__).parent / "jobs" / "job.py", jobs / script)
    monkeypatch.setenv("PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    monkeypatch.setenv("SCORING_HOME", str(tmp_path))
    monkeypatch.setenv("SCORING_JOBS", str(jobs))
    monkeypatch.setenv("AIRFLOW_CONN_SPARK_DEFAULT", json.dumps({"conn_type": "spark", "host": "local[1]"}))
    return tmp_path


@pytest.fixture(params=[JobOperator, ScoreOperator])
def operator(request: pytest.FixtureRequest, home: Path) -> JobOperator | ScoreOperator:
    script = "check.py" if request.param is JobOperator else "score.py"
    made: JobOperator | ScoreOperator = request.param(
        task_id="task", script=script, deployment="flights", options=OPTIONS
    )
    return made


def behave(home: Path, **behaviour: Any) -> None:
    both = {f"{script} {NIGHT}": behaviour for script in ("score.py", "check.py")}
    (home / "behaviour.json").write_text(json.dumps(both))


def test_a_job_is_called_with_its_command_line_and_returns_its_result(
    operator: JobOperator | ScoreOperator, home: Path
) -> None:
    assert operator.execute({"ti": TaskInstance()}) == {"run_id": f"{operator.script} {NIGHT}"}
    call = json.loads((home / "calls.jsonl").read_text())
    assert {key: call[key] for key in ("deployment", "--partition", "--dag-run-id", "--trigger")} == {
        "deployment": "flights",
        "--partition": NIGHT,
        "--dag-run-id": "manual__1",
        "--trigger": "manual",
    }


@pytest.mark.parametrize(("exit_code", "is_final"), [(1, False), (2, True), (3, True), (75, False)])
def test_exit_codes_decide_about_retries(
    operator: JobOperator | ScoreOperator, home: Path, exit_code: int, is_final: bool
) -> None:
    behave(home, exit=exit_code, say="data is bad: expected 1, got 2.")
    task = TaskInstance()
    with pytest.raises(AirflowException, match=rf"exit code {exit_code}: data is bad: expected 1, got 2\.") as raised:
        operator.execute({"ti": task})
    assert isinstance(raised.value, AirflowFailException) is is_final
    assert task.pushed == {"error": "data is bad: expected 1, got 2."}


def test_a_job_that_is_killed_may_be_tried_again(operator: JobOperator | ScoreOperator, home: Path) -> None:
    behave(home, seconds=300)
    pid: list[int] = []

    def kill_when_called() -> None:
        deadline = time.monotonic() + 60
        while not (home / "calls.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        pid.append(json.loads((home / "calls.jsonl").read_text())["pid"])
        operator.on_kill()

    killer = threading.Thread(target=kill_when_called)
    killer.start()
    with pytest.raises(AirflowException) as raised:
        operator.execute({"ti": TaskInstance()})
    killer.join()
    assert not isinstance(raised.value, AirflowFailException)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid[0])


def test_spark_without_spark_submit_is_a_matter_of_configuration(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    operator = ScoreOperator(task_id="score", script="score.py", deployment="flights", options=OPTIONS)
    with pytest.raises(AirflowFailException, match="spark-submit was not found: expected it on Airflow's PATH"):
        operator.execute({"ti": TaskInstance()})


def test_a_run_without_a_partition_is_not_tried_again() -> None:
    with pytest.raises(AirflowFailException, match="names no partition of 'flights': expected a partition key, or"):
        job_arguments("flights", [("--partition", ""), ("--trigger", "manual")])


def trigger(result: Any, *, run_type: str = "manual", condition: Condition | None = None) -> None:
    operator = TriggerOperator(task_id="trigger", trigger_dag_id="retrain_flights", conf={}, condition=condition)
    operator.trigger_run_id = "after_1"  # as rendered
    operator.execute({"ti": TaskInstance(drift=result), "dag_run": SimpleNamespace(run_type=run_type)})


WHEN_RETRAIN = Condition("drift", "decision", "retrain")


@pytest.mark.parametrize("result", [{"decision": "none"}, {"decision": "notify"}, {}, None])
def test_no_retraining_without_the_decision(result: Any) -> None:
    with pytest.raises(AirflowSkipException, match=r"decision of task drift is .*, not 'retrain'"):
        trigger(result, condition=WHEN_RETRAIN)


def test_a_backfill_starts_no_retraining() -> None:
    with pytest.raises(AirflowSkipException, match="a backfill starts no run of retrain_flights"):
        trigger({"decision": "retrain"}, run_type="backfill", condition=WHEN_RETRAIN)


@pytest.mark.parametrize("condition", [WHEN_RETRAIN, None])
def test_a_trigger_starts_the_other_dag_once_per_run(condition: Condition | None) -> None:
    from airflow.sdk.exceptions import DagRunTriggerException

    with pytest.raises(DagRunTriggerException) as raised:
        trigger({"decision": "retrain"}, condition=condition)
    assert (raised.value.trigger_dag_id, raised.value.dag_run_id) == ("retrain_flights", "after_1")
    assert raised.value.skip_when_already_exists


@pytest.mark.parametrize(
    ("connection", "sentence"),
    [
        (None, "connection 'smtp_default': SMTP connection is not found"),
        ({"conn_type": "smtp", "host": "127.0.0.1", "port": 1, "extra": {"disable_ssl": True}}, "refused"),
    ],
    ids=["no connection", "no server"],
)
def test_a_mail_that_cannot_be_sent_is_an_os_error(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any] | None, sentence: str
) -> None:
    """The outbox keeps a mail for OSErrors; anything else would be a bug of ours."""
    monkeypatch.delenv("AIRFLOW_CONN_SMTP_DEFAULT", raising=False)
    if connection is not None:
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    with pytest.raises(OSError, match=sentence):
        send_mail(EmailMessage())
