"""What all tests share: nothing of the developer's own environment is read or written, and nothing leaves loopback."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from scoring import java, settings
from scoring.runs import RunStore
from tests.object_store import ObjectStore, running_store

FORGOTTEN = (
    settings.DEPLOYMENTS_VARIABLE,
    settings.TRACKING_VARIABLE,
    settings.MLFLOW_UI_VARIABLE,
    settings.UI_VARIABLE,
    settings.SPARK_MASTER_VARIABLE,
    settings.SMTP_VARIABLE,
    "SPARK_HOME",
    "SPARK_CONF_DIR",
)
"""Variables of the developer's shell that would send a test elsewhere."""
HOME = pytest.StashKey[Path]()

# The same examples everywhere, so that a change is judged by itself; `--hypothesis-profile search` looks for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("search", max_examples=2_000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Settle the environment before any test module is imported: Airflow and MLflow read it at their import."""
    home = Path(tempfile.mkdtemp(prefix="scoring-tests-"))
    config.stash[HOME] = home
    for name in [name for name in os.environ if name in FORGOTTEN or name.startswith(("AIRFLOW", "AWS_"))]:
        del os.environ[name]
    usable = java.find()
    os.environ.update(
        {
            settings.HOME_VARIABLE: str(home),
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AWS_EC2_METADATA_DISABLED": "true",
            "DO_NOT_TRACK": "1",
            "GX_ANALYTICS_ENABLED": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
            **({"JAVA_HOME": str(usable.home)} if usable is not None else {}),
        }
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what the tests left."""
    shutil.rmtree(config.stash[HOME], ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _own_store() -> Iterator[None]:
    """MLflow leaves the address of the store that it used last in the environment: no module inherits another's."""
    os.environ.pop(settings.TRACKING_VARIABLE, None)
    yield
    os.environ.pop(settings.TRACKING_VARIABLE, None)


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty MLflow store: migrations take seconds, a copy takes none."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(settings.TRACKING_VARIABLE, f"sqlite:///{file}")
        RunStore().find("none")
    return file


@pytest.fixture(scope="session")
def object_store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server on loopback."""
    with running_store(tmp_path_factory.mktemp("object_store") / "server.log") as address:
        yield address


@pytest.fixture
def object_store(object_store_server: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A bucket of its own on an S3 server, which the environment names as Amazon's tools expect it."""
    for name, value in {
        "AWS_ENDPOINT_URL": object_store_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }.items():
        monkeypatch.setenv(name, value)
    return ObjectStore.create(object_store_server)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_template: Path) -> Path:
    """A fresh `$SCORING_HOME` with an empty MLflow store; deployments lie in its folder `deployments`."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(mlflow_template, folder / "mlflow.db")
    monkeypatch.setenv(settings.HOME_VARIABLE, str(folder))
    monkeypatch.setenv(settings.DEPLOYMENTS_VARIABLE, str(folder / "deployments"))
    monkeypatch.delenv(settings.TRACKING_VARIABLE, raising=False)
    return folder
