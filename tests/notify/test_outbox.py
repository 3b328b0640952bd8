from __future__ import annotations

import json
import re
import smtplib
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from scoring.checks.report import QualityReport, Severity
from scoring.deployment import Deployment
from scoring.monitoring.report import Decision, DecisionKind, Performance
from scoring.notify.mail import POLICY
from scoring.notify.outbox import Delivery, compose_for, deliver_pending
from scoring.runs import RunState, RunStore
from tests.notify.mail_server import MailServer
from tests.notify.nights import drift_report, failed, make_deployment

DAG_RUN = "manual__2013-07-06T03:00:00+00:00"


def night_run(
    store: RunStore,
    deployment: Deployment,
    partition: str = "2013-07-05",
    *,
    state: RunState = RunState.PUBLISHED,
    dag_run_id: str | None = DAG_RUN,
    **tags: str,
) -> str:
    """Record a run as the jobs of a night leave it."""
    named = {"dag_run_id": dag_run_id} if dag_run_id else {}
    run_id = store.start(deployment.name, partition, tags={"trigger": "scheduled", **named})
    store.log_metrics(run_id, {"rows": 980, "quarantined": 3, "rows_per_s": 412.0, "seconds": 22.0})
    store.set_tags(run_id, {"model_versions": json.dumps({"trees": 2}), **tags})
    store.set_state(run_id, state)
    return run_id


def drifting_run(store: RunStore, deployment: Deployment, partition: str = "2013-07-05", **more: Any) -> str:
    """Record a run whose drift asks for the owner's attention."""
    run_id = night_run(store, deployment, partition, decision="notify", share_of_drifted_columns="0.4", **more)
    document = {
        "drift": drift_report(deployment.name, partition).to_json(),
        "performance": Performance(900, "2013-07-01", partition, 0.61, 0.5, 0.72).to_json(),
        "decision": Decision(DecisionKind.NOTIFY, ("4 of 10 columns drifted (40 %, limit 30 %)",)).to_json(),
    }
    store.put_json(run_id, "drift/report.json", document)
    store.put(run_id, "drift/report.html", "<p>drift</p>")
    return run_id


def compose(deployment: Deployment, partition: str = "2013-07-05", **known: Any) -> bool:
    return compose_for(deployment, partition, DAG_RUN, **{"trigger": "scheduled", **known})


def kept_mail(store: RunStore, run_id: str) -> EmailMessage:
    content = store.read(run_id, "mail/message.eml")
    assert content is not None
    mail = message_from_bytes(content, policy=POLICY)
    assert isinstance(mail, EmailMessage)
    return mail


def text_of(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return " ".join(str(body.get_content()).split())


# ------------------------------------------------------------------------------------------------------- composing


def test_drifting_night_reaches_the_owner_with_numbers_picture_and_place_of_the_report(
    store: RunStore, deployment: Deployment, server: MailServer
) -> None:
    drifting_run(store, deployment, "2013-07-04")
    run_id = drifting_run(store, deployment)
    assert compose(deployment)
    assert deliver_pending(deployment, server.send) == Delivery(sent=(run_id,), kept=())
    (mail,) = server.mails
    assert mail["Subject"] == f"[{deployment.name}] 2013-07-05: 40 % of columns drifted"
    assert server.recipients == [["anna@example.com", "flight-data@example.com"]]
    text = text_of(mail)
    assert "ROC-AUC: 0.610 (at training 0.720)" in text
    assert "temp 2.31 (limit 0.10)" in text
    assert "Decision: notify: 4 of 10 columns drifted (40 %, limit 30 %)" in text
    assert f"Drift report: artifact drift/report.html of MLflow run {run_id}" in text
    assert "Check results" not in text
    (picture,) = (part for part in mail.walk() if part.get_content_type() == "image/png")
    assert picture.get_content().startswith(b"\x89PNG")
    assert store.get(run_id).tags["mail"] == "sent"


def test_quiet_good_night_sends_nothing(store: RunStore, deployment: Deployment, server: MailServer) -> None:
    run_id = night_run(store, deployment, checks="passed", decision="none")
    assert not compose(deployment)
    assert deliver_pending(deployment, server.send) == Delivery((), ())
    assert "mail" not in store.get(run_id).tags
    assert server.connections == 0


def test_backfill_sends_nothing_however_bad_the_night(store: RunStore, deployment: Deployment) -> None:
    run_id = drifting_run(store, deployment)
    assert not compose(deployment, trigger="backfill")
    assert not compose(deployment, "2013-07-06", trigger="backfill", failure="Spark did not start.")
    assert "mail" not in store.get(run_id).tags
    assert store.find(deployment.name, partition="2013-07-06") == []


def test_one_mail_per_run_however_often_it_is_asked_for(
    store: RunStore, deployment: Deployment, server: MailServer
) -> None:
    run_id = drifting_run(store, deployment)
    assert compose(deployment)
    first = kept_mail(store, run_id).as_bytes()
    assert compose(deployment)
    assert kept_mail(store, run_id).as_bytes() == first
    deliver_pending(deployment, server.send)
    assert not compose(deployment)
    assert deliver_pending(deployment, server.send) == Delivery((), ())
    assert len(server.mails) == 1


def test_newest_run_of_the_dag_run_is_told(store: RunStore, deployment: Deployment) -> None:
    night_run(store, deployment, state=RunState.FAILED, error="the MLflow store does not answer.")
    night_run(store, deployment, checks="passed")
    assert not compose(deployment)


def test_other_dag_runs_of_the_partition_are_left_alone(store: RunStore, deployment: Deployment) -> None:
    other = night_run(store, deployment, state=RunState.RUNNING, dag_run_id="scheduled__other")
    assert not compose_for(deployment, "2013-07-05", None, trigger="manual")
    assert compose(deployment)
    assert store.get(other).state is RunState.RUNNING


def test_failed_night_tells_the_sentence(store: RunStore, deployment: Deployment) -> None:
    sentence = "column 'temp' of 2013-07-05: expected double, got string. Deliver the file again."
    run_id = night_run(store, deployment, state=RunState.FAILED, error=sentence)
    assert compose(deployment, failure="spark-submit ended with exit code 2")
    mail = kept_mail(store, run_id)
    assert mail["Subject"].startswith(f"[{deployment.name}] 2013-07-05: FAILED: column 'temp' of 2013-07-05: ")
    assert sentence in text_of(mail)
    assert "spark-submit" not in text_of(mail)
    assert store.get(run_id).tags["error"] == sentence


def test_critical_check_tells_what_was_expected_and_seen(store: RunStore, deployment: Deployment) -> None:
    run_id = night_run(store, deployment, state=RunState.FAILED, checks="failed", error="checks failed.")
    passed = QualityReport("input", 980, ())
    broken = QualityReport("output", 980, (failed(column="hour"), failed(severity=Severity.CRITICAL, column="carrier")))
    store.put_json(run_id, "quality/report.json", [passed.to_json(), broken.to_json()])
    store.put(run_id, "quality/report.html", "<p>checks</p>")
    assert compose(deployment)
    mail = kept_mail(store, run_id)
    assert mail["Subject"] == f"[{deployment.name}] 2013-07-05: HELD BACK: 1 critical check failed"
    text = text_of(mail)
    critical = "- critical, carrier expected: values from -30 to 45 seen: 12 of 990 outside, for instance 112.3"
    assert f"{critical} - warning, hour" in text
    assert f"Check results: artifact quality/report.html of MLflow run {run_id}" in text


def test_warning_is_told(store: RunStore, deployment: Deployment) -> None:
    run_id = night_run(store, deployment, checks="warning")
    store.put_json(run_id, "quality/report.json", [QualityReport("input", 980, (failed(),)).to_json()])
    assert compose(deployment)
    assert kept_mail(store, run_id)["Subject"] == f"[{deployment.name}] 2013-07-05: 1 check warning"


def test_job_that_died_before_its_record_is_told_and_recorded(
    store: RunStore, deployment: Deployment, server: MailServer
) -> None:
    assert compose(deployment, failure="spark-submit: no Java was found.\nInstall Java 17.")
    (record,) = store.find(deployment.name, dag_run_id=DAG_RUN)
    assert record.state is RunState.FAILED
    assert record.tags["error"] == "spark-submit: no Java was found. Install Java 17."
    assert record.tags["trigger"] == "scheduled"
    deliver_pending(deployment, server.send)
    assert "no Java was found. Install Java 17." in text_of(server.mails[0])
    assert not compose(deployment, failure="spark-submit: no Java was found.")
    assert len(store.find(deployment.name, dag_run_id=DAG_RUN)) == 1


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.STAGED, RunState.CHECKED])
def test_run_that_died_without_a_word_is_told_and_ended(
    store: RunStore, deployment: Deployment, state: RunState
) -> None:
    run_id = night_run(store, deployment, state=state)
    assert compose(deployment)
    record = store.get(run_id)
    assert record.state is RunState.FAILED
    expected = (
        rf"scoring '2013-07-05' ended without a word before it got further than {state}\. Read the end of the task"
    )
    assert re.match(expected, record.tags["error"])


def test_night_that_nobody_ran_is_not_told(store: RunStore, deployment: Deployment) -> None:
    assert not compose_for(deployment, "2013-07-05", None, trigger="manual")
    assert store.find(deployment.name) == []


def test_step_that_failed_after_publishing_does_not_make_the_night_a_failure(
    store: RunStore, deployment: Deployment
) -> None:
    run_id = night_run(store, deployment, published_version="7")
    assert compose(deployment, failure="the drift report failed: memory ran out.")
    mail = kept_mail(store, run_id)
    assert "published, then FAILED: the drift report" in mail["Subject"]
    assert "The predictions can be used." in text_of(mail)
    assert store.get(run_id).state is RunState.PUBLISHED


def test_superseded_run_leaves_the_telling_to_the_run_that_published(store: RunStore, deployment: Deployment) -> None:
    night_run(store, deployment, state=RunState.SUPERSEDED)
    assert not compose(deployment, failure="another run published first")


@pytest.mark.parametrize(
    "document",
    [b"{", b"[]", b"3", b'{"drift": {"format_version": 99}}', b'{"drift": 3, "decision": {"format_version": 1}}'],
)
def test_unreadable_report_does_not_stop_the_mail(store: RunStore, deployment: Deployment, document: bytes) -> None:
    run_id = night_run(store, deployment, decision="retrain", decision_reasons="half drifted\nfor 2 nights")
    store.put(run_id, "drift/report.json", document)
    store.put(run_id, "quality/report.json", document)
    assert compose(deployment)
    mail = kept_mail(store, run_id)
    assert mail["Subject"] == f"[{deployment.name}] 2013-07-05: half drifted, retraining started"
    assert "retrain: half drifted; for 2 nights" in text_of(mail)


def test_links_lead_to_airflow_and_mlflow_where_they_are_known_and_tell_no_password(
    store: RunStore, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCORING_UI", "https://airflow.example.com/air/")
    monkeypatch.setenv("SCORING_MLFLOW_UI", "https://user:secret@mlflow.example.com:5000")
    run_id = drifting_run(store, deployment)
    assert compose(deployment)
    text = text_of(kept_mail(store, run_id))
    assert f"https://airflow.example.com/air/plugin/scoring/air/scoring/runs/{run_id}/drift" in text
    quoted = "manual__2013-07-06T03%3A00%3A00%2B00%3A00"
    assert f"https://airflow.example.com/air/dags/score_{deployment.name}/runs/{quoted}" in text
    assert f"https://mlflow.example.com:5000/#/runs/{run_id}" in text
    assert "secret" not in text


def test_sender_comes_from_the_environment(
    store: RunStore, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCORING_MAIL_FROM", "Nightly scoring <scoring@example.com>")
    run_id = drifting_run(store, deployment)
    assert compose(deployment)
    mail = kept_mail(store, run_id)
    assert mail["From"] == "Nightly scoring <scoring@example.com>"
    assert mail["Message-ID"] == f"<{run_id}@example.com>"


# ------------------------------------------------------------------------------------------------------- delivering


def test_mail_waits_for_a_server_that_is_down_and_then_arrives_once(
    store: RunStore, deployment: Deployment, server: MailServer
) -> None:
    run_id = drifting_run(store, deployment)
    compose(deployment)
    server.stop()
    delivery = deliver_pending(deployment, server.send)
    assert (delivery.sent, delivery.kept) == ((), (run_id,))
    assert "the mail server took no mail: " in delivery.reason
    assert "refused" in delivery.reason
    assert store.get(run_id).tags["mail"] == "pending"
    server.start()
    assert deliver_pending(deployment, server.send) == Delivery((run_id,), ())
    assert deliver_pending(deployment, server.send) == Delivery((), ())
    assert len(server.mails) == 1


def test_oldest_first_and_a_silent_server_is_asked_once(
    store: RunStore, deployment: Deployment, server: MailServer
) -> None:
    partitions = ["2013-07-03", "2013-07-04", "2013-07-05"]
    runs = tuple(drifting_run(store, deployment, partition) for partition in partitions)
    for partition in partitions:
        compose(deployment, partition)
    tries = []

    def silent(message: EmailMessage) -> None:
        tries.append(message["Subject"])
        raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")

    delivery = deliver_pending(deployment, silent)
    assert delivery.kept == runs
    assert delivery.reason == "the mail server took no mail: Connection unexpectedly closed"
    assert len(tries) == 1
    assert deliver_pending(deployment, server.send).sent == runs
    assert [mail["Subject"].split("] ")[1][:10] for mail in server.mails] == partitions


def test_mail_that_the_server_refuses_does_not_hold_up_the_next(
    store: RunStore, deployment: Deployment, server: MailServer
) -> None:
    runs = [drifting_run(store, deployment, partition) for partition in ("2013-07-04", "2013-07-05")]
    compose(deployment, "2013-07-04")
    compose(deployment)

    def picky(message: EmailMessage) -> None:
        server.answer_to_data = "552 too large" if "2013-07-04" in message["Subject"] else "250 taken"
        server.send(message)

    delivery = deliver_pending(deployment, picky)
    assert (delivery.sent, delivery.kept) == ((runs[1],), (runs[0],))
    assert f"the mail server refused the mail of run {runs[0]}: (552, b'too large')" in delivery.reason


def test_address_that_is_refused_for_good_does_not_keep_the_mail_from_the_others(
    store: RunStore, deployment: Deployment, server: MailServer
) -> None:
    run_id = drifting_run(store, deployment)
    compose(deployment)
    server.refusals = {"anna@example.com": "550 no such user"}
    delivery = deliver_pending(deployment, server.send)
    assert (delivery.sent, delivery.kept) == ((run_id,), ())
    assert delivery.reason == f"the mail of run {run_id} was refused by anna@example.com (550 no such user)"
    assert server.recipients == [["flight-data@example.com"]]


def test_address_that_is_refused_for_now_gets_its_mail_later_and_nobody_gets_it_twice(
    store: RunStore, deployment: Deployment, server: MailServer
) -> None:
    run_id = drifting_run(store, deployment)
    compose(deployment)
    server.refusals = {"anna@example.com": "451 try again later"}
    assert deliver_pending(deployment, server.send).kept == (run_id,)
    server.refusals = {}
    assert deliver_pending(deployment, server.send) == Delivery((run_id,), ())
    assert server.recipients == [["flight-data@example.com"], ["anna@example.com"]]
    assert server.mails[0]["Message-ID"] == server.mails[1]["Message-ID"]


def test_mail_refused_by_all_arrives_after_the_deployment_has_been_corrected(
    store: RunStore, tmp_path: Path, server: MailServer
) -> None:
    folder = tmp_path / "corrected_owner"
    deployment = make_deployment(folder, emails="[ana@example.com]")
    run_id = drifting_run(store, deployment)
    compose(deployment)
    server.refusals = {"ana@example.com": "550 no such user"}
    delivery = deliver_pending(deployment, server.send)
    assert delivery.kept == (run_id,)
    assert "refused by ana@example.com (550 no such user)" in delivery.reason
    assert deliver_pending(make_deployment(folder, emails="[anna@example.com]"), server.send).sent == (run_id,)
    assert server.recipients == [["anna@example.com"]]


def test_mail_sent_meanwhile_by_the_task_of_another_night_is_not_sent_again(
    store: RunStore, deployment: Deployment, server: MailServer
) -> None:
    runs = [drifting_run(store, deployment, partition) for partition in ("2013-07-04", "2013-07-05")]
    compose(deployment, "2013-07-04")
    compose(deployment)

    def overtaken(message: EmailMessage) -> None:
        server.send(message)
        if len(server.mails) == 1:
            assert deliver_pending(deployment, server.send).sent == tuple(runs)

    deliver_pending(deployment, overtaken)
    assert [mail["Subject"].split("] ")[1][:10] for mail in server.mails].count("2013-07-05") == 1


def test_transports_own_bug_is_not_hidden(store: RunStore, deployment: Deployment) -> None:
    drifting_run(store, deployment)
    compose(deployment)

    def broken(message: EmailMessage) -> None:
        raise LookupError(message["Subject"])

    with pytest.raises(LookupError, match=r"40 % of columns drifted"):
        deliver_pending(deployment, broken)
