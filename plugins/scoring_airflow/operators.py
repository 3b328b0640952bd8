"""Airflow's side of the plan's tasks: glue that runs a job, triggers a Dag or sends the mail.

A job's exit code decides about retries: 2 and 3 fail the task for good, anything else may be tried again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import BaseOperator, TaskInstanceState
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from scoring import settings
from scoring.errors import EXIT_CONFIGURATION, EXIT_DATA, ConfigurationError
from scoring.java import driver_options
from scoring_airflow.command import Command, arguments, kill_tree, result_in, sentence_in
from scoring_airflow.links import LINKS

if TYPE_CHECKING:
    from email.message import EmailMessage

    from airflow.sdk import Context

    from scoring_airflow.plan import Condition

PARTITION_OPTION: Final = "--partition"
SMTP_CONNECTION: Final = "smtp_default"
BACKFILL: Final = "backfill"
ERROR_KEY: Final = "error"
"""XCom of a failed task: the sentence of its job."""


class JobOperator(BaseOperator):
    """Runs a job with this Python; returns the job's result."""

    template_fields: Sequence[str] = ("options",)
    operator_extra_links = LINKS

    def __init__(self, *, script: str, deployment: str, options: Sequence[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.script = script
        self.deployment = deployment
        self.options = [list(option) for option in options]
        self._command: Command | None = None

    def execute(self, context: Context) -> Mapping[str, Any] | None:
        """Run the job to its end."""
        command = [sys.executable, str(job(self.script)), *job_arguments(self.deployment, self.options)]
        self.log.info("running %s", " ".join(command))
        self._command = Command(command)
        outcome = self._command.run(self.log.info)
        if outcome.exit_code != 0:
            raise failed(context, self.script, outcome.exit_code, outcome.sentence)
        self.log.info("result: %s", outcome.result)
        return outcome.result

    def on_kill(self) -> None:
        """End the job and what it started."""
        if self._command is not None:
            self._command.kill()


class ScoreOperator(SparkSubmitOperator):
    """Runs a job under `spark-submit`; returns the job's result."""

    template_fields: Sequence[str] = (*SparkSubmitOperator.template_fields, "options")
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        script: str,
        deployment: str,
        options: Sequence[tuple[str, str]],
        reads_rows: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=f"scoring {deployment}", **kwargs)
        self.reads_rows = reads_rows
        self.script = script
        self.deployment = deployment
        self.options = [list(option) for option in options]

    def execute(self, context: Context) -> Mapping[str, Any] | None:
        """Submit the job and wait for its end."""
        # Found here, not while parsing: the Dag must look the same on every machine.
        self.application = str(job(self.script))
        self.application_args = job_arguments(self.deployment, self.options)
        self.conf = {"spark.driver.extraJavaOptions": driver_options(reads_rows=self.reads_rows)}
        self._hook = self._get_hook()
        try:
            super().execute(context)
        except FileNotFoundError as error:
            raise AirflowFailException(
                ConfigurationError(
                    "spark-submit was not found", "it on Airflow's PATH", hint="Install pyspark==4.2.0 for Airflow."
                )
            ) from error
        except AirflowException as error:
            sentence = sentence_in(self._last_lines()) or str(error)
            raise failed(context, self.script, self._exit_code(), sentence) from error
        finally:
            if self._hook._submit_sp is not None:  # noqa: SLF001 - the provider leaves spark-submit's pipe open
                self._hook._submit_sp.stdout.close()  # noqa: SLF001
        return result_in(self._last_lines())

    def on_kill(self) -> None:
        """End the job, on this machine and on the cluster."""
        process = getattr(self._hook, "_submit_sp", None)
        if process is not None and process.poll() is None:
            # The provider would kill the JVM alone and leave the job's Python process behind.
            kill_tree(process.pid)
        if self._hook is not None and self._hook._connection["deploy_mode"] == "cluster":  # noqa: SLF001
            super().on_kill()

    def _exit_code(self) -> int:
        # On Kubernetes it is the driver's, read from the log; else spark-submit ends with the code of the job.
        process = self._hook._submit_sp  # noqa: SLF001
        return self._hook._spark_exit_code or (process.returncode if process is not None else 1) or 1  # noqa: SLF001

    def _last_lines(self) -> list[str]:
        return list(self._hook._last_submit_log_lines)  # noqa: SLF001 - the provider has no other way to read them


class TriggerOperator(TriggerDagRunOperator):
    """Triggers a Dag run, once per run of this Dag, if an earlier task's result says so; else it is skipped."""

    def __init__(self, *, condition: Condition | None, **kwargs: Any) -> None:
        # The run's id is made from ours, so a retry or a repetition of this run does not start the other Dag again.
        super().__init__(trigger_run_id="after_{{ run_id }}", skip_when_already_exists=True, **kwargs)
        self.condition = None if condition is None else [condition.task_id, condition.key, condition.value]

    def execute(self, context: Context) -> None:
        """Trigger, or skip with the reason."""
        if self.condition is not None:
            task_id, key, wanted = self.condition
            if context["dag_run"].run_type == BACKFILL:
                raise AirflowSkipException(f"a backfill starts no run of {self.trigger_dag_id}")
            found = (context["ti"].xcom_pull(task_ids=task_id) or {}).get(key)
            if found != wanted:
                raise AirflowSkipException(f"{key} of task {task_id} is {found!r}, not {wanted!r}")
        super().execute(context)


class NotifyOperator(BaseOperator):
    """Writes the mail about a night, and sends it and all mails that could not be sent before."""

    template_fields: Sequence[str] = ("partition", "dag_run_id", "trigger")

    def __init__(self, *, deployment: str, partition: str, dag_run_id: str, trigger: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deployment = deployment
        self.partition = partition
        self.dag_run_id = dag_run_id
        self.trigger = trigger

    def execute(self, context: Context) -> Mapping[str, Any]:
        """Compose and deliver; a mail server that is down leaves the mail for the next run."""
        from scoring.deployment import load
        from scoring.notify import outbox

        deployment = load(self.deployment)
        # A run that names no partition is about no night, and its log is open before the person who started it.
        is_waiting = bool(self.partition) and outbox.compose_for(
            deployment, self.partition, self.dag_run_id, trigger=self.trigger, failure=what_failed(context)
        )
        delivery = outbox.deliver_pending(deployment, send_mail)
        self.log.info("%s for this night", "a mail" if is_waiting else "no mail")
        self.log.info("%d mails sent, %d kept for the next run", len(delivery.sent), len(delivery.kept))
        if delivery.reason:
            self.log.warning(delivery.reason)
        return {"sent": list(delivery.sent), "kept": list(delivery.kept), "reason": delivery.reason}


def job(script: str) -> Path:
    """Return the path of a job."""
    return settings.jobs_folder() / script


def job_arguments(deployment: str, options: Sequence[Sequence[str]]) -> list[str]:
    """Return a job's command line.

    Raises:
        AirflowFailException: the Dag run names no partition.
    """
    pairs = [(option, value) for option, value in options]
    if not dict(pairs).get(PARTITION_OPTION, "x"):
        raise AirflowFailException(
            ConfigurationError(
                f"the Dag run names no partition of {deployment!r}",
                "a partition key, or 'partition' in the run's conf",
                "neither",
                "Trigger it with a date, as in 2013-07-01.",
            )
        )
    return arguments(deployment, pairs)


def failed(context: Context, script: str, exit_code: int, sentence: str) -> AirflowException:
    """Return what to raise for a job that failed, `AirflowFailException` if a retry cannot help; keep its sentence."""
    sentence = sentence or f"{script} ended with exit code {exit_code} and said nothing"
    context["ti"].xcom_push(key=ERROR_KEY, value=sentence)
    text = f"{script} ended with exit code {exit_code}: {sentence}"
    return AirflowFailException(text) if exit_code in {EXIT_CONFIGURATION, EXIT_DATA} else AirflowException(text)


def what_failed(context: Context) -> str:
    """Return why the Dag run's first failed task failed, in one sentence; empty if none did."""
    ti, run_id = context["ti"], context["run_id"]
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id]).get(run_id, {})
    for task in context["dag"].topological_sort():
        if states.get(task.task_id) == TaskInstanceState.FAILED:
            # A task that was killed, or ran out of time, said nothing.
            said = ti.xcom_pull(task_ids=task.task_id, key=ERROR_KEY)
            return said or f"task {task.task_id} failed in Airflow, and its log tells why"
    return ""


def send_mail(message: EmailMessage) -> Mapping[str, tuple[int, bytes]]:
    """Send one mail over Airflow's connection `smtp_default` and return whom the server refused.

    Raises:
        OSError: the mail was not sent.
    """
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    try:
        with SmtpHook(SMTP_CONNECTION) as hook:
            # The hook's own methods would build the mail anew and lose its parts.
            refused: Mapping[str, tuple[int, bytes]] = hook._smtp_client.send_message(message)  # noqa: SLF001
    except AirflowException as error:
        raise ConnectionError(f"connection {SMTP_CONNECTION!r}: {error}") from error
    return refused
