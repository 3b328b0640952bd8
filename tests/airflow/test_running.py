"""The Dags in a running Airflow: real scheduler, API server, Dag processor, triggerer. Only the jobs are stand-ins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.airflow import deployments
from tests.airflow.running import RunningAirflow, StartAirflow, free_port

JOBS = ("score.py", "check.py", "publish.py", "drift.py", "train.py", "redeploy.py")
SCORE_TASKS = ("score", "check", "publish", "drift", "trigger_retrain", "notify")
FIVE_NIGHTS = ["2013-07-01", "2013-07-02", "2013-07-03", "2013-07-04", "2013-07-05"]

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Site:
    """A running Airflow with deployments, and stand-ins for the jobs."""

    airflow: RunningAirflow
    home: Path
    deployments: Path
    smtp_port: int

    def calls(self, **wanted: str) -> list[dict[str, Any]]:
        """Return how jobs were called, oldest first."""
        file = self.home / "calls.jsonl"
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        found = [json.loads(line) for line in lines]
        return [call for call in found if wanted.items() <= call.items()]

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the states of a run's tasks."""
        return {task_id: task["state"] for task_id, task in self.airflow.tasks(dag_id, run_id).items()}


@pytest.fixture(scope="module")
def site(start_airflow: StartAirflow, tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("site")
    home, folder, jobs = root / "home", root / "deployments", root / "jobs"
    home.mkdir()
    jobs.mkdir()
    for job in JOBS:
        shutil.copy(Path(__file__).parent / "jobs" / "job.py", jobs / job)
    behaviour = {
        "drift.py 2013-07-03": {"result": {"decision": "retrain"}},
        "drift.py 2013-08-01": {"result": {"decision": "retrain"}},
        "drift.py 2013-08-02": {"result": {"decision": "notify"}},
        "train.py 2013-08-01": {"result": {"training_run_id": "t1"}},
        "check.py 2013-08-03": {"exit": 3, "say": "checks of 'mailed' failed: expected no nulls, got 3."},
        "check.py 2013-08-04": {"seconds": 600},
        "check.py 2013-08-05": {"exit": 75, "say": "the MLflow store does not answer."},
    }
    (home / "behaviour.json").write_text(json.dumps(behaviour), encoding="utf-8")
    deployments.write(folder, "flights", approval=True)
    deployments.write(folder, "by_hand", schedule=None, drift=False, retrain=False)
    # Runs of the others would leave mails here, or nights there.
    deployments.write(folder, "backfilled")
    deployments.write(folder, "mailed")
    smtp_port = free_port()
    airflow = start_airflow(
        {
            "SCORING_HOME": str(home),
            "SCORING_DEPLOYMENTS": str(folder),
            "SCORING_JOBS": str(jobs),
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[1]"}),
            "AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(
                {
                    "conn_type": "smtp",
                    "host": "127.0.0.1",
                    "port": smtp_port,
                    "extra": {"disable_ssl": True, "disable_tls": True, "timeout": 5, "retry_limit": 1},
                }
            ),
            "AIRFLOW__CORE__PARALLELISM": "6",
        }
    )
    for name in ("flights", "by_hand", "backfilled", "mailed"):
        airflow.wait_for_dag(f"score_{name}")
    return Site(airflow, home, folder, smtp_port)


def backfill(first: str, last: str, **other: Any) -> dict[str, Any]:
    """Return what Airflow's form sends: in the browser's time zone, with an end of day."""
    return {
        "dag_id": "score_backfilled",
        "from_date": first,
        "to_date": last,
        "max_active_runs": 3,
        "reprocess_behavior": "none",
        "run_backwards": False,
        "dag_run_conf": {},
        **other,
    }


def test_a_backfill_from_the_form_scores_exactly_the_nights_asked_for(site: Site) -> None:
    # A browser in Berlin.
    form = backfill("2013-06-30T22:00:00.000Z", "2013-07-05T21:59:59.999Z")
    preview = site.airflow.api("POST", "backfills/dry_run", form)
    assert [run["partition_key"] for run in preview["backfills"]] == FIVE_NIGHTS
    site.airflow.api("POST", "backfills", form)

    def ended() -> list[Any] | None:
        runs = [run for run in site.airflow.runs("score_backfilled") if run["run_type"] == "backfill"]
        return runs if runs and all(run["state"] in ("success", "failed") for run in runs) else None

    runs = site.airflow.wait_for("end of the backfill", ended, 600)
    assert sorted(run["partition_key"] for run in runs) == FIVE_NIGHTS
    assert {run["state"] for run in runs} == {"success"}
    scored = site.calls(script="score.py", deployment="backfilled", **{"--trigger": "backfill"})
    assert sorted(call["--partition"] for call in scored) == FIVE_NIGHTS
    assert {call["--dag-run-id"] for call in scored} == {run["dag_run_id"] for run in runs}

    # One of these nights drifts, yet nothing is retrained and nobody is mailed.
    drifting = next(run for run in runs if run["partition_key"] == "2013-07-03")
    states = site.states("score_backfilled", drifting["dag_run_id"])
    assert states == dict.fromkeys(SCORE_TASKS, "success") | {"trigger_retrain": "skipped"}
    assert site.airflow.xcom("score_backfilled", drifting["dag_run_id"], "notify") == {
        "sent": [],
        "kept": [],
        "reason": "",
    }
    assert site.airflow.runs("retrain_backfilled") == []

    # The backfill did not make last night overdue.
    assert [run for run in site.airflow.runs("score_backfilled") if run["run_type"] == "scheduled"] == []
    # The same nights again: none, unless the form says so.
    again = site.airflow.api("POST", "backfills/dry_run", form)
    assert [run["partition_key"] for run in again["backfills"]] == []


def test_a_night_without_schedule_is_backfilled_too(site: Site) -> None:
    form = backfill("2013-07-01T00:00:00Z", "2013-07-05T00:00:00Z", dag_id="score_by_hand")
    preview = site.airflow.api("POST", "backfills/dry_run", form)
    assert [run["partition_key"] for run in preview["backfills"]] == FIVE_NIGHTS


def test_drift_retrains_and_redeploys_after_a_person_has_approved(site: Site) -> None:
    run_id = site.airflow.trigger("score_flights", partition="2013-08-01")
    assert site.airflow.wait_for_run("score_flights", run_id) == "success"
    assert site.states("score_flights", run_id) == dict.fromkeys(SCORE_TASKS, "success")
    assert site.calls(script="drift.py", **{"--partition": "2013-08-01"})[0]["--trigger"] == "manual"

    (retrain,) = site.airflow.runs("retrain_flights")
    assert retrain["dag_run_id"] == f"after_{run_id}"
    assert site.airflow.wait_for_run("retrain_flights", retrain["dag_run_id"]) == "success"
    assert site.calls(script="train.py")[0]["--partition"] == "2013-08-01"

    (redeploy,) = site.airflow.runs("redeploy_flights")
    run = redeploy["dag_run_id"]
    question = f"dags/redeploy_flights/dagRuns/{run.replace('+', '%2B')}/taskInstances/approve/-1/hitlDetails"

    def asked() -> bool:
        return site.airflow.tasks("redeploy_flights", run)["approve"]["state"] in {"deferred", "awaiting_input"}

    site.airflow.wait_for("question to a person", asked)
    assert "Training run: t1." in site.airflow.api("GET", question)["body"]
    assert site.calls(script="redeploy.py") == []
    site.airflow.api("PATCH", question, {"chosen_options": ["Approve"], "params_input": {}})
    assert site.airflow.wait_for_run("redeploy_flights", run) == "success"
    (call,) = site.calls(script="redeploy.py")
    assert (call["--partition"], call["--training-run-id"]) == ("2013-08-01", "t1")


def test_the_partition_may_come_in_the_conf(site: Site) -> None:
    run_id = site.airflow.trigger("score_flights", conf={"partition": "2013-08-02"})
    assert site.airflow.wait_for_run("score_flights", run_id) == "success"
    assert site.airflow.xcom("score_flights", run_id, "score") == {"run_id": "score.py 2013-08-02"}
    # Drift that only notifies starts nothing.
    assert site.states("score_flights", run_id)["trigger_retrain"] == "skipped"


def test_a_run_without_a_partition_says_so(site: Site) -> None:
    run_id = site.airflow.trigger("score_by_hand")
    assert site.airflow.wait_for_run("score_by_hand", run_id) == "failed"
    log = site.airflow.task_log("score_by_hand", run_id, "score")
    assert "the Dag run names no partition of 'by_hand': expected a partition key" in log
    assert site.airflow.tasks("score_by_hand", run_id)["score"]["try_number"] == 1
    assert site.airflow.xcom("score_by_hand", run_id, "notify")["kept"] == []


@pytest.mark.parametrize("key", ["2013-7-1", "tonight"])
def test_a_partition_key_that_is_no_date_is_refused_at_once(site: Site, key: str) -> None:
    with pytest.raises(AssertionError, match="expected YYYY-MM-DD, as in 2013-07-01"):
        site.airflow.trigger("score_by_hand", partition=key)


def test_failed_checks_fail_the_run_without_a_retry_and_the_mail_is_kept_until_a_server_takes_it(site: Site) -> None:
    run_id = site.airflow.trigger("score_mailed", partition="2013-08-03")
    assert site.airflow.wait_for_run("score_mailed", run_id) == "failed"
    assert site.states("score_mailed", run_id) == {
        "score": "success",
        "check": "failed",
        "publish": "upstream_failed",
        "drift": "upstream_failed",
        "trigger_retrain": "upstream_failed",
        "notify": "success",
    }
    assert site.airflow.tasks("score_mailed", run_id)["check"]["try_number"] == 1
    assert "ended with exit code 3: checks of 'mailed' failed: expected no nulls, got 3." in site.airflow.task_log(
        "score_mailed", run_id, "check"
    )
    kept = site.airflow.xcom("score_mailed", run_id, "notify")
    assert kept["sent"] == []
    assert len(kept["kept"]) == 1
    assert "refused" in kept["reason"]

    with mail_server(site.smtp_port) as mails:
        good = site.airflow.trigger("score_mailed", partition="2013-08-06")
        assert site.airflow.wait_for_run("score_mailed", good) == "success"
        sent = site.airflow.xcom("score_mailed", good, "notify")
    # The stand-ins leave no run record, so the good night is told about, too: its run must have died.
    assert set(kept["kept"]) < set(sent["sent"])
    assert {mail["To"] for mail in mails} == {"owner@example.com"}
    texts = [" ".join(body.get_content().split()) for mail in mails if (body := mail.get_body(("plain",)))]
    assert len([text for text in texts if "expected no nulls, got 3" in text]) == 1


def test_a_temporary_failure_is_tried_again(site: Site) -> None:
    run_id = site.airflow.trigger("score_flights", partition="2013-08-05")

    def waits() -> bool:
        return site.states("score_flights", run_id).get("check") == "up_for_retry"

    site.airflow.wait_for("retry", waits)
    # The second try would wait half a minute: it is enough to know that there will be one.
    site.airflow.api("PATCH", f"dags/score_flights/dagRuns/{run_id.replace('+', '%2B')}", {"state": "failed"})


def test_a_task_that_is_stopped_stops_its_job(site: Site) -> None:
    run_id = site.airflow.trigger("score_flights", partition="2013-08-04")

    def called() -> list[dict[str, Any]]:
        return site.calls(script="check.py", **{"--partition": "2013-08-04"})

    (call,) = site.airflow.wait_for("the job", called)
    assert psutil.pid_exists(call["pid"])
    path = f"dags/score_flights/dagRuns/{run_id.replace('+', '%2B')}/taskInstances/check"
    site.airflow.api("PATCH", path, {"new_state": "failed"})
    site.airflow.wait_for("end of the job", lambda: not psutil.pid_exists(call["pid"]), 60)


def test_a_broken_deployment_is_shown_and_leaves_the_others_in_service(site: Site) -> None:
    file = deployments.write(site.deployments, "trains")
    good = file.read_text("utf-8")
    site.airflow.wait_for_dag("score_trains")
    file.write_text(good.replace("owner:", "ownr:"), encoding="utf-8")
    errors = site.airflow.wait_for("import error", lambda: site.airflow.api("GET", "importErrors")["import_errors"])
    assert [error["filename"] for error in errors] == ["deployment_errors.py"]
    assert "unknown key 'ownr'" in errors[0]["stack_trace"]
    for dag_id in ("score_flights", "score_by_hand"):
        dag = site.airflow.api("GET", f"dags/{dag_id}/details")
        assert not dag["has_import_errors"]
        assert not dag["is_stale"]
    file.write_text(good, encoding="utf-8")
    site.airflow.wait_for("no error", lambda: not site.airflow.api("GET", "importErrors")["import_errors"])


@contextmanager
def mail_server(port: int) -> Iterator[Sequence[EmailMessage]]:
    """Yield the mails that a real SMTP server on loopback has taken."""
    from email import message_from_bytes, policy

    from aiosmtpd.controller import Controller

    taken: list[EmailMessage] = []

    class Taker:
        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
            mail = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(mail, EmailMessage)
            taken.append(mail)
            return "250 taken"

    controller = Controller(Taker(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield taken
    finally:
        controller.stop()
