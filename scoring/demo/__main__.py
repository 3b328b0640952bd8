"""Runs the demo: a lake of real flights, three models, nights in winter and summer, a challenger that is promoted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from scoring import deployment as deployments
from scoring import settings
from scoring.cli import execute, show
from scoring.demo.airflow import Airflow
from scoring.deployment import Deployment
from scoring.errors import ConfigurationError, TransientError
from scoring.job import exit_codes
from scoring.runs import RunKind, RunRecord, RunState, RunStore
from scoring.stack.embedded import Stack
from scoring.stack.environment import PROJECT
from scoring.stack.ports import Ports, is_free

NAME: Final = "flight_delays"
WINTER: Final = ("2013-02-05", "2013-02-06", "2013-02-07")
"""Nights of the reference window: nothing drifts."""
SUMMER: Final = ("2013-07-10", "2013-07-11", "2013-07-12")
"""Nights of another season: drift in a row starts retraining."""
AFTER: Final = ("2013-07-13",)
"""A night that the promoted challenger scores."""
HOLDOUT_LAST: Final = "2013-04-30"
MARKER: Final = "demo.txt"
EARLIER: Final = "earlier-demos"
NIGHTS_DEADLINE_S: Final = 1800.0
DAGS_DEADLINE_S: Final = 300.0
COLUMNS: Final = {
    "night": "night",
    "rows": "rows",
    "rows_per_s": "rows/s",
    "quarantined": "quarantined",
    "checks": "checks",
    "share": "drifted columns",
    "decision": "decision",
    "models": "model versions",
}


class Progress:
    """Lines on stderr with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print one line."""
        show.note(f"[{time.monotonic() - self._start:4.0f} s] {text}")


def main() -> None:
    """Run the demo in `settings.home()` and print what happened."""
    say = Progress()
    home = settings.home()
    with exit_codes():
        _prepare(home, say)
        ports = _ports(say)
        stack = Stack(home, ports, report=lambda text: say(f"  {text}"))
        # Everything below, also in this process, sees the stack as its tasks do.
        os.environ.update(stack.environment())
        deployment = deployments.load(NAME)
        say("writing a lake of 336,776 flights from New York in 2013, and starting Airflow, MLflow and a mail sink")
        lake = subprocess.Popen([sys.executable, str(deployment.folder / "lake.py")], stderr=subprocess.PIPE, text=True)
        with stack:
            _, complaints = lake.communicate()
            if lake.returncode:
                raise TransientError("writing the lake failed", got=complaints[-1000:])
            _train(say)
            _nights(deployment, stack, say)
            _show(deployment, stack)


def _prepare(home: Path, say: Progress) -> None:
    """Start from an empty home; an earlier demo's is kept aside, and nothing else is touched."""
    marker = home / MARKER
    if marker.is_file():
        if Stack(home).running():
            raise ConfigurationError(f"the stack of {home} is running", hint="Stop it first: make down.")
        kept = home / EARLIER / datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S")
        kept.mkdir(parents=True)
        for entry in home.iterdir():
            if entry.name != EARLIER:
                shutil.move(entry, kept / entry.name)
        say(f"the demo has run here before; its results were moved to {kept}")
    elif (home / "mlflow.db").exists():
        raise ConfigurationError(
            f"{home} holds results of your own",
            "an empty folder",
            "mlflow.db",
            "Run: SCORING_HOME=$PWD/.demo make demo",
        )
    home.mkdir(parents=True, exist_ok=True)
    marker.write_text("Written by `make demo`, which may start afresh in this folder.\n", "utf-8")


def _ports(say: Progress) -> Ports:
    """Return the usual ports, or free ones when a usual one is taken: the demo must not fail for that."""
    ports = Ports.from_environment()
    if all(is_free(port) for _, port in ports.named().values()):
        return ports
    say("a usual port is taken: using free ones")
    return Ports.free()


def _train(say: Progress) -> None:
    """Train the first champions on January to March and show them on April."""
    say("training three models on January to March, comparing on April")
    command = [sys.executable, "-m", "scoring", "train", NAME, "--holdout-last", HOLDOUT_LAST, "--promote"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TransientError("training failed", got=done.stderr[-2000:])
    metrics = RunStore().find(NAME, kind=RunKind.TRAIN, limit=1)[0].metrics
    prefix = "challenger_roc_auc_"
    models = [f"{key.removeprefix(prefix)} {metrics[key]:.3f}" for key in sorted(metrics) if key.startswith(prefix)]
    say(f"  ROC-AUC on April: {', '.join(models)}; ensemble {metrics['challenger_roc_auc']:.3f}; now champions")


def _nights(deployment: Deployment, stack: Stack, say: Progress) -> None:
    """Score the nights with Airflow, and follow what the drift of summer starts."""
    airflow = Airflow(stack.airflow_url, stack.username, stack.password)
    airflow.log_in()
    score, retrain, redeploy = (f"{verb}_{NAME}" for verb in ("score", "retrain", "redeploy"))
    airflow.wait_for_dags([score, retrain, redeploy], deadline_s=DAGS_DEADLINE_S)
    say(f"scoring {len(WINTER)} nights of winter and {len(SUMMER)} of summer with Airflow at {stack.airflow_url}")
    _score(airflow, score, [*WINTER, *SUMMER], say)
    say("the summer nights drifted: following retraining and redeployment")
    for dag_id in (retrain, redeploy):
        run = _wait_for_run(airflow, dag_id)
        _succeeded(airflow.follow(dag_id, {dag_id: run}, deadline_s=NIGHTS_DEADLINE_S, report=_indented(say)))
    if not RunStore().find(deployment.name, kind=RunKind.PROMOTE, state=RunState.DONE, limit=2)[1:]:
        raise TransientError("the challenger was not promoted", "a promotion", "none", f"See {stack.mlflow_url}.")
    say(f"the challenger was promoted; scoring {AFTER[0]} with it")
    _score(airflow, score, AFTER, say)


def _score(airflow: Airflow, dag_id: str, nights: Sequence[str], say: Progress) -> None:
    runs = {night: airflow.trigger(dag_id, night) for night in nights}
    _succeeded(airflow.follow(dag_id, runs, deadline_s=NIGHTS_DEADLINE_S, report=_indented(say)))


def _wait_for_run(airflow: Airflow, dag_id: str) -> str:
    end = time.monotonic() + DAGS_DEADLINE_S
    while not (runs := airflow.runs(dag_id)):
        if time.monotonic() > end:
            raise TransientError(f"Dag {dag_id!r} was not started", "a run", "none")
        time.sleep(1)
    return str(runs[-1]["dag_run_id"])


def _succeeded(states: dict[str, str]) -> None:
    failed = sorted(name for name, state in states.items() if state != "success")
    if failed:
        raise TransientError(f"{', '.join(failed)} failed", hint="See the task logs in Airflow's UI (make up).")


def _indented(say: Progress) -> Callable[[str], None]:
    return lambda text: say(f"  {text}")


def _show(deployment: Deployment, stack: Stack) -> None:
    """Print the nights, the mails and where everything lies."""
    runs = {run.partition: run for run in reversed(RunStore().find(NAME, state=RunState.PUBLISHED))}
    nights = sorted(runs.values(), key=lambda run: run.partition)
    show.table("Nights", [_row(run) for run in nights], COLUMNS)
    mails = sorted(stack.mails_folder.glob("*.eml"))
    promoted = RunStore().find(NAME, kind=RunKind.PROMOTE, state=RunState.DONE, limit=1)[0]
    show.facts(
        "What happened",
        {
            "published partitions": len(execute.status(NAME)),
            "promotion": promoted.tags["reason"],
            "mails sent": len(mails),
            **{f"mail {number}": _subject(mail) for number, mail in enumerate(mails, 1)},
            "predictions": deployment.output.path,
            "mails": str(stack.mails_folder),
            "runs, models, reports": f"{stack.home / 'mlflow.db'} and {stack.home / 'artifacts'}",
        },
    )
    show.note("Look around: make up. Then read the table: .venv/bin/scoring status flight_delays")


def _row(run: RunRecord) -> dict[str, Any]:
    share = run.tags.get("share_of_drifted_columns")
    versions = sorted(set(run.model_versions.values()))
    return {
        "night": run.partition,
        "rows": int(run.metrics["rows"]),
        "rows_per_s": run.metrics.get("rows_per_s"),
        "quarantined": int(run.metrics["quarantined"]),
        "checks": run.tags.get("checks"),
        "share": f"{float(share):.0%}" if share else "not computed",
        "decision": run.tags.get("decision"),
        "models": ", ".join(f"v{version}" for version in versions),
    }


def _subject(mail: Path) -> str:
    from email import message_from_bytes, policy

    return str(message_from_bytes(mail.read_bytes(), policy=policy.default)["subject"])


if __name__ == "__main__":
    if not (PROJECT / "dags").is_dir():
        sys.exit("the demo runs from a checkout of the project: `dags/` was not found")
    main()
