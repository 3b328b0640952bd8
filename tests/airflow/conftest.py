"""Starts real Airflows: api-server, scheduler, dag-processor and triggerer, which stop with the test session.

A test gives `start_airflow` what is to be added to the environment of the processes: deployments, jobs, connections.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.airflow.running import PROJECT, RunningAirflow, StartAirflow, environment_of, free_port

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

BROWSER_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1600,1200"),
)


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite metadata database; each Airflow starts from a copy, since migrating takes long."""
    home = tmp_path_factory.mktemp("airflow-database")
    environment = environment_of(home, dags=home, port=free_port())
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=environment, check=True, capture_output=True)
    with closing(sqlite3.connect(home / "airflow.db")) as connection:
        # Else who reads waits for who writes, and the API server gives up after a while. The file remembers it.
        connection.execute("PRAGMA journal_mode = WAL")
    return home / "airflow.db"


@pytest.fixture(scope="module")
def start_airflow(airflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartAirflow]:
    """Starts Airflows, and stops them at the end of the test module: each keeps a core half busy."""
    running: list[RunningAirflow] = []

    def start(environment: Mapping[str, str], *, dags: Path = PROJECT / "dags") -> RunningAirflow:
        home = tmp_path_factory.mktemp("airflow")
        shutil.copy(airflow_database, home / "airflow.db")
        port = free_port()
        whole = environment_of(home, dags=dags, port=port) | dict(environment)
        airflow = RunningAirflow(home=home, url=f"http://127.0.0.1:{port}", environment=whole)
        running.append(airflow)
        airflow.start()
        return airflow

    yield start
    for airflow in running:
        airflow.stop()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """A browser with a fresh profile."""
    from selenium import webdriver

    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found on PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"] or ""
    for option in (*BROWSER_OPTIONS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs["chromedriver"]))
    yield driver
    driver.quit()
