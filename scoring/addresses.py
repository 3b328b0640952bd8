"""Where people see a run: pages of the plugin in Airflow's UI, and MLflow. Used by mails, links of tasks and the pages.

The plugin's app is mounted at `/scoring`; Airflow shows it, with its own navigation around it, at `/plugin/scoring`
followed by the app's path.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final
from urllib.parse import quote, urlsplit

from scoring import settings

PREFIX: Final = "/scoring"
"""Where the plugin's app is mounted below Airflow's address."""
FRAME: Final = "/plugin/scoring"
"""Where Airflow's UI frames the app."""


class Report(StrEnum):
    """A report that is kept with a run, as `<report>/report.html` and `.json`."""

    QUALITY = "quality"
    DRIFT = "drift"
    RUN = "run"
    """What the run took: seconds, memory, splits."""


def report_page(run_id: str, report: Report, *, airflow: str) -> str:
    """Return the address of a report in the Airflow whose own address is `airflow`."""
    return _framed(airflow, f"{PREFIX}/runs/{quote(run_id, safe='')}/{report}")


def deployment_page(name: str, *, airflow: str) -> str:
    """Return the address of a deployment's partitions in the Airflow whose own address is `airflow`."""
    return _framed(airflow, f"{PREFIX}/deployments/{quote(name, safe='')}")


def mlflow_run(run_id: str) -> str | None:
    """Return the address of a run in MLflow's UI; None if that address is unknown."""
    ui = settings.mlflow_ui()
    return None if ui is None else f"{ui}/#/runs/{quote(run_id, safe='')}"


def where(run_id: str, report: Report) -> str:
    """Return where people find a report: its page in Airflow if that address is known, else the artifact's name."""
    ui = settings.ui()
    return report_page(run_id, report, airflow=ui) if ui else f"artifact {report}/report.html of MLflow run {run_id}"


def _framed(airflow: str, path: str) -> str:
    base = airflow.rstrip("/")
    # Airflow repeats the whole path of the framed page, so that of an Airflow below a path appears twice.
    return f"{base}{FRAME}{urlsplit(base).path}{path}"
