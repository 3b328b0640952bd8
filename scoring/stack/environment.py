"""The environment in which the embedded stack's servers, and the tasks they start, run."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import scoring
from scoring import java, settings
from scoring.stack import secrets
from scoring.stack.ports import LOOPBACK, Ports

PROJECT: Final = Path(scoring.__file__).resolve().parent.parent
"""The checkout that holds `dags/`, `plugins/` and `jobs/`; `scoring` is installed from it, editable."""
SENDER: Final = "scoring@localhost"
PARALLEL_TASKS: Final = 4
DAG_REFRESH_S: Final = 20
DATABASE_PATIENCE_S: Final = 60
"""How long one process waits while another writes to SQLite; its default of 5 is too short on a busy laptop."""


def environment(home: Path, ports: Ports) -> dict[str, str]:
    """Return the caller's environment with everything the stack needs set; creates the stack's secrets."""
    home = home.absolute()
    given = settings.variables()
    return {
        **given,
        **_scoring(home, ports),
        **_spark(),
        **_airflow(home, ports),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), given.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        # A proxy must not be asked for servers on loopback.
        **{name: ",".join(filter(None, (given.get(name), LOOPBACK, "localhost"))) for name in ("no_proxy", "NO_PROXY")},
    }


def airflow_url(ports: Ports) -> str:
    """Return the address of Airflow's UI and REST API."""
    return f"http://{LOOPBACK}:{ports.airflow}"


def mlflow_url(ports: Ports) -> str:
    """Return the address of MLflow's UI."""
    return f"http://{LOOPBACK}:{ports.mlflow}"


def _scoring(home: Path, ports: Ports) -> dict[str, str]:
    smtp = {
        "conn_type": "smtp",
        "host": LOOPBACK,
        "port": ports.smtp,
        "extra": {"disable_ssl": True, "disable_tls": True, "from_email": SENDER, "timeout": 10, "retry_limit": 1},
    }
    return {
        settings.HOME_VARIABLE: str(home),
        settings.DEPLOYMENTS_VARIABLE: str(
            Path(settings.variables().get(settings.DEPLOYMENTS_VARIABLE) or PROJECT / "dags" / "deployments").absolute()
        ),
        # Tasks and the command line use the SQLite file itself, so they share one store and one artifact folder
        # whether the stack is up or not; the server only shows it.
        settings.TRACKING_VARIABLE: f"sqlite:///{home / 'mlflow.db'}",
        settings.MLFLOW_UI_VARIABLE: mlflow_url(ports),
        settings.UI_VARIABLE: airflow_url(ports),
        settings.SMTP_VARIABLE: json.dumps(smtp),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
    }


def _spark() -> dict[str, str]:
    master = settings.spark_master()
    variables = {
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": master}),
    }
    if master.startswith("local"):
        variables["SPARK_LOCAL_IP"] = LOOPBACK
    if (pyspark := find_spec("pyspark")) is not None and pyspark.origin is not None:
        # Another Spark on this machine must not be mixed with the Python package's.
        variables["SPARK_HOME"] = str(Path(pyspark.origin).parent)
    if (found := java.find()) is not None:
        variables["JAVA_HOME"] = str(found.home)
    return variables


def _airflow(home: Path, ports: Ports) -> dict[str, str]:
    folder = home / "airflow"
    kept = secrets.load(folder)
    options = {
        "API__BASE_URL": airflow_url(ports),
        "API__HOST": LOOPBACK,
        "API__PORT": str(ports.airflow),
        "API__SECRET_KEY": kept.api_secret_key,
        "API_AUTH__JWT_SECRET": kept.jwt_secret,
        "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        # Must follow the port, else Airflow kills every task after ten seconds.
        "CORE__EXECUTION_API_SERVER_URL": f"{airflow_url(ports)}/execution/",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__FERNET_KEY": kept.fernet_key,
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PARALLELISM": str(PARALLEL_TASKS),
        "CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(secrets.passwords_file(folder)),
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{secrets.USERNAME}:admin",
        "DAG_PROCESSOR__REFRESH_INTERVAL": str(DAG_REFRESH_S),
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}?timeout={DATABASE_PATIENCE_S}",
        "LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    return {"AIRFLOW_HOME": str(folder), **{f"AIRFLOW__{name}": value for name, value in options.items()}}
