"""What the environment says. The only module that reads environment variables; read when called, never at import."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

HOME_VARIABLE: Final = "SCORING_HOME"
DEPLOYMENTS_VARIABLE: Final = "SCORING_DEPLOYMENTS"
JOBS_VARIABLE: Final = "SCORING_JOBS"
TRACKING_VARIABLE: Final = "MLFLOW_TRACKING_URI"
MLFLOW_UI_VARIABLE: Final = "SCORING_MLFLOW_UI"
UI_VARIABLE: Final = "SCORING_UI"
SPARK_MASTER_VARIABLE: Final = "SCORING_SPARK_MASTER"
SMTP_VARIABLE: Final = "AIRFLOW_CONN_SMTP_DEFAULT"
MAIL_FROM_VARIABLE: Final = "SCORING_MAIL_FROM"
ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGION_VARIABLES: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
STORE_VARIABLES: Final = (
    *ENDPOINT_VARIABLES,
    *REGION_VARIABLES,
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)
"""What Amazon's own tools read, and what all of ours that open an S3-compatible store are given."""


def home() -> Path:
    """Return the folder that holds all state of the embedded default (`$SCORING_HOME`, else `.scoring/` here)."""
    return Path(os.environ.get(HOME_VARIABLE) or ".scoring").absolute()


def deployments_folder() -> Path:
    """Return the folder that holds one folder per deployment (`$SCORING_DEPLOYMENTS`, else `dags/deployments/`)."""
    return Path(os.environ.get(DEPLOYMENTS_VARIABLE) or "dags/deployments").absolute()


def jobs_folder() -> Path:
    """Return the folder of the jobs that Airflow starts (`$SCORING_JOBS`, else `jobs/` of this checkout)."""
    return Path(os.environ.get(JOBS_VARIABLE) or Path(__file__).parents[1] / "jobs").absolute()


def tracking_uri() -> str:
    """Return MLflow's tracking and registry address (`$MLFLOW_TRACKING_URI`, else SQLite below `home()`)."""
    return os.environ.get(TRACKING_VARIABLE) or f"sqlite:///{home() / 'mlflow.db'}"


def artifact_root() -> Path:
    """Return where the embedded MLflow store keeps artifacts; a tracking server has its own."""
    return home() / "artifacts"


def mlflow_ui() -> str | None:
    """Return the address people open to see MLflow, without a trailing slash; None if none is known."""
    address = os.environ.get(MLFLOW_UI_VARIABLE) or tracking_uri()
    return address.rstrip("/") if address.startswith(("http://", "https://")) else None


def ui() -> str | None:
    """Return the address people open to see Airflow (`$SCORING_UI`), without a trailing slash; None if unknown."""
    address = os.environ.get(UI_VARIABLE)
    return address.rstrip("/") if address else None


def spark_master() -> str:
    """Return the Spark master for jobs started without `spark-submit --master` (`$SCORING_SPARK_MASTER`)."""
    return os.environ.get(SPARK_MASTER_VARIABLE) or "local[*]"


def mail_from() -> str:
    """Return the sender of mails to owners (`$SCORING_MAIL_FROM`, else `scoring@localhost`)."""
    return os.environ.get(MAIL_FROM_VARIABLE) or "scoring@localhost"


def store_endpoint() -> str | None:
    """Return the address of the S3-compatible store (`$AWS_ENDPOINT_URL_S3`, `$AWS_ENDPOINT_URL`); None: Amazon's."""
    return next((value for name in ENDPOINT_VARIABLES if (value := os.environ.get(name))), None)


def store_region() -> str | None:
    """Return the region of the S3-compatible store (`$AWS_REGION`, `$AWS_DEFAULT_REGION`); None if none is set."""
    return next((value for name in REGION_VARIABLES if (value := os.environ.get(name))), None)


def store_variables() -> dict[str, str]:
    """Return the variables with which an S3-compatible store is opened, as far as they are set."""
    return {name: value for name in STORE_VARIABLES if (value := os.environ.get(name))}


def variables() -> Mapping[str, str]:
    """Return the variables that `${NAME}` in a deployment may use: the environment and `SCORING_HOME`."""
    return {**os.environ, HOME_VARIABLE: str(home())}


def is_spark_submit() -> bool:
    """Return whether this process was started by `spark-submit`, which has chosen the master."""
    return "PYSPARK_GATEWAY_PORT" in os.environ
