"""What Airflow does for a deployment, as plain data: tested without Airflow, turned into Dags by `build.py`.

Texts in double braces are Jinja templates, which Airflow fills in for each Dag run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from scoring.deployment import Deployment, Input

PARTITION: Final = "{{ partition_key or params.partition or '' }}"
"""The partition key of the Dag run; for triggers that cannot give one (Airflow's operator), `partition` of its conf."""
DAG_RUN_ID: Final = "{{ run_id }}"
TRIGGER: Final = "{{ dag_run.run_type.value if dag_run.run_type in ('scheduled', 'backfill') else 'manual' }}"
TRAINED_RUN_ID: Final = "{{ ti.xcom_pull(task_ids='train')['training_run_id'] }}"

RETRIES: Final = 2
RETRY_DELAY_S: Final = 30
MAX_RETRY_DELAY_S: Final = 300
MAX_NIGHTS_AT_ONCE: Final = 2
"""The Spark job of one night may overlap the checks of the night before. More would only queue for the same cores, and
let a night be judged for drift before the nights that its window reaches back to."""
MAIN_TAG: Final = "scoring"


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a task is tried again, and how long it waits: twice as long each time."""

    retries: int = RETRIES
    delay_s: int = RETRY_DELAY_S
    max_delay_s: int = MAX_RETRY_DELAY_S


@dataclass(frozen=True, slots=True)
class Job:
    """Runs one of our jobs as a process."""

    task_id: str
    script: str
    deployment: str
    options: tuple[tuple[str, str], ...]
    """Option and value of the command line, in order; options without a value are left out."""
    one_at_a_time: bool = False
    """Whether it never runs for two Dag runs at once."""


@dataclass(frozen=True, slots=True)
class SparkJob(Job):
    """Runs one of our jobs under `spark-submit`. What a Spark task needs, the job asks of Spark itself."""

    reads_rows: bool = False
    """Whether Spark reads the input; files are read by the job's Python workers."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A result of an earlier task; a Dag run of a backfill never meets it."""

    task_id: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Trigger:
    """Starts a run of another Dag, once per run of this one."""

    task_id: str
    dag_id: str
    conf: tuple[tuple[str, str], ...]
    condition: Condition | None = None
    """Without it the other Dag is always started."""


@dataclass(frozen=True, slots=True)
class Approval:
    """Waits until a person has approved; a rejection skips what follows."""

    task_id: str
    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class Notify:
    """Writes and sends the mail to the owner. Runs last, whatever happened, and never decides about the Dag run."""

    task_id: str
    deployment: str
    partition: str
    dag_run_id: str
    trigger: str


Task = Job | Trigger | Approval | Notify


@dataclass(frozen=True, slots=True)
class Nightly:
    """Dag runs are for partitions, which are dates."""

    cron: str | None
    """UTC; None: started by hand and by backfills only."""
    lag_days: int


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that a person or another Dag gives when starting a run."""

    name: str
    description: str
    is_date: bool = False


@dataclass(frozen=True, slots=True)
class DagPlan:
    """One Dag; its tasks run one after another."""

    dag_id: str
    description: str
    documentation: str
    owner: str
    tags: tuple[str, ...]
    tasks: tuple[Task, ...]
    parameters: tuple[Parameter, ...]
    max_active_runs: int
    nightly: Nightly | None = None
    """None: started by hand or by another Dag."""
    retry: Retry = Retry()


_PARTITION_PARAMETER: Final = Parameter(
    "partition", "Partition (YYYY-MM-DD), where the run has no partition key", is_date=True
)


def score_id(name: str) -> str:
    """Return the id of the Dag that scores."""
    return f"score_{name}"


def retrain_id(name: str) -> str:
    """Return the id of the Dag that trains a challenger."""
    return f"retrain_{name}"


def redeploy_id(name: str) -> str:
    """Return the id of the Dag that promotes a challenger which wins."""
    return f"redeploy_{name}"


def dag_ids(name: str) -> tuple[str, str, str]:
    """Return the ids that the Dags of a deployment may have."""
    return score_id(name), retrain_id(name), redeploy_id(name)


def dags(deployment: Deployment) -> Iterator[DagPlan]:
    """Yield the Dags of a deployment; without `retrain` it has only the one that scores."""
    yield score_dag(deployment)
    if deployment.retrain is not None:
        yield retrain_dag(deployment)
        yield redeploy_dag(deployment)


def score_dag(deployment: Deployment) -> DagPlan:
    """Return the Dag that scores a partition, checks it, publishes it and watches it."""
    name = deployment.name
    tasks: list[Task] = [
        SparkJob("score", "score.py", name, _options(), reads_rows=deployment.input.path is None),
        Job("check", "check.py", name, _options()),
        Job("publish", "publish.py", name, _options()),
    ]
    if deployment.drift is not None:
        # Each decision reads the ones before it.
        tasks.append(Job("drift", "drift.py", name, _options(), one_at_a_time=True))
    if deployment.online is not None:
        tasks.append(Job("learn", "learn.py", name, _options(), one_at_a_time=True))
    if deployment.retrain is not None:
        tasks.append(
            Trigger(
                "trigger_retrain",
                retrain_id(name),
                conf=(("partition", PARTITION),),
                condition=Condition("drift", "decision", "retrain"),
            )
        )
    tasks.append(Notify("notify", name, PARTITION, DAG_RUN_ID, TRIGGER))
    return _dag(
        deployment,
        score_id(name),
        f"Scores {name}, one partition per run",
        tasks,
        max_active_runs=MAX_NIGHTS_AT_ONCE,
        nightly=Nightly(deployment.schedule, deployment.input.lag_days),
    )


def retrain_dag(deployment: Deployment) -> DagPlan:
    """Return the Dag that trains a challenger and hands it to the redeploy Dag."""
    name = deployment.name
    tasks = (
        Job("train", "train.py", name, _options()),
        Trigger(
            "trigger_redeploy",
            redeploy_id(name),
            conf=(("partition", PARTITION), ("training_run_id", TRAINED_RUN_ID)),
        ),
    )
    return _dag(deployment, retrain_id(name), f"Trains challengers for the models of {name}", tasks, max_active_runs=1)


def redeploy_dag(deployment: Deployment) -> DagPlan:
    """Return the Dag that compares challenger and champion and promotes the winner."""
    name = deployment.name
    tasks: list[Task] = []
    if deployment.retrain is not None and deployment.retrain.approval:
        tasks.append(
            Approval(
                "approve",
                f"Promote challengers of {name}?",
                "Training run: {{ params.training_run_id or 'the newest' }}. Approved, the challengers are compared "
                "with the champions on labelled nights they were not trained on, and promoted only where they win.",
            )
        )
    options = (*_options(), ("--training-run-id", "{{ params.training_run_id or '' }}"))
    tasks.append(Job("redeploy", "redeploy.py", name, options))
    return _dag(
        deployment,
        redeploy_id(name),
        f"Promotes challengers of {name} that win against the champions",
        tasks,
        max_active_runs=1,
        parameters=(Parameter("training_run_id", "Training run whose challengers may be promoted; empty: the newest"),),
    )


def _dag(
    deployment: Deployment,
    dag_id: str,
    description: str,
    tasks: list[Task] | tuple[Task, ...],
    *,
    max_active_runs: int,
    nightly: Nightly | None = None,
    parameters: tuple[Parameter, ...] = (),
) -> DagPlan:
    return DagPlan(
        dag_id=dag_id,
        description=description,
        documentation=_documentation(deployment, description),
        # Airflow splits an owner at commas.
        owner=deployment.owner.team.replace(",", " "),
        tags=(MAIN_TAG, deployment.name, deployment.owner.team),
        tasks=tuple(tasks),
        parameters=(_PARTITION_PARAMETER, *parameters),
        max_active_runs=max_active_runs,
        nightly=nightly,
    )


def _options() -> tuple[tuple[str, str], ...]:
    return ("--partition", PARTITION), ("--dag-run-id", DAG_RUN_ID), ("--trigger", TRIGGER)


def _documentation(deployment: Deployment, description: str) -> str:
    owner = deployment.owner
    lines = [
        f"### {description}",
        *([deployment.description.strip()] if deployment.description.strip() else []),
        "\n".join(
            (
                "| | |",
                "|---|---|",
                f"| deployment | `{deployment.name}/deployment.yaml` |",
                f"| owner | {_cell(owner.team)} ({', '.join(owner.email)}) |",
                f"| schedule | {f'`{deployment.schedule}` UTC' if deployment.schedule else 'by hand'} |",
                f"| input | {_input(deployment.input)} |",
                f"| output | `{deployment.output.path}` |",
                f"| models | {', '.join(f'`{step.model}`' for step in deployment.model_steps) or 'none'} |",
            )
        ),
    ]
    return "\n\n".join(lines)


def _input(source: Input) -> str:
    if source.path is not None:
        return f"`{source.path}/{source.partition}=YYYY-MM-DD`"
    return f"table `{source.table}`" if source.table else f"`{_cell(' '.join(str(source.sql).split()))}`"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
